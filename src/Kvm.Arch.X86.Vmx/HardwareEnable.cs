using Kvm.Abi;
using Kvm.Core;
using Kvm.Core.Tracing;
using Kvm.Emulator;

namespace Kvm.Arch.X86.Vmx;

/// <summary>VMX operation on and off, per processor, and the VMCSs loaded there.</summary>
public sealed unsafe partial class KvmIntel
{
    /// <summary>Enters VMX operation. -EFAULT when VMXON faults, with CR4.VMXE clear again; a VMfail of VMXON goes unnoticed, as in the kernel.</summary>
    [KernelFunction("kvm_cpu_vmxon", File = "arch/x86/kvm/vmx/vmx.c")]
    private int KvmCpuVmxon(ulong vmxonPointer)
    {
        HostX86Cpu cpu = arch.HostX86.ThisCpu;
        cpu.Cr4SetBits(X86_CR4_VMXE);
        if (!cpu.Processor.Vmxon(vmxonPointer).IsFault)
            return 0;
        ulong msr = cpu.RdmsrSafe(MSR_IA32_FEAT_CTL, out ulong value) ? value : 0xdeadbeef;
        WarnOnce("kvm_cpu_vmxon", $"VMXON faulted, MSR_IA32_FEAT_CTL (0x3a) = 0x{msr:x}");
        cpu.Cr4ClearBits(X86_CR4_VMXE);
        return -(int)Errno.EFAULT;
    }

    /// <summary>Turns VMX on for the current CPU: -EBUSY when CR4.VMXE is already set (someone else uses VMX), -EFAULT when VMXON faults.</summary>
    [KernelFunction("vmx_hardware_enable", File = "arch/x86/kvm/vmx/vmx.c", Formerly = "hardware_enable")]
    public int HardwareEnable()
    {
        using var _ = FunctionTrace.Enter("vmx_hardware_enable");
        if ((arch.HostX86.ThisCpu.Cr4Shadow & X86_CR4_VMXE) != 0)
            return -(int)Errno.EBUSY;
        int r = KvmCpuVmxon(vmxarea[SmpProcessorId]);
        if (r != 0)
            return r;
        if (EnableEpt)
            EptSyncGlobal();
        return 0;
    }

    [KernelFunction("vmclear_local_loaded_vmcss", File = "arch/x86/kvm/vmx/vmx.c")]
    private void VmclearLocalLoadedVmcss()
    {
        LoadedVmcsList list = loadedVmcssOnCpu[SmpProcessorId];
        while (list.First is { } vmcs)
            LoadedVmcsClearLocal(vmcs);
    }

    /// <summary>VMCSs that are loaded on a CPU.</summary>
    internal int LoadedOn(int cpu) => loadedVmcssOnCpu[cpu].Count;

    /// <summary>Leaves VMX operation on the current CPU after writing back every VMCS loaded on it.</summary>
    [KernelFunction("vmx_hardware_disable", File = "arch/x86/kvm/vmx/vmx.c", Formerly = "hardware_disable")]
    public void HardwareDisable()
    {
        using var _ = FunctionTrace.Enter("vmx_hardware_disable");
        VmclearLocalLoadedVmcss();
        if (CpuVmxoff() != 0)
            KvmSpuriousFault();
    }

    /// <summary>VMXOFF and CR4.VMXE := 0; -EIO when VMXOFF faults.</summary>
    [KernelFunction("cpu_vmxoff", File = "arch/x86/include/asm/virtext.h")]
    private int CpuVmxoff()
    {
        HostX86Cpu cpu = arch.HostX86.ThisCpu;
        bool faulted = cpu.Processor.Vmxoff().IsFault;
        cpu.Cr4ClearBits(X86_CR4_VMXE);
        return faulted ? -(int)Errno.EIO : 0;
    }

    /// <summary>Before a crash kernel or reboot takes over: VMCLEAR what is loaded here, then leave VMX operation.</summary>
    [KernelFunction("vmx_emergency_disable", File = "arch/x86/kvm/vmx/vmx.c")]
    internal void EmergencyDisable()
    {
        for (LoadedVmcs? vmcs = loadedVmcssOnCpu[SmpProcessorId].First; vmcs != null; vmcs = vmcs.Next)
        {
            VmcsClear(vmcs.Vmcs);
            if (vmcs.ShadowVmcs != 0)
                VmcsClear(vmcs.ShadowVmcs);
        }
        if ((arch.HostX86.ThisCpu.Cr4Shadow & X86_CR4_VMXE) != 0)
            CpuVmxoff();
    }

    /// <summary>Runs on the CPU where the VMCS is loaded: VMCLEAR, off the list, and only then <c>cpu = -1</c>, so that no other CPU links it too early.</summary>
    [KernelFunction("__loaded_vmcs_clear", File = "arch/x86/kvm/vmx/vmx.c")]
    private void LoadedVmcsClearLocal(LoadedVmcs loadedVmcs)
    {
        using var _ = FunctionTrace.Enter("__loaded_vmcs_clear");
        int cpu = SmpProcessorId;
        if (loadedVmcs.Cpu != cpu)
            return; // migration of a vCPU can race with its CPU going offline
        if (currentVmcs[cpu] == loadedVmcs.Vmcs)
            currentVmcs[cpu] = 0;
        VmcsClear(loadedVmcs.Vmcs);
        if (loadedVmcs.ShadowVmcs != 0 && loadedVmcs.Launched)
            VmcsClear(loadedVmcs.ShadowVmcs);
        loadedVmcssOnCpu[cpu].Remove(loadedVmcs);
        // Pairs with the read of Cpu in vmx_vcpu_load_vmcs: whoever sees -1 also sees the list without it.
        loadedVmcs.Launched = false;
        loadedVmcs.Cpu = -1;
    }

    /// <summary>VMCLEARs a VMCS where it is loaded, by an IPI that is waited for.</summary>
    [KernelFunction("loaded_vmcs_clear", File = "arch/x86/kvm/vmx/vmx.c")]
    private void LoadedVmcsClear(LoadedVmcs loadedVmcs)
    {
        int cpu = loadedVmcs.Cpu;
        if (cpu != -1)
            Host.SmpCallFunctionSingle(cpu, clearLoadedVmcs, loadedVmcs);
    }
}

using Kvm.Emulator.Vmx;

namespace Kvm.Emulator;

/// <summary>The VMX instructions of a processor, as executed by kernel-mode code. The instruction stream's handlers end in the same code.</summary>
public sealed unsafe partial class Processor
{
    private VmxUnit? vmx;

    /// <summary>VMX state of this processor: VMXON pointer, current VMCS, cached VMCSs.</summary>
    internal VmxUnit Vmx => vmx ??= new VmxUnit(this);

    /// <summary>Instructions told to fail by name and count; consulted by VMX, SVM and MSR instructions.</summary>
    public InstructionFaults InstructionFaults => instructionFaults ??= new InstructionFaults();

    private InstructionFaults? instructionFaults;

    /// <summary>Takes an armed fault of <paramref name="mnemonic"/>; one null test when none was ever armed.</summary>
    internal bool TakeInstructionFault(string mnemonic, out InstructionResult result)
    {
        if (instructionFaults is { } faults)
            return faults.Take(mnemonic, out result);
        result = default;
        return false;
    }

    /// <summary>VMXON was executed and VMXOFF was not.</summary>
    public bool InVmxOperation => vmx is { On: true };

    /// <summary>The current-VMCS pointer; all ones when there is none.</summary>
    public ulong CurrentVmcsPointer => vmx is null ? VmxUnit.NoVmcs : vmx.CurrentPointer;

    /// <summary>VMXON m64.</summary>
    public InstructionResult Vmxon(ulong physicalAddress) => Vmx.Vmxon(physicalAddress);
    /// <summary>VMXOFF.</summary>
    public InstructionResult Vmxoff() => Vmx.Vmxoff();
    /// <summary>VMCLEAR m64.</summary>
    public InstructionResult Vmclear(ulong physicalAddress) => Vmx.Vmclear(physicalAddress);
    /// <summary>VMPTRLD m64.</summary>
    public InstructionResult Vmptrld(ulong physicalAddress) => Vmx.Vmptrld(physicalAddress);
    /// <summary>VMPTRST m64: the current-VMCS pointer, all ones when there is none.</summary>
    public InstructionResult Vmptrst(out ulong physicalAddress) => Vmx.Vmptrst(out physicalAddress);
    /// <summary>VMREAD: a component of the current VMCS, zero-extended.</summary>
    public InstructionResult Vmread(uint field, out ulong value) => Vmx.Vmread(field, shadow: false, out value);
    public InstructionResult Vmread(VmcsField field, out ulong value) => Vmx.Vmread((uint)field, shadow: false, out value);
    /// <summary>VMWRITE; bits above the component's width are ignored.</summary>
    public InstructionResult Vmwrite(uint field, ulong value) => Vmx.Vmwrite(field, value, shadow: false);
    public InstructionResult Vmwrite(VmcsField field, ulong value) => Vmx.Vmwrite((uint)field, value, shadow: false);
    /// <summary>INVEPT with descriptor {<paramref name="eptp"/>, 0}: type 1 single-context, 2 all-context.</summary>
    public InstructionResult Invept(ulong type, ulong eptp) => Vmx.Invept(type, eptp, 0);
    /// <summary>INVVPID: type 0 individual address, 1 single-context, 2 all-context, 3 single-context retaining globals.</summary>
    public InstructionResult Invvpid(ulong type, ushort vpid, ulong linear) => Vmx.Invvpid(type, vpid, linear);
    /// <summary>
    /// VMLAUNCH. Success = the guest was entered and came back through a VM exit (host state loaded, RIP = HOST_RIP); a failure = never entered.
    /// </summary>
    public InstructionResult Vmlaunch() => Vmx.EnterFromKernel(launch: true);
    /// <summary>VMRESUME; see <see cref="Vmlaunch"/>.</summary>
    public InstructionResult Vmresume() => Vmx.EnterFromKernel(launch: false);
    /// <summary>VMCALL in VMX root operation: always a failure (no dual-monitor treatment).</summary>
    public InstructionResult Vmcall() => Vmx.Vmcall();
}

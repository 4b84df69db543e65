using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.Vmx.VmxControls;

namespace Kvm.Arch.X86.Vmx;

/// <summary>The MSR bitmap: which RDMSR and WRMSR of the guest exit.</summary>
public sealed unsafe partial class KvmIntel
{
    internal const int MSR_TYPE_R = 1, MSR_TYPE_W = 2, MSR_TYPE_RW = 3;

    /// <summary>MSRs that may be passed through; their intended state survives changes of userspace's filter. x2APIC and LBR MSRs are handled apart.</summary>
    private static readonly uint[] possiblePassthroughMsrs =
    [
        MSR_IA32_SPEC_CTRL, MSR_IA32_PRED_CMD, MSR_IA32_TSC, MSR_FS_BASE, MSR_GS_BASE, MSR_KERNEL_GS_BASE, MSR_IA32_XFD, MSR_IA32_XFD_ERR,
        MSR_IA32_SYSENTER_CS, MSR_IA32_SYSENTER_ESP, MSR_IA32_SYSENTER_EIP, MSR_CORE_C1_RES, MSR_CORE_C3_RESIDENCY, MSR_CORE_C6_RESIDENCY, MSR_CORE_C7_RESIDENCY,
    ];

    [KernelFunction("possible_passthrough_msr_slot", File = "arch/x86/kvm/vmx/vmx.c")]
    private static int PossiblePassthroughMsrSlot(uint msr) => Array.IndexOf(possiblePassthroughMsrs, msr);

    [KernelFunction("is_valid_passthrough_msr", File = "arch/x86/kvm/vmx/vmx.c")]
    private bool IsValidPassthroughMsr(uint msr)
    {
        using var _ = FunctionTrace.Enter("is_valid_passthrough_msr");
        if (msr is >= 0x800 and <= 0x8ff)
            return true;
        bool valid = PossiblePassthroughMsrSlot(msr) >= 0;
        if (!valid)
            WarnOnce($"is_valid_passthrough_msr {msr:x}", $"Invalid MSR {msr:x}, please adapt vmx_possible_passthrough_msrs[]");
        return valid;
    }

    [KernelFunction("vmx_msr_bitmap_l01_changed", File = "arch/x86/kvm/vmx/vmx.c")]
    private static void MsrBitmapL01Changed(VcpuVmx vmx)
    {
        using var _ = FunctionTrace.Enter("vmx_msr_bitmap_l01_changed");
    }

    /// <summary>Byte and bit of an MSR in the bitmap page; false outside the two ranges, which always exit. Writes are 2 KiB further.</summary>
    private static bool BitmapPosition(uint msr, bool write, out int offset, out byte bit)
    {
        offset = write ? 0x800 : 0;
        if (msr is >= 0xc0000000 and <= 0xc0001fff)
            offset += 0x400;
        else if (msr > 0x1fff)
        {
            bit = 0;
            return false;
        }
        msr &= 0x1fff;
        offset += (int)(msr >> 3);
        bit = (byte)(1 << (int)(msr & 7));
        return true;
    }

    private static void SetMsrBitmap(ulong bitmap, uint msr, bool write, bool intercept)
    {
        if (!BitmapPosition(msr, write, out int offset, out byte bit))
            return;
        byte* p = (byte*)bitmap + offset;
        *p = (byte)(intercept ? *p | bit : *p & ~bit);
    }

    private static bool TestMsrBitmap(ulong bitmap, uint msr, bool write) =>
        !BitmapPosition(msr, write, out int offset, out byte bit) || (((byte*)bitmap)[offset] & bit) != 0;

    /// <summary>Whether a WRMSR of the guest exits.</summary>
    [KernelFunction("msr_write_intercepted", File = "arch/x86/kvm/vmx/vmx.c")]
    private static bool MsrWriteIntercepted(VcpuVmx vmx, uint msr) =>
        (vmx.ExecControlsGet() & CPU_BASED_USE_MSR_BITMAPS) == 0 || TestMsrBitmap(vmx.LoadedVmcs.MsrBitmap, msr, write: true);

    /// <summary>Lets the guest access an MSR directly, unless userspace's filter denies it.</summary>
    [KernelFunction("vmx_disable_intercept_for_msr", File = "arch/x86/kvm/vmx/vmx.c")]
    internal void DisableInterceptForMsr(VcpuVmx vmx, uint msr, int type)
    {
        using var _ = FunctionTrace.Enter("vmx_disable_intercept_for_msr");
        if (!CpuHasVmxMsrBitmap)
            return;
        MsrBitmapL01Changed(vmx);
        RecordIntercept(vmx, msr, type, intercept: false);
        ulong bitmap = vmx.Vmcs01.MsrBitmap;
        if ((type & MSR_TYPE_R) != 0)
            SetMsrBitmap(bitmap, msr, write: false, intercept: !vmx.MsrAllowed(msr, KVM_MSR_FILTER_READ));
        if ((type & MSR_TYPE_W) != 0)
            SetMsrBitmap(bitmap, msr, write: true, intercept: !vmx.MsrAllowed(msr, KVM_MSR_FILTER_WRITE));
    }

    [KernelFunction("vmx_enable_intercept_for_msr", File = "arch/x86/kvm/vmx/vmx.c")]
    internal void EnableInterceptForMsr(VcpuVmx vmx, uint msr, int type)
    {
        if (!CpuHasVmxMsrBitmap)
            return;
        MsrBitmapL01Changed(vmx);
        RecordIntercept(vmx, msr, type, intercept: true);
        if ((type & MSR_TYPE_R) != 0)
            SetMsrBitmap(vmx.Vmcs01.MsrBitmap, msr, write: false, intercept: true);
        if ((type & MSR_TYPE_W) != 0)
            SetMsrBitmap(vmx.Vmcs01.MsrBitmap, msr, write: true, intercept: true);
    }

    [KernelFunction("vmx_set_intercept_for_msr", File = "arch/x86/kvm/vmx/vmx.h")]
    private void SetInterceptForMsr(VcpuVmx vmx, uint msr, int type, bool intercept)
    {
        if (intercept)
            EnableInterceptForMsr(vmx, msr, type);
        else
            DisableInterceptForMsr(vmx, msr, type);
    }

    private void RecordIntercept(VcpuVmx vmx, uint msr, int type, bool intercept)
    {
        if (!IsValidPassthroughMsr(msr))
            return;
        int slot = PossiblePassthroughMsrSlot(msr);
        if (slot < 0)
            return;
        uint bit = 1u << slot;
        if ((type & MSR_TYPE_R) != 0)
            vmx.ShadowMsrInterceptRead = intercept ? vmx.ShadowMsrInterceptRead | bit : vmx.ShadowMsrInterceptRead & ~bit;
        if ((type & MSR_TYPE_W) != 0)
            vmx.ShadowMsrInterceptWrite = intercept ? vmx.ShadowMsrInterceptWrite | bit : vmx.ShadowMsrInterceptWrite & ~bit;
    }

    /// <summary>Userspace changed its filter: passed-through MSRs are tried again; intercepted ones stay.</summary>
    [KernelFunction("vmx_msr_filter_changed", File = "arch/x86/kvm/vmx/vmx.c")]
    public void MsrFilterChanged(X86Vcpu vcpu)
    {
        VcpuVmx vmx = ToVmx(vcpu);
        for (int i = 0; i < possiblePassthroughMsrs.Length; i++)
        {
            if ((vmx.ShadowMsrInterceptRead & 1u << i) == 0)
                DisableInterceptForMsr(vmx, possiblePassthroughMsrs[i], MSR_TYPE_R);
            if ((vmx.ShadowMsrInterceptWrite & 1u << i) == 0)
                DisableInterceptForMsr(vmx, possiblePassthroughMsrs[i], MSR_TYPE_W);
        }
    }
}

using System.Runtime.InteropServices;
using Kvm.Core.Tracing;
using static Kvm.Arch.X86.MsrIndex;
using static Kvm.Arch.X86.Svm.SvmConst;

namespace Kvm.Arch.X86.Svm;

/// <summary>Which MSRs a guest touches without an exit: a map of two pages per vCPU, two bits an MSR.</summary>
public sealed unsafe partial class KvmAmd
{
    private const uint APIC_BASE_MSR = 0x800;

    // An entry is always passed through, or only when something switches it on. LVTT (0x832) is missing: AVIC hardware can't do TSC-deadline mode.
    private static readonly (uint Index, bool Always)[] directAccessMsrs =
    [
        (MSR_STAR, true), (MSR_IA32_SYSENTER_CS, true), (MSR_IA32_SYSENTER_EIP, false), (MSR_IA32_SYSENTER_ESP, false),
        (MSR_GS_BASE, true), (MSR_FS_BASE, true), (MSR_KERNEL_GS_BASE, true), (MSR_LSTAR, true), (MSR_CSTAR, true), (MSR_SYSCALL_MASK, true),
        (MSR_IA32_SPEC_CTRL, false), (MSR_IA32_PRED_CMD, false),
        (MSR_IA32_LASTBRANCHFROMIP, false), (MSR_IA32_LASTBRANCHTOIP, false), (MSR_IA32_LASTINTFROMIP, false), (MSR_IA32_LASTINTTOIP, false),
        (MSR_EFER, false), (MSR_IA32_CR_PAT, false), (MSR_AMD64_SEV_ES_GHCB, true), (MSR_TSC_AUX, false),
        (0x802, false), (0x803, false), (0x808, false), (0x809, false), (0x80a, false), (0x80b, false), (0x80c, false), (0x80d, false), (0x80e, false),
        (0x80f, false), (0x810, false), (0x818, false), (0x820, false), (0x828, false), (0x830, false), (0x831, false),
        (0x833, false), (0x834, false), (0x835, false), (0x836, false), (0x837, false), (0x838, false), (0x839, false), (0x83e, false),
    ];

    private static readonly uint[] msrpmRanges = [0, 0xc0000000, 0xc0010000];

    /// <summary>The words of the map that can hold a zero bit: all that a nested merge has to look at.</summary>
    private readonly uint[] msrpmOffsets = new uint[MSRPM_OFFSETS];

    /// <summary>Index of the 32-bit word (16 MSRs) of the map that holds an MSR; MSR_INVALID when no range covers it.</summary>
    [KernelFunction("svm_msrpm_offset", File = "arch/x86/kvm/svm/svm.c")]
    internal static uint MsrpmOffset(uint msr)
    {
        using var _ = FunctionTrace.Enter("svm_msrpm_offset");
        return MsrpmWord(msr);
    }

    private static uint MsrpmWord(uint msr)
    {
        const uint bytesPerRange = 2048, msrsPerRange = bytesPerRange * 8 / 2;
        for (uint i = 0; i < msrpmRanges.Length; i++)
        {
            if (msr < msrpmRanges[i] || msr >= msrpmRanges[i] + msrsPerRange)
                continue;
            return (((msr - msrpmRanges[i]) / 4) + (i * bytesPerRange)) / 4;
        }

        return MSR_INVALID;
    }

    private void InitMsrpmOffsets()
    {
        Array.Fill(msrpmOffsets, MSR_INVALID);
        int used = 0;
        foreach ((uint index, bool _) in directAccessMsrs)
        {
            uint offset = MsrpmOffset(index);
            if (!msrpmOffsets.AsSpan(0, used).Contains(offset))
                msrpmOffsets[used++] = offset;
        }
    }

    private static int DirectAccessMsrSlot(uint msr)
    {
        for (int i = 0; i < directAccessMsrs.Length; i++)
        {
            if (directAccessMsrs[i].Index == msr)
                return i;
        }

        return -1;
    }

    [KernelFunction("set_shadow_msr_intercept", File = "arch/x86/kvm/svm/svm.c")]
    private static void SetShadowMsrIntercept(VcpuSvm svm, uint msr, bool read, bool write)
    {
        FunctionTrace.Leaf("set_shadow_msr_intercept");
        int slot = DirectAccessMsrSlot(msr);
        if (slot < 0)
            return;
        ulong bit = 1ul << slot;
        svm.ShadowMsrInterceptRead = read ? svm.ShadowMsrInterceptRead | bit : svm.ShadowMsrInterceptRead & ~bit;
        svm.ShadowMsrInterceptWrite = write ? svm.ShadowMsrInterceptWrite | bit : svm.ShadowMsrInterceptWrite & ~bit;
    }

    private static bool MsrWriteIntercepted(VcpuSvm svm, uint msr)
    {
        uint word = ((uint*)svm.Vmcb->Control.MsrpmBasePa)[MsrpmWord(msr)];
        return (word >> (int)((2 * (msr & 0xf)) + 1) & 1) != 0;
    }

    /// <summary>Passes reads (writes) of an MSR through, or intercepts them. An MSR that userspace's filter denies stays intercepted.</summary>
    [KernelFunction("set_msr_interception_bitmap", File = "arch/x86/kvm/svm/svm.c")]
    private static void SetMsrInterceptionBitmap(VcpuSvm svm, uint msr, bool read, bool write)
    {
        using var _ = FunctionTrace.Enter("set_msr_interception_bitmap");
        if (read && !svm.MsrAllowed(msr, Abi.Uapi.KVM_MSR_FILTER_READ))
            read = false;
        if (write && !svm.MsrAllowed(msr, Abi.Uapi.KVM_MSR_FILTER_WRITE))
            write = false;
        int bit = (int)(2 * (msr & 0xf));
        ref uint word = ref svm.Msrpm[MsrpmWord(msr)];
        word = read ? word & ~(1u << bit) : word | (1u << bit);
        word = write ? word & ~(2u << bit) : word | (2u << bit);
    }

    [KernelFunction("set_msr_interception", File = "arch/x86/kvm/svm/svm.c")]
    private static void SetMsrInterception(VcpuSvm svm, uint msr, bool read, bool write)
    {
        SetShadowMsrIntercept(svm, msr, read, write);
        SetMsrInterceptionBitmap(svm, msr, read, write);
    }

    /// <summary>A map that intercepts everything; 0 when there is no memory.</summary>
    [KernelFunction("svm_vcpu_alloc_msrpm", File = "arch/x86/kvm/svm/svm.c")]
    private uint* VcpuAllocMsrpm()
    {
        using var _ = FunctionTrace.Enter("svm_vcpu_alloc_msrpm");
        ulong pages = Host.Pages.AllocPages("svm_vcpu_alloc_msrpm", MSRPM_ORDER, zero: false);
        if (pages != 0)
            NativeMemory.Fill((void*)pages, MSRPM_SIZE, 0xff);
        return (uint*)pages;
    }

    [KernelFunction("svm_vcpu_init_msrpm", File = "arch/x86/kvm/svm/svm.c")]
    private static void VcpuInitMsrpm(VcpuSvm svm)
    {
        using var _ = FunctionTrace.Enter("svm_vcpu_init_msrpm");
        foreach ((uint index, bool always) in directAccessMsrs)
        {
            if (always)
                SetMsrInterception(svm, index, true, true);
        }
    }

    /// <summary>Userspace changed its MSR filter: every entry is computed again from what KVM itself wants.</summary>
    [KernelFunction("svm_msr_filter_changed", File = "arch/x86/kvm/svm/svm.c")]
    public void MsrFilterChanged(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("svm_msr_filter_changed");
        VcpuSvm svm = ToSvm(vcpu);
        for (int i = 0; i < directAccessMsrs.Length; i++)
            SetMsrInterceptionBitmap(svm, directAccessMsrs[i].Index, (svm.ShadowMsrInterceptRead >> i & 1) != 0, (svm.ShadowMsrInterceptWrite >> i & 1) != 0);
    }
}

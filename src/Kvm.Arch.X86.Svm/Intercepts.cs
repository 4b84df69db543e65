using System.Runtime.CompilerServices;
using Kvm.Core.Tracing;
using Kvm.Emulator.Svm;
using static Kvm.Arch.X86.Svm.SvmConst;
using static Kvm.Arch.X86.Svm.SvmIntercept;

namespace Kvm.Arch.X86.Svm;

/// <summary>Intercept bits: set and cleared in the VMCB of the VM's own guest, followed by a recalculation.</summary>
/// <remarks>svm/svm.h, nested.c:recalc_intercepts.</remarks>
public sealed unsafe partial class KvmAmd
{
    private static void VmcbSetIntercept(Vmcb* vmcb, int bit) => vmcb->Control.Intercepts[bit >> 5] |= 1u << (bit & 31);

    private static void VmcbClrIntercept(Vmcb* vmcb, int bit) => vmcb->Control.Intercepts[bit >> 5] &= ~(1u << (bit & 31));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static bool IsIntercept(VcpuSvm svm, int bit) => (svm.Vmcb->Control.Intercepts[bit >> 5] & (1u << (bit & 31))) != 0;

    /// <summary>The intercept words changed.</summary>
    [KernelFunction("recalc_intercepts", File = "arch/x86/kvm/svm/nested.c")]
    private static void RecalcIntercepts(VcpuSvm svm)
    {
        FunctionTrace.Leaf("recalc_intercepts");
        MarkDirty(svm.Vmcb01.Ptr, VMCB_INTERCEPTS);
    }

    private static void SetIntercept(VcpuSvm svm, int bit)
    {
        VmcbSetIntercept(svm.Vmcb01.Ptr, bit);
        RecalcIntercepts(svm);
    }

    private static void ClrIntercept(VcpuSvm svm, int bit)
    {
        VmcbClrIntercept(svm.Vmcb01.Ptr, bit);
        RecalcIntercepts(svm);
    }

    private static void SetExceptionIntercept(VcpuSvm svm, int vector) => SetIntercept(svm, INTERCEPT_EXCEPTION_OFFSET + vector);

    private static void ClrExceptionIntercept(VcpuSvm svm, int vector) => ClrIntercept(svm, INTERCEPT_EXCEPTION_OFFSET + vector);

    private static void SetDrIntercepts(VcpuSvm svm)
    {
        for (int dr = 0; dr < 8; dr++)
        {
            VmcbSetIntercept(svm.Vmcb01.Ptr, INTERCEPT_DR0_READ + dr);
            VmcbSetIntercept(svm.Vmcb01.Ptr, INTERCEPT_DR0_WRITE + dr);
        }

        RecalcIntercepts(svm);
    }

    private static void ClrDrIntercepts(VcpuSvm svm)
    {
        svm.Vmcb01.Ptr->Control.Intercepts[1] = 0;
        RecalcIntercepts(svm);
    }

    /// <summary>INVPCID and RDTSCP are intercepted when the guest's CPUID does not have them (to raise #UD); INVPCID also with shadow paging.</summary>
    [KernelFunction("svm_recalc_instruction_intercepts", File = "arch/x86/kvm/svm/svm.c")]
    private void RecalcInstructionIntercepts(VcpuSvm svm)
    {
        using var _ = FunctionTrace.Enter("svm_recalc_instruction_intercepts");
        if (arch.CpuCapHas(X86Feature.INVPCID))
        {
            if (!Params.Npt || !svm.GuestCpuidHas(X86Feature.INVPCID))
                SetIntercept(svm, INTERCEPT_INVPCID);
            else
                ClrIntercept(svm, INTERCEPT_INVPCID);
        }

        if (arch.CpuCapHas(X86Feature.RDTSCP))
        {
            if (svm.GuestCpuidHas(X86Feature.RDTSCP))
                ClrIntercept(svm, INTERCEPT_RDTSCP);
            else
                SetIntercept(svm, INTERCEPT_RDTSCP);
        }
    }

    [KernelFunction("svm_update_exception_bitmap", File = "arch/x86/kvm/svm/svm.c", Formerly = "update_exception_bitmap")]
    public void UpdateExceptionBitmap(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("svm_update_exception_bitmap");
        VcpuSvm svm = ToSvm(vcpu);
        ClrExceptionIntercept(svm, Abi.Uapi.BP_VECTOR);
        if ((vcpu.GuestDebug & Abi.Uapi.KVM_GUESTDBG_ENABLE) != 0 && (vcpu.GuestDebug & Abi.Uapi.KVM_GUESTDBG_USE_SW_BP) != 0)
            SetExceptionIntercept(svm, Abi.Uapi.BP_VECTOR);
    }
}

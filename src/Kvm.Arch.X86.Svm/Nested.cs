using Kvm.Abi;
using Kvm.Core;
using Kvm.Core.Tracing;
using Kvm.Emulator.Svm;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.Errnos;
using static Kvm.Arch.X86.Svm.SvmConst;
using static Kvm.Arch.X86.Svm.SvmIntercept;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86.Svm;

/// <summary>
/// What a guest hypervisor sees of SVM: permissions, GIF, VMLOAD/VMSAVE, and VMRUN, which fails its consistency checks (exit code VMEXIT_INVALID) because
/// this model does not run guests of guests.
/// </summary>
/// <remarks>arch/x86/kvm/svm/nested.c, svm.c.</remarks>
public sealed unsafe partial class KvmAmd
{
    public IKvmX86NestedOps NestedOps { get; } = new SvmNestedOps();

    private static bool VgifInVmcb(KvmAmd amd) => amd.Params.Vgif != 0;

    private void EnableGif(VcpuSvm svm)
    {
        if (VgifInVmcb(this))
            svm.Vmcb01.Ptr->Control.IntControl |= (SvmIntControl)V_GIF_MASK;
        else
            svm.Hflags |= HF_GIF_MASK;
    }

    private void DisableGif(VcpuSvm svm)
    {
        if (VgifInVmcb(this))
            svm.Vmcb01.Ptr->Control.IntControl &= (SvmIntControl)~V_GIF_MASK;
        else
            svm.Hflags &= ~HF_GIF_MASK;
    }

    internal bool GifSet(VcpuSvm svm) => VgifInVmcb(this)
        ? (svm.Vmcb01.Ptr->Control.IntControl & (SvmIntControl)V_GIF_MASK) != 0
        : (svm.Hflags & HF_GIF_MASK) != 0;

    [KernelFunction("svm_set_gif", File = "arch/x86/kvm/svm/svm.c")]
    internal void SetGif(VcpuSvm svm, bool value)
    {
        if (value)
        {
            // With virtual GIF the STGI intercept only waits for an NMI or SMI window.
            if (Params.Vgif != 0)
                ClrIntercept(svm, INTERCEPT_STGI);
            if (IsIntercept(svm, INTERCEPT_VINTR))
                ClearVintr(svm);
            EnableGif(svm);
            if (svm.SmiPending || svm.NmiPending != 0 || svm.Interrupt.Injected)
                svm.MakeRequest(X86Request.KVM_REQ_EVENT);
        }
        else
        {
            DisableGif(svm);
            if (Params.Vgif == 0)
                ClearVintr(svm);
        }
    }

    /// <summary>0, or 1 with #UD (no SVM or no paging in the guest) or #GP (CPL above 0) queued.</summary>
    [KernelFunction("nested_svm_check_permissions", File = "arch/x86/kvm/svm/nested.c")]
    private int NestedCheckPermissions(VcpuSvm svm)
    {
        if ((svm.Efer & EFER_SVME) == 0 || !svm.IsPaging)
        {
            svm.QueueException(UD_VECTOR);
            return 1;
        }

        if (svm.Vmcb->Save.Cpl != 0)
        {
            svm.InjectGp(0);
            return 1;
        }

        return 0;
    }

    [KernelFunction("vmload_vmsave_interception", File = "arch/x86/kvm/svm/svm.c")]
    private int VmloadVmsaveInterception(X86Vcpu vcpu, bool vmload)
    {
        VcpuSvm svm = ToSvm(vcpu);
        if (NestedCheckPermissions(svm) != 0)
            return 1;
        ulong gpa = svm.Vmcb->Save.Rax;
        Vmcb* vmcb12 = MapVmcb12(svm, gpa);
        if (vmcb12 == null)
        {
            svm.InjectGp(0);
            return 1;
        }

        int ret = svm.SkipEmulatedInstruction();
        if (vmload)
        {
            CopyVmloadsaveState(&svm.Vmcb01.Ptr->Save, &vmcb12->Save);
            svm.SysenterEipHi = 0;
            svm.SysenterEspHi = 0;
        }
        else
        {
            CopyVmloadsaveState(&vmcb12->Save, &svm.Vmcb01.Ptr->Save);
            svm.Vm.MarkPageDirty(gpa >> 12);
        }

        return ret;
    }

    /// <summary>kvm_vcpu_map: the page of a guest VMCB as host memory, null when no memslot backs it.</summary>
    private static Vmcb* MapVmcb12(VcpuSvm svm, ulong gpa)
    {
        ulong hva = svm.Vm.GfnToHva(gpa >> 12);
        return KvmLimits.IsErrorHva(hva) ? null : (Vmcb*)hva;
    }

    [KernelFunction("svm_copy_vmloadsave_state", File = "arch/x86/kvm/svm/nested.c")]
    private static void CopyVmloadsaveState(VmcbSaveArea* to, VmcbSaveArea* from)
    {
        to->Fs = from->Fs;
        to->Gs = from->Gs;
        to->Tr = from->Tr;
        to->Ldtr = from->Ldtr;
        to->KernelGsBase = from->KernelGsBase;
        to->Star = from->Star;
        to->Lstar = from->Lstar;
        to->Cstar = from->Cstar;
        to->Sfmask = from->Sfmask;
        to->SysenterCs = from->SysenterCs;
        to->SysenterEsp = from->SysenterEsp;
        to->SysenterEip = from->SysenterEip;
    }

    [KernelFunction("vmrun_interception", File = "arch/x86/kvm/svm/svm.c")]
    private int VmrunInterception(X86Vcpu vcpu)
    {
        VcpuSvm svm = ToSvm(vcpu);
        return NestedCheckPermissions(svm) != 0 ? 1 : NestedVmrun(svm);
    }

    /// <summary>The failing half of nested_svm_vmrun: VMRUN completes at once with VMEXIT_INVALID in the guest's VMCB.</summary>
    [KernelFunction("nested_svm_vmrun", File = "arch/x86/kvm/svm/nested.c")]
    private static int NestedVmrun(VcpuSvm svm)
    {
        // DIVERGES: D-SVM-1
        ulong gpa = svm.Vmcb->Save.Rax;
        Vmcb* vmcb12 = MapVmcb12(svm, gpa);
        if (vmcb12 == null)
        {
            svm.InjectGp(0);
            return 1;
        }

        int ret = svm.SkipEmulatedInstruction();
        vmcb12->Control.ExitCode = (ulong)SvmExitCode.Invalid;
        vmcb12->Control.ExitInfo1 = 0;
        vmcb12->Control.ExitInfo2 = 0;
        svm.Vm.MarkPageDirty(gpa >> 12);
        return ret;
    }

    [KernelFunction("stgi_interception", File = "arch/x86/kvm/svm/svm.c")]
    private int StgiInterception(X86Vcpu vcpu) => GifInterception(ToSvm(vcpu), true);

    [KernelFunction("clgi_interception", File = "arch/x86/kvm/svm/svm.c")]
    private int ClgiInterception(X86Vcpu vcpu) => GifInterception(ToSvm(vcpu), false);

    private int GifInterception(VcpuSvm svm, bool value)
    {
        if (NestedCheckPermissions(svm) != 0)
            return 1;
        int ret = svm.SkipEmulatedInstruction();
        SetGif(svm, value);
        return ret;
    }

    /// <summary>As INVLPG.</summary>
    [KernelFunction("invlpga_interception", File = "arch/x86/kvm/svm/svm.c")]
    private int InvlpgaInterception(X86Vcpu vcpu)
    {
        VcpuSvm svm = ToSvm(vcpu);
        ulong gva = vcpu.Rax;
        if (NestedCheckPermissions(svm) != 0)
            return 1;
        if (!vcpu.IsLongMode)
            gva = (uint)gva;
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_invlpga", $"rip: 0x{svm.Vmcb->Save.Rip:x16} asid: {(uint)vcpu.Rcx} address: 0x{gva:x16}");
        vcpu.MmuInvlpg(gva);
        return vcpu.SkipEmulatedInstruction();
    }

    [KernelFunction("skinit_interception", File = "arch/x86/kvm/svm/svm.c")]
    private int SkinitInterception(X86Vcpu vcpu)
    {
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_skinit", $"rip: 0x{ToSvm(vcpu).Vmcb->Save.Rip:x16} slb: 0x{(uint)vcpu.Rax:x8}");
        vcpu.QueueException(UD_VECTOR);
        return 1;
    }

    /// <summary>KVM_GET_NESTED_STATE and KVM_SET_NESTED_STATE outside nested operation: GIF is all there is.</summary>
    private sealed class SvmNestedOps : IKvmX86NestedOps
    {
        public uint MaxStateSize => (uint)(sizeof(kvm_nested_state) + KVM_STATE_NESTED_SVM_VMCB_SIZE);

        [KernelFunction("svm_leave_nested", File = "arch/x86/kvm/svm/nested.c")]
        public void LeaveNested(X86Vcpu vcpu) => FunctionTrace.Leaf("svm_leave_nested");

        [KernelFunction("svm_get_nested_state", File = "arch/x86/kvm/svm/nested.c")]
        public int GetState(X86Vcpu vcpu, ulong userState, uint userDataSize)
        {
            var amd = (KvmAmd)vcpu.Ops;
            var state = new kvm_nested_state { format = (ushort)KVM_STATE_NESTED_FORMAT_SVM, size = (uint)sizeof(kvm_nested_state) };
            if (userDataSize < state.size)
                return (int)state.size;
            if (amd.GifSet(ToSvm(vcpu)))
                state.flags |= (ushort)KVM_STATE_NESTED_GIF_SET;
            return UserMemory.CopyToUser(userState, &state, state.size) ? (int)state.size : -EFAULT;
        }

        [KernelFunction("svm_set_nested_state", File = "arch/x86/kvm/svm/nested.c")]
        public int SetState(X86Vcpu vcpu, ulong userState, ref kvm_nested_state state)
        {
            var amd = (KvmAmd)vcpu.Ops;
            if (state.format != KVM_STATE_NESTED_FORMAT_SVM)
                return -EINVAL;
            const uint known = KVM_STATE_NESTED_GUEST_MODE | KVM_STATE_NESTED_RUN_PENDING | KVM_STATE_NESTED_GIF_SET;
            if ((state.flags & ~known) != 0)
                return -EINVAL;
            if ((vcpu.Efer & EFER_SVME) == 0 && state.flags != KVM_STATE_NESTED_GIF_SET)
                return -EINVAL;
            if (vcpu.IsSmm && (state.flags & KVM_STATE_NESTED_GUEST_MODE) != 0)
                return -EINVAL;
            // A guest of a guest can't be resumed.
            if ((state.flags & KVM_STATE_NESTED_GUEST_MODE) != 0)
                return -EINVAL;
            LeaveNested(vcpu);
            amd.SetGif(ToSvm(vcpu), (state.flags & KVM_STATE_NESTED_GIF_SET) != 0);
            return 0;
        }
    }
}

using Kvm.Abi;
using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.Errnos;
using static Kvm.Arch.X86.KvmReg;
using static Kvm.Arch.X86.VcpuSreg;
using static Kvm.Arch.X86.X86Const;
using static Kvm.Arch.X86.X86Request;

namespace Kvm.Arch.X86;

/// <remarks>KVM_GET/SET_REGS, SREGS, SREGS2; the vCPU is loaded.</remarks>
public unsafe partial class X86Vcpu
{
    [KernelFunction("__get_regs", File = "arch/x86/kvm/x86.c")]
    internal void GetRegs(ref kvm_regs regs)
    {
        using var _ = FunctionTrace.Enter("__get_regs");
        if (EmulateRegsNeedSyncToVcpu)
        {
            // In the middle of an emulated instruction its registers are still in the emulator.
            EmulateCtxt.WritebackRegisterCache();
            EmulateRegsNeedSyncToVcpu = false;
        }

        regs.rax = Rax;
        regs.rbx = Rbx;
        regs.rcx = Rcx;
        regs.rdx = Rdx;
        regs.rsi = Rsi;
        regs.rdi = Rdi;
        regs.rsp = Rsp;
        regs.rbp = Rbp;
        regs.r8 = Regs[8];
        regs.r9 = Regs[9];
        regs.r10 = Regs[10];
        regs.r11 = Regs[11];
        regs.r12 = Regs[12];
        regs.r13 = Regs[13];
        regs.r14 = Regs[14];
        regs.r15 = Regs[15];
        regs.rip = Rip;
        regs.rflags = ReadRflags();
    }

    [KernelFunction("__set_regs", File = "arch/x86/kvm/x86.c")]
    internal void SetRegs(in kvm_regs regs)
    {
        using var _ = FunctionTrace.Enter("__set_regs");
        EmulateRegsNeedSyncFromVcpu = true;
        EmulateRegsNeedSyncToVcpu = false;
        Rax = regs.rax;
        Rbx = regs.rbx;
        Rcx = regs.rcx;
        Rdx = regs.rdx;
        Rsi = regs.rsi;
        Rdi = regs.rdi;
        Rsp = regs.rsp;
        Rbp = regs.rbp;
        Regs[8] = regs.r8;
        Regs[9] = regs.r9;
        Regs[10] = regs.r10;
        Regs[11] = regs.r11;
        Regs[12] = regs.r12;
        Regs[13] = regs.r13;
        Regs[14] = regs.r14;
        Regs[15] = regs.r15;
        Rip = regs.rip;
        SetRflags(regs.rflags | X86_EFLAGS_FIXED);
        Exception.Pending = false;
        ExceptionVmexit.Pending = false;
        MakeRequest(KVM_REQ_EVENT);
    }

    /// <summary>__kvm_set_rflags: adds TF while userspace single-steps and RIP is still where it began.</summary>
    private void SetRflagsNoEvent(ulong rflags)
    {
        if ((GuestDebug & KVM_GUESTDBG_SINGLESTEP) != 0 && IsLinearRip(SinglestepRip))
            rflags |= X86_EFLAGS_TF;
        Ops.SetRflags(this, rflags);
    }

    [KernelFunction("kvm_set_rflags", File = "arch/x86/kvm/x86.c")]
    public void SetRflags(ulong rflags)
    {
        using var _ = FunctionTrace.Enter("kvm_set_rflags");
        SetRflagsNoEvent(rflags);
        MakeRequest(KVM_REQ_EVENT);
    }

    [KernelFunction("__get_sregs_common", File = "arch/x86/kvm/x86.c")]
    private void GetSregsCommon(ref kvm_sregs sregs)
    {
        using var _ = FunctionTrace.Enter("__get_sregs_common");
        Ops.GetSegment(this, out sregs.cs, VCPU_SREG_CS);
        Ops.GetSegment(this, out sregs.ds, VCPU_SREG_DS);
        Ops.GetSegment(this, out sregs.es, VCPU_SREG_ES);
        Ops.GetSegment(this, out sregs.fs, VCPU_SREG_FS);
        Ops.GetSegment(this, out sregs.gs, VCPU_SREG_GS);
        Ops.GetSegment(this, out sregs.ss, VCPU_SREG_SS);
        Ops.GetSegment(this, out sregs.tr, VCPU_SREG_TR);
        Ops.GetSegment(this, out sregs.ldt, VCPU_SREG_LDTR);
        Ops.GetIdt(this, out DescPtr dt);
        sregs.idt.limit = dt.Size;
        sregs.idt.@base = dt.Address;
        Ops.GetGdt(this, out dt);
        sregs.gdt.limit = dt.Size;
        sregs.gdt.@base = dt.Address;
        sregs.cr2 = Cr2;
        sregs.cr3 = ReadCr3();
        sregs.cr0 = ReadCr0();
        sregs.cr4 = ReadCr4();
        sregs.cr8 = GetCr8();
        sregs.efer = Efer;
        sregs.apic_base = ApicBase;
    }

    [KernelFunction("__get_sregs", File = "arch/x86/kvm/x86.c")]
    internal void GetSregs(ref kvm_sregs sregs)
    {
        using var _ = FunctionTrace.Enter("__get_sregs");
        GetSregsCommon(ref sregs);
        if (Interrupt.Injected && !Interrupt.Soft)
            sregs.interrupt_bitmap[Interrupt.Nr >> 6] |= 1ul << (Interrupt.Nr & 63);
    }

    internal void GetSregs2(ref kvm_sregs2 sregs2)
    {
        var sregs = default(kvm_sregs);
        GetSregsCommon(ref sregs);

        // Both begin with the same members.
        fixed (kvm_sregs2* to = &sregs2)
            Buffer.MemoryCopy(&sregs, to, sizeof(kvm_sregs2), sizeof(kvm_sregs) - 32);
        if (!IsPaePaging)
            return;
        SrcuReadLock();
        for (int i = 0; i < 4; i++)
            sregs2.pdptrs[i] = PdptrRead(i);
        sregs2.flags |= KVM_SREGS2_FLAGS_PDPTRS_VALID;
        SrcuReadUnlock();
    }

    private bool IsValidSregs(in kvm_sregs sregs)
    {
        if ((sregs.efer & EFER_LME) != 0 && (sregs.cr0 & X86_CR0_PG) != 0)
        {
            if ((sregs.cr4 & X86_CR4_PAE) == 0 || (sregs.efer & EFER_LMA) == 0)
                return false;
            if (IsIllegalGpa(sregs.cr3))
                return false;
        }
        else if ((sregs.efer & EFER_LMA) != 0 || sregs.cs.l != 0)
        {
            return false;
        }

        return IsValidCr4(sregs.cr4) && IsValidCr0(sregs.cr0);
    }

    /// <summary>Everything is checked before anything is written: -EINVAL for an inconsistent mode or a bad APIC base.</summary>
    [KernelFunction("__set_sregs_common.constprop.0", File = "arch/x86/kvm/x86.c")]
    private int SetSregsCommon(in kvm_sregs sregs, ref bool mmuResetNeeded, bool updatePdptrs)
    {
        using var _ = FunctionTrace.Enter("__set_sregs_common.constprop.0");
        if (!IsValidSregs(sregs))
            return -EINVAL;
        if (SetApicBase(new MsrData(MsrIndex.MSR_IA32_APICBASE, sregs.apic_base, true)) != 0)
            return -EINVAL;

        Ops.SetIdt(this, new DescPtr { Size = sregs.idt.limit, Address = sregs.idt.@base });
        Ops.SetGdt(this, new DescPtr { Size = sregs.gdt.limit, Address = sregs.gdt.@base });
        Cr2 = sregs.cr2;
        mmuResetNeeded |= ReadCr3() != sregs.cr3;
        Cr3 = sregs.cr3;
        RegisterMarkDirty(VCPU_EXREG_CR3);
        Ops.PostSetCr3(this, sregs.cr3);
        SetCr8(sregs.cr8);

        mmuResetNeeded |= Efer != sregs.efer;
        Ops.SetEfer(this, sregs.efer);
        mmuResetNeeded |= ReadCr0() != sregs.cr0;
        Ops.SetCr0(this, sregs.cr0);
        Cr0 = sregs.cr0;
        mmuResetNeeded |= ReadCr4() != sregs.cr4;
        Ops.SetCr4(this, sregs.cr4);

        if (updatePdptrs && IsPaePaging)
        {
            int index = Vm.Srcu.ReadLock();
            LoadPdptrs(ReadCr3());
            mmuResetNeeded = true;
            Vm.Srcu.ReadUnlock(index);
        }

        Ops.SetSegment(this, sregs.cs, VCPU_SREG_CS);
        Ops.SetSegment(this, sregs.ds, VCPU_SREG_DS);
        Ops.SetSegment(this, sregs.es, VCPU_SREG_ES);
        Ops.SetSegment(this, sregs.fs, VCPU_SREG_FS);
        Ops.SetSegment(this, sregs.gs, VCPU_SREG_GS);
        Ops.SetSegment(this, sregs.ss, VCPU_SREG_SS);
        Ops.SetSegment(this, sregs.tr, VCPU_SREG_TR);
        Ops.SetSegment(this, sregs.ldt, VCPU_SREG_LDTR);
        UpdateCr8Intercept();

        // A reset by userspace ends a halt.
        if ((ApicBase & MSR_IA32_APICBASE_BSP) != 0 && Rip == 0xfff0 && sregs.cs.selector == 0xf000 && sregs.cs.@base == 0xffff0000 && !IsProtmode)
            MpState = KVM_MP_STATE_RUNNABLE;
        return 0;
    }

    [KernelFunction("__set_sregs", File = "arch/x86/kvm/x86.c")]
    internal int SetSregs(in kvm_sregs sregs)
    {
        using var _ = FunctionTrace.Enter("__set_sregs");
        bool reset = false;
        int r = SetSregsCommon(sregs, ref reset, true);
        if (r != 0)
            return r;
        if (reset)
            MmuResetContext();
        for (int word = 0; word < 4; word++)
        {
            ulong bits = sregs.interrupt_bitmap[word];
            if (bits == 0)
                continue;
            QueueInterrupt((byte)((word * 64) + System.Numerics.BitOperations.TrailingZeroCount(bits)), false);
            MakeRequest(KVM_REQ_EVENT);
            break;
        }

        return 0;
    }

    /// <summary>-EINVAL for unknown flags, or for PDPTRs outside PAE paging.</summary>
    internal KvmResult SetSregs2(in kvm_sregs2 sregs2)
    {
        bool validPdptrs = (sregs2.flags & KVM_SREGS2_FLAGS_PDPTRS_VALID) != 0;
        bool pae = (sregs2.cr0 & X86_CR0_PG) != 0 && (sregs2.cr4 & X86_CR4_PAE) != 0 && (sregs2.efer & EFER_LMA) == 0;
        if ((sregs2.flags & ~(ulong)KVM_SREGS2_FLAGS_PDPTRS_VALID) != 0)
            return -EINVAL;
        if (validPdptrs && !pae)
            return -EINVAL;
        var sregs = default(kvm_sregs);
        fixed (kvm_sregs2* from = &sregs2)
            Buffer.MemoryCopy(from, &sregs, sizeof(kvm_sregs), sizeof(kvm_sregs) - 32);
        bool reset = false;
        int r = SetSregsCommon(sregs, ref reset, !validPdptrs);
        if (r != 0)
            return r;
        if (validPdptrs)
        {
            for (int i = 0; i < 4; i++)
                PdptrWrite(i, sregs2.pdptrs[i]);
            RegisterMarkDirty(VCPU_EXREG_PDPTR);
            reset = true;
            PdptrsFromUserspace = true;
        }

        if (reset)
            MmuResetContext();
        return 0;
    }

    /// <summary>store_regs: the parts of kvm_run.s that userspace asked for.</summary>
    private void StoreRegs()
    {
        ulong valid = Run->kvm_valid_regs;
        if ((valid & KVM_SYNC_X86_REGS) != 0)
            GetRegs(ref Run->s.regs.regs);
        if ((valid & KVM_SYNC_X86_SREGS) != 0)
        {
            Run->s.regs.sregs = default;
            GetSregs(ref Run->s.regs.sregs);
        }

        if ((valid & KVM_SYNC_X86_EVENTS) != 0)
            GetVcpuEvents(ref Run->s.regs.events);
    }

    /// <summary>sync_regs: the parts of kvm_run.s that userspace changed.</summary>
    private int SyncRegs()
    {
        if ((Run->kvm_dirty_regs & KVM_SYNC_X86_REGS) != 0)
        {
            SetRegs(Run->s.regs.regs);
            Run->kvm_dirty_regs &= ~(ulong)KVM_SYNC_X86_REGS;
        }

        if ((Run->kvm_dirty_regs & KVM_SYNC_X86_SREGS) != 0)
        {
            if (SetSregs(Run->s.regs.sregs) != 0)
                return -EINVAL;
            Run->kvm_dirty_regs &= ~(ulong)KVM_SYNC_X86_SREGS;
        }

        if ((Run->kvm_dirty_regs & KVM_SYNC_X86_EVENTS) != 0)
        {
            if (SetVcpuEvents(Run->s.regs.events) != 0)
                return -EINVAL;
            Run->kvm_dirty_regs &= ~(ulong)KVM_SYNC_X86_EVENTS;
        }

        return 0;
    }
}

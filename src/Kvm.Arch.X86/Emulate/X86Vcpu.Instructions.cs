using Kvm.Abi;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86;

/// <remarks>Instructions that exit and are done by the shared code: HLT, INVD, WBINVD, MONITOR, MWAIT, PAUSE-like ones. 1: go on; 0: to userspace.</remarks>
public unsafe partial class X86Vcpu
{
    /// <summary>kvm_skip_emulated_instruction: advances RIP over the instruction; a guest that single-steps gets its #DB.</summary>
    [KernelFunction("kvm_skip_emulated_instruction", File = "arch/x86/kvm/x86.c")]
    public int SkipEmulatedInstruction()
    {
        using var _ = FunctionTrace.Enter("kvm_skip_emulated_instruction");
        return SkipInstruction();
    }

    /// <summary>As <see cref="SkipEmulatedInstruction"/>, for callers of the same kernel file: they have it inlined.</summary>
    private int SkipInstruction()
    {
        ulong rflags = Ops.GetRflags(this);
        int r = Ops.SkipEmulatedInstruction(this);
        if (r == 0)
            return 0;
        PmuTriggerEvent(HwInstructions);
        return (rflags & X86_EFLAGS_TF) != 0 ? DoSinglestep() : r;
    }

    /// <summary>kvm_vcpu_do_singlestep: KVM_EXIT_DEBUG when userspace steps, else #DB with DR6.BS.</summary>
    [KernelFunction("kvm_vcpu_do_singlestep", File = "arch/x86/kvm/x86.c")]
    internal int DoSinglestep()
    {
        if ((GuestDebug & KVM_GUESTDBG_SINGLESTEP) == 0)
        {
            QueueExceptionP(DB_VECTOR, DR6_BS);
            return 1;
        }

        Run->debug.arch.dr6 = DR6_BS | DR6_ACTIVE_LOW;
        Run->debug.arch.pc = GetLinearRip();
        Run->debug.arch.exception = DB_VECTOR;
        Run->exit_reason = KVM_EXIT_DEBUG;
        return 0;
    }

    [KernelFunction("kvm_emulate_as_nop", File = "arch/x86/kvm/x86.c")]
    public int EmulateAsNop() => SkipEmulatedInstruction();

    /// <summary>INVD is a NOP: its only effect could be lost writes of the host.</summary>
    [KernelFunction("kvm_emulate_invd", File = "arch/x86/kvm/x86.c")]
    public int EmulateInvd()
    {
        using var _ = FunctionTrace.Enter("kvm_emulate_invd");
        return EmulateAsNop();
    }

    /// <summary>WBINVD matters for devices that bypass the caches; a VM without such devices needs none.</summary>
    [KernelFunction("kvm_emulate_wbinvd", File = "arch/x86/kvm/x86.c")]
    public int EmulateWbinvd()
    {
        using var _ = FunctionTrace.Enter("kvm_emulate_wbinvd");
        using (FunctionTrace.Enter("kvm_emulate_wbinvd_noskip"))
            FunctionTrace.Leaf("kvm_arch_has_noncoherent_dma");
        return SkipEmulatedInstruction();
    }

    [KernelFunction("kvm_emulate_mwait", File = "arch/x86/kvm/x86.c")]
    public int EmulateMwait() => EmulateMonitorMwait("MWAIT");

    [KernelFunction("kvm_emulate_monitor", File = "arch/x86/kvm/x86.c")]
    public int EmulateMonitor() => EmulateMonitorMwait("MONITOR");

    private int EmulateMonitorMwait(string instruction)
    {
        Vm.Host.Log.Once(Core.LogLevel.Warning, $"kvm: {instruction} instruction emulated as NOP!");
        return EmulateAsNop();
    }

    /// <summary>HLT without an in-kernel APIC is userspace's to wait for: KVM_EXIT_HLT with RIP past the instruction.</summary>
    [KernelFunction("kvm_emulate_halt", File = "arch/x86/kvm/x86.c")]
    public int EmulateHalt()
    {
        using var _ = FunctionTrace.Enter("kvm_emulate_halt");

        // A pending single-step trap of the HLT itself comes before sleeping.
        int ret = SkipEmulatedInstruction();
        return EmulateHaltNoskip() != 0 ? ret : 0;
    }

    [KernelFunction("kvm_emulate_halt_noskip", File = "arch/x86/kvm/x86.c")]
    public int EmulateHaltNoskip()
    {
        FunctionTrace.Leaf("kvm_emulate_halt_noskip");
        return EmulateHalt(KVM_MP_STATE_HALTED, KVM_EXIT_HLT);
    }

    /// <summary>kvm_emulate_ap_reset_hold.</summary>
    public int EmulateApResetHold()
    {
        int ret = SkipEmulatedInstruction();
        return EmulateHalt(KVM_MP_STATE_AP_RESET_HOLD, KVM_EXIT_AP_RESET_HOLD) != 0 ? ret : 0;
    }

    private int EmulateHalt(int state, uint reason)
    {
        Stat.HaltExits++;
        if (LapicInKernel)
        {
            MpState = state;
            return 1;
        }

        Run->exit_reason = reason;
        return 0;
    }

    /// <summary>handle_ud: an intercepted #UD; with force_emulation_prefix the prefix ("ud2; kvm") makes the next instruction be emulated.</summary>
    [KernelFunction("handle_ud", File = "arch/x86/kvm/x86.c")]
    public int HandleUd()
    {
        using var _ = FunctionTrace.Enter("handle_ud");
        int fep = Arch.Params.ForceEmulationPrefix;
        EmulType type = EmulType.EMULTYPE_TRAP_UD;
        if (!Ops.CanEmulateInstruction(this, type, default))
            return 1;
        if (fep != 0)
        {
            Span<byte> signature = stackalloc byte[5];
            if (ReadGuestVirt(GetLinearRip(), signature, out X86Exception _) == 0 && signature.SequenceEqual("\x0f\x0bkvm"u8))
            {
                if ((fep & 2) != 0)
                    SetRflags(ReadRflags() & ~X86_EFLAGS_RF);
                Rip += 5;
                type = EmulType.EMULTYPE_TRAP_UD_FORCED;
            }
        }

        return EmulateInstruction(type);
    }

    /// <summary>kvm_handle_memory_failure: what reading an instruction's operand in guest memory came to. 1 a fault was queued; 0 to userspace.</summary>
    [KernelFunction("kvm_handle_memory_failure", File = "arch/x86/kvm/x86.c")]
    public int HandleMemoryFailure(int r, in X86Exception fault)
    {
        if (r == X86EmulateContext.PropagateFault)
        {
            InjectEmulatedPageFault(fault);
            return 1;
        }

        PrepareEmulationFailureExit();
        return 0;
    }

    /// <summary>kvm_handle_invpcid: the descriptor at <paramref name="gva"/>; #GP for reserved bits, bad addresses and types.</summary>
    [KernelFunction("kvm_handle_invpcid", File = "arch/x86/kvm/x86.c")]
    public int HandleInvpcid(ulong type, ulong gva)
    {
        Span<byte> operand = stackalloc byte[16];
        int r = ReadGuestVirt(gva, operand, out X86Exception fault);
        if (r != 0)
            return HandleMemoryFailure(r, fault);
        ulong pcid = BitConverter.ToUInt64(operand);
        ulong linear = BitConverter.ToUInt64(operand[8..]);
        if (pcid >> 12 != 0)
        {
            InjectGp(0);
            return 1;
        }

        bool pcidEnabled = ReadCr4Bits(X86_CR4_PCIDE) != 0;
        switch (type)
        {
            case 0: // individual address
                if ((!pcidEnabled && pcid != 0) || IsNoncanonicalAddress(linear))
                {
                    InjectGp(0);
                    return 1;
                }

                MmuInvpcidGva(linear, pcid);
                return SkipEmulatedInstruction();
            case 1: // single context
                if (!pcidEnabled && pcid != 0)
                {
                    InjectGp(0);
                    return 1;
                }

                InvalidatePcid(pcid);
                return SkipEmulatedInstruction();
            case 2: // all contexts and globals
            case 3: // all contexts, globals stay: KVM flushes them too
                MakeRequest(X86Request.KVM_REQ_TLB_FLUSH_GUEST);
                return SkipEmulatedInstruction();
            default:
                InjectGp(0);
                return 1;
        }
    }

    /// <summary>vcpu_unimpl: rate is not limited here, the log keeps the newest records.</summary>
    public void VcpuUnimpl(string text) =>
        Vm.Host.Log.Err($"kvm [{Core.HostTask.Current.Pid}]: vcpu{VcpuId}, guest rIP: 0x{Rip:x} {text}");
}

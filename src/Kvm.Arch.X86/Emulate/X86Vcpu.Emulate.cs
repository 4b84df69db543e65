using Kvm.Abi;
using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.EmulType;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86;

/// <remarks>x86_emulate_instruction: one instruction done for the guest.</remarks>
public unsafe partial class X86Vcpu
{
    /// <summary>kvm_emulate_instruction: 1: go on in the guest; 0: to userspace.</summary>
    [KernelFunction("kvm_emulate_instruction", File = "arch/x86/kvm/x86.c")]
    public int EmulateInstruction(EmulType emulType)
    {
        using var _ = FunctionTrace.Enter("kvm_emulate_instruction");
        return EmulateInstruction(0, emulType, default);
    }

    /// <summary>kvm_emulate_instruction_from_buffer: the bytes are known.</summary>
    public int EmulateInstructionFromBuffer(ReadOnlySpan<byte> insn) => EmulateInstruction(0, EmulType.None, insn);

    /// <summary>x86_emulate_instruction. <paramref name="cr2OrGpa"/>: the faulting guest-physical address with EMULTYPE_PF.</summary>
    [KernelFunction("x86_emulate_instruction", File = "arch/x86/kvm/x86.c")]
    public int EmulateInstruction(ulong cr2OrGpa, EmulType emulType, ReadOnlySpan<byte> insn)
    {
        using var _ = FunctionTrace.Enter("x86_emulate_instruction");
        X86EmulateContext ctxt = EmulateCtxt;
        if (!Ops.CanEmulateInstruction(this, emulType, insn))
            return 1;
        L1tfFlushL1d = true;

        if ((emulType & EMULTYPE_NO_DECODE) == 0)
        {
            ClearExceptionQueue();
            if (CheckCodeBreakpoint(emulType, out int result))
                return result;
            if (!DecodeEmulatedInstruction(emulType, insn))
                return DecodeFailed(cr2OrGpa, emulType);
        }

        if ((emulType & EMULTYPE_VMWARE_GP) != 0 && !ctxt.IsVmwareBackdoorOpcode)
        {
            QueueExceptionE(GP_VECTOR, 0);
            return 1;
        }

        if ((emulType & EMULTYPE_SKIP) != 0)
            return SkipDecoded(emulType);
        if (RetryInstruction(cr2OrGpa, emulType))
            return 1;
        if (EmulateRegsNeedSyncFromVcpu)
        {
            EmulateRegsNeedSyncFromVcpu = false;
            ctxt.InvalidateRegisterCache();
        }

        return ExecuteDecoded(cr2OrGpa, emulType);
    }

    /// <summary>The bytes of the instruction that was decoded last.</summary>
    public ReadOnlySpan<byte> EmulatedInstructionBytes => EmulateCtxt.FetchedBytes;

    /// <summary>x86_decode_emulated_instruction: true when the instruction at RIP was fetched and is one that is emulated.</summary>
    [KernelFunction("x86_decode_emulated_instruction", File = "arch/x86/kvm/x86.c")]
    public bool DecodeEmulatedInstruction(EmulType emulType, ReadOnlySpan<byte> insn)
    {
        using var _ = FunctionTrace.Enter("x86_decode_emulated_instruction");
        EmulateCtxt.Init();
        int r = EmulateCtxt.Decode(insn, emulType);
        if (Tracepoints.Enabled)
            TraceInstruction(failed: false);
        Stat.InsnEmulation++;
        return r == X86EmulateContext.EmulationOk;
    }

    /// <summary>trace_kvm_emulate_insn_start, trace_kvm_emulate_insn_failed.</summary>
    private void TraceInstruction(bool failed)
    {
        string mode = EmulateCtxt.Mode switch { EmulMode.Real => "real", EmulMode.Vm86 => "vm16", EmulMode.Prot16 => "prot16", EmulMode.Prot32 => "prot32", _ => "prot64" };
        string bytes = Convert.ToHexStringLower(EmulateCtxt.DecodedBytes);
        string separated = string.Join(' ', Enumerable.Range(0, bytes.Length / 2).Select(i => bytes.Substring(2 * i, 2)));
        Tracepoints.Emit("kvm_emulate_insn", $"{(uint)Ops.GetSegmentBase(this, VcpuSreg.VCPU_SREG_CS):x}:{EmulateCtxt.Eip:x}:{separated} ({mode}){(failed ? " failed" : "")}");
    }

    private int DecodeFailed(ulong cr2OrGpa, EmulType emulType)
    {
        if ((emulType & (EMULTYPE_TRAP_UD | EMULTYPE_TRAP_UD_FORCED)) != 0)
        {
            QueueException(UD_VECTOR);
            return 1;
        }

        if (ReexecuteInstruction(cr2OrGpa, emulType))
            return 1;
        if (EmulateCtxt.HaveException && (emulType & EMULTYPE_SKIP) == 0)
        {
            InjectException(in EmulateCtxt.Exception);
            return 1;
        }

        return HandleEmulationFailure(emulType);
    }

    private int SkipDecoded(EmulType emulType)
    {
        X86EmulateContext ctxt = EmulateCtxt;
        if ((emulType & EMULTYPE_SKIP_SOFT_INT) != 0 && !ctxt.IsSoftInterrupt((byte)((int)emulType >> 16)))
            return 0;
        ctxt.Eip = ctxt.Mode == EmulMode.Prot64 ? ctxt.NextEip : (uint)ctxt.NextEip;
        if ((emulType & EMULTYPE_COMPLETE_USER_EXIT) != 0)
            return WritebackEmulation(1);
        Rip = ctxt.Eip;
        if ((ctxt.Eflags & X86_EFLAGS_RF) != 0)
            SetRflags(ctxt.Eflags & ~X86_EFLAGS_RF);
        return 1;
    }

    private int ExecuteDecoded(ulong cr2OrGpa, EmulType emulType)
    {
        X86EmulateContext ctxt = EmulateCtxt;
        for (; ; )
        {
            bool pageFault = (emulType & EMULTYPE_PF) != 0;
            ctxt.Exception.Address = pageFault ? cr2OrGpa : 0;
            if (pageFault && Mmu.RootRole.Direct)
            {
                // With nested paging the fault's address is guest-physical: it need not be looked up again.
                ctxt.GpaAvailable = true;
                ctxt.GpaVal = cr2OrGpa;
            }

            int r = ctxt.Emulate();
            if (r == X86EmulateContext.EmulationIntercepted)
                return 1;
            if (r == X86EmulateContext.EmulationFailed)
                return ReexecuteInstruction(cr2OrGpa, emulType) ? 1 : HandleEmulationFailure(emulType);

            if (ctxt.HaveException)
            {
                InjectException(in ctxt.Exception);
                return WritebackEmulation(1);
            }

            if (Pio.Count != 0)
            {
                if (!Pio.In)
                {
                    Pio.Count = 0;
                    return WritebackEmulation(0);
                }

                CompleteUserspaceIo = &CompleteEmulatedPio;
                return LeaveEmulationOpen();
            }

            if (MmioNeeded)
            {
                Stat.MmioExits++;
                CompleteUserspaceIo = &CompleteEmulatedMmio;
                return MmioIsWrite ? WritebackEmulation(0) : LeaveEmulationOpen();
            }

            if (CompleteUserspaceIo != null)
                return LeaveEmulationOpen();
            if (r != X86EmulateContext.EmulationRestart)
                return WritebackEmulation(1);
        }
    }

    private int LeaveEmulationOpen()
    {
        EmulateRegsNeedSyncToVcpu = true;
        return 0;
    }

    /// <summary>The instruction is over: its effects on RIP, RFLAGS and the interrupt shadow.</summary>
    private int WritebackEmulation(int r)
    {
        X86EmulateContext ctxt = EmulateCtxt;
        ulong rflags = Ops.GetRflags(this);
        ToggleInterruptibility(ctxt.Interruptibility);
        EmulateRegsNeedSyncToVcpu = false;
        if (!ctxt.HaveException || TypeOf(ctxt.Exception.Vector) == ExceptionType.Trap)
        {
            PmuTriggerEvent(HwInstructions);
            if (ctxt.IsBranch)
                PmuTriggerEvent(HwBranches);
            Rip = ctxt.Eip;
            if (r != 0 && (ctxt.Tf || (GuestDebug & KVM_GUESTDBG_SINGLESTEP) != 0))
                r = DoSinglestep();
            Ops.UpdateEmulatedInstruction(this);
            SetRflagsNoEvent(ctxt.Eflags);
        }

        if ((ctxt.Eflags & ~rflags & X86_EFLAGS_IF) != 0)
            MakeRequest(X86Request.KVM_REQ_EVENT);
        return r;
    }

    private void ToggleInterruptibility(uint mask)
    {
        uint shadow = Ops.GetInterruptShadow(this);

        // A second STI or MOV SS in a row does not extend the shadow.
        if ((shadow & mask) != 0)
            mask = 0;
        if (shadow == 0 && mask == 0)
            return;
        Ops.SetInterruptShadow(this, mask);
        if (mask == 0)
            MakeRequest(X86Request.KVM_REQ_EVENT);
    }

    /// <summary>
    /// reexecute_instruction: true lets the processor try again, when the page turned out to be ordinary memory.
    /// </summary>
    private bool ReexecuteInstruction(ulong gpa, EmulType emulType)
    {
        if ((emulType & EMULTYPE_ALLOW_RETRY_PF) == 0 || IsGuestMode || (emulType & EMULTYPE_PF) == 0)
            return false;
        bool direct = Mmu.RootRole.Direct;
        if (!direct)
        {
            // Only writes are emulated. Where the guest no longer allows it, the processor shall raise the fault.
            gpa = GvaToGpaWrite(gpa, out X86Exception _);
            if (gpa == INVALID_GPA)
                return true;
        }

        ulong pfn = Vm.GfnToPfn(Vm.Memslots().Find(gpa >> 12), gpa >> 12, true, out bool _, out ulong _);
        if (KvmPfn.IsErrorOrNoslot(pfn))
            return false;
        if (direct)
            return true;

        // A table of the guest was in the way. One that the access itself goes through can't be got out of the way.
        Vm.Shadow.UnprotectPage(gpa >> 12);
        return (emulType & EMULTYPE_WRITE_PF_TO_SP) == 0;
    }

    /// <summary>retry_instruction: a faulting access that needs no emulation is repeated once by the processor.</summary>
    private bool RetryInstruction(ulong gpa, EmulType emulType)
    {
        ulong lastEip = LastRetryEip;
        ulong lastAddr = LastRetryAddr;
        LastRetryEip = LastRetryAddr = 0;
        if ((emulType & EMULTYPE_ALLOW_RETRY_PF) == 0 || IsGuestMode || EmulateCtxt.IsPageTableWriting)
            return false;
        if (EmulateCtxt.Eip == lastEip && lastAddr == gpa)
            return false;
        LastRetryEip = EmulateCtxt.Eip;
        LastRetryAddr = gpa;
        if (!Mmu.RootRole.Direct)
            gpa = GvaToGpaWrite(gpa, out X86Exception _);
        Vm.Shadow.UnprotectPage(gpa >> 12);
        return true;
    }

    /// <summary>handle_emulation_failure: #UD for guest user code, KVM_EXIT_INTERNAL_ERROR for its kernel.</summary>
    [KernelFunction("handle_emulation_failure", File = "arch/x86/kvm/x86.c")]
    private int HandleEmulationFailure(EmulType emulType)
    {
        using var _ = FunctionTrace.Enter("handle_emulation_failure");
        Stat.InsnEmulationFail++;
        if (Tracepoints.Enabled)
            TraceInstruction(failed: true);
        if ((emulType & EMULTYPE_VMWARE_GP) != 0)
        {
            QueueExceptionE(GP_VECTOR, 0);
            return 1;
        }

        if (Vm.ExitOnEmulationError || (emulType & EMULTYPE_SKIP) != 0)
        {
            PrepareEmulationFailureExit(default, EmulateCtxt.FetchedBytes);
            return 0;
        }

        QueueException(UD_VECTOR);
        if (IsGuestMode || Ops.GetCpl(this) != 0)
            return 1;
        PrepareEmulationFailureExit(default, EmulateCtxt.FetchedBytes);
        return 0;
    }

    /// <summary>kvm_prepare_emulation_failure_exit: KVM_EXIT_INTERNAL_ERROR, suberror EMULATION, with up to 4 words of the caller.</summary>
    [KernelFunction("kvm_prepare_emulation_failure_exit", File = "arch/x86/kvm/x86.c")]
    public void PrepareEmulationFailureExit(ReadOnlySpan<ulong> data = default) => PrepareEmulationFailureExit(data, default);

    [KernelFunction("prepare_emulation_failure_exit", File = "arch/x86/kvm/x86.c")]
    private void PrepareEmulationFailureExit(ReadOnlySpan<ulong> data, ReadOnlySpan<byte> insn)
    {
        Ops.GetExitInfo(this, out uint reason, out ulong info1, out ulong info2, out uint intrInfo, out uint errorCode);
        kvm_run* run = Run;
        run->exit_reason = KVM_EXIT_INTERNAL_ERROR;
        run->@internal.suberror = KVM_INTERNAL_ERROR_EMULATION;

        // data[0] are the flags; with an instruction its size and bytes take data[1] and data[2].
        int at = 1;
        run->@internal.data[0] = 0;
        if (insn.Length != 0)
        {
            run->@internal.data[0] = KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES;
            byte* p = (byte*)&run->@internal.data[1];
            p[0] = (byte)insn.Length;
            var bytes = new Span<byte>(p + 1, 15);
            bytes.Fill(0x90);
            insn[..Math.Min(15, insn.Length)].CopyTo(bytes);
            at = 3;
        }

        run->@internal.data[at++] = reason;
        run->@internal.data[at++] = info1;
        run->@internal.data[at++] = info2;
        run->@internal.data[at++] = intrInfo;
        run->@internal.data[at++] = errorCode;
        int words = Math.Min(4, data.Length);
        for (int i = 0; i < words; i++)
            run->@internal.data[at++] = data[i];
        run->@internal.ndata = (uint)at;
    }

    /// <summary>kvm_vcpu_check_code_breakpoint: an instruction breakpoint is hit before the instruction, unless hardware looked already.</summary>
    private bool CheckCodeBreakpoint(EmulType emulType, out int r)
    {
        r = 1;
        if ((emulType & (EMULTYPE_NO_DECODE | EMULTYPE_SKIP | EMULTYPE_TRAP_UD | EMULTYPE_VMWARE_GP | EMULTYPE_PF)) != 0)
            return false;
        if ((GuestDebug & KVM_GUESTDBG_USE_HW_BP) != 0 && (GuestDebugDr7 & DR7_BP_EN_MASK) != 0)
        {
            ulong eip = GetLinearRip();
            ulong dr6 = CheckHwBp(eip, GuestDebugDr7, EffDb);
            if (dr6 != 0)
            {
                Run->debug.arch.dr6 = dr6 | DR6_ACTIVE_LOW;
                Run->debug.arch.pc = eip;
                Run->debug.arch.exception = DB_VECTOR;
                Run->exit_reason = KVM_EXIT_DEBUG;
                r = 0;
                return true;
            }
        }

        if ((Dr7 & DR7_BP_EN_MASK) == 0 || IsCodeBreakpointInhibited())
            return false;
        ulong hit = CheckHwBp(GetLinearRip(), Dr7, Db);
        if (hit == 0)
            return false;
        QueueExceptionP(DB_VECTOR, hit);
        return true;
    }

    /// <summary>RF, and on Intel the shadow of MOV SS, hold instruction breakpoints back.</summary>
    private bool IsCodeBreakpointInhibited()
    {
        if ((ReadRflags() & X86_EFLAGS_RF) != 0)
            return true;
        return !IsAmdCompatible && (Ops.GetInterruptShadow(this) & KVM_X86_SHADOW_INT_MOV_SS) != 0;
    }

    private static ulong CheckHwBp(ulong addr, ulong dr7, ulong[] db)
    {
        ulong dr6 = 0;
        for (int i = 0; i < 4; i++)
        {
            bool enabled = ((dr7 >> (i * 2)) & 3) != 0;
            bool execute = ((dr7 >> (16 + (i * 4))) & 3) == 0;
            if (enabled && execute && db[i] == addr)
                dr6 |= 1ul << i;
        }

        return dr6;
    }
}

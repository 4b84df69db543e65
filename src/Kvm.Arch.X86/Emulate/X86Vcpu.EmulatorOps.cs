using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86;

/// <remarks>What the instruction emulator asks the vCPU for (struct x86_emulate_ops).</remarks>
public unsafe partial class X86Vcpu
{
    /// <summary>emulator_get_cr.</summary>
    internal ulong GetCr(int cr) => cr switch
    {
        0 => ReadCr0(),
        2 => Cr2,
        3 => ReadCr3(),
        4 => ReadCr4(),
        8 => GetCr8(),
        _ => 0,
    };

    /// <summary>emulator_set_cr: nonzero when the value is refused.</summary>
    internal int SetCr(int cr, ulong value)
    {
        switch (cr)
        {
            // Reserved bits of the old value stay, as with a MOV.
            case 0: return SetCr0((ReadCr0() & ~0xfffffffful) | (uint)value);
            case 2:
                Cr2 = value;
                return 0;
            case 3: return SetCr3(value);
            case 4: return SetCr4((ReadCr4() & ~0xfffffffful) | (uint)value);
            case 8: return SetCr8(value);
            default: return -1;
        }
    }

    internal int EmulatorGetMsr(uint index, out ulong data) => EmulatorGetMsrWithFilter(index, out data) switch
    {
        0 => X86EmulateContext.Continue,
        2 => X86EmulateContext.IoNeeded,
        _ => X86EmulateContext.PropagateFault,
    };

    internal int EmulatorSetMsr(uint index, ulong data) => EmulatorSetMsrWithFilter(index, data) switch
    {
        0 => X86EmulateContext.Continue,
        2 => X86EmulateContext.IoNeeded,
        _ => X86EmulateContext.PropagateFault,
    };

    internal bool ReadPmc(uint index, out ulong data) => PmuRdpmc(index, out data) == 0;

    // ---- FPU registers ----

    /// <summary>kvm_fpu_get: this processor, with the guest's state in its registers.</summary>
    private Emulator.Processor FpuGet()
    {
        HostX86Cpu cpu = Arch.HostX86.ThisCpu;
        GuestFpu.Load(cpu);
        return cpu.Processor;
    }

    internal void ReadXmm(int register, out ulong low, out ulong high)
    {
        UInt128 value = FpuGet().ReadXmm(register);
        (low, high) = ((ulong)value, (ulong)(value >> 64));
    }

    internal void WriteXmm(int register, ulong low, ulong high) => FpuGet().WriteXmm(register, new UInt128(high, low));

    /// <summary>flush_pending_x87_faults: an x87 exception is pending.</summary>
    internal bool FpuFaultPending => FpuGet().Fwait().IsFault;

    internal ulong ReadMmx(int register) => FpuGet().ReadMm(register);

    internal void WriteMmx(int register, ulong value) => FpuGet().WriteMm(register, value);

    internal void FpuFxsave(byte* image) => FpuGet().Fxsave(image, wide: false);

    internal bool FpuFxrstor(byte* image) => FpuGet().Fxrstor(image, wide: false).Ok;

    internal ushort FpuControlWord => FpuGet().Fnstcw();

    internal ushort FpuStatusWord => FpuGet().Fnstsw();

    /// <summary>FNINIT.</summary>
    internal void FpuInit() => FpuGet().Fninit();

    // ---- hypercalls ----

    /// <summary>
    /// emulator_fix_hypercall: writes this vendor's hypercall instruction over the guest's; with KVM_X86_QUIRK_FIX_HYPERCALL_INSN disabled it is #UD.
    /// </summary>
    internal int FixHypercall(X86EmulateContext ctxt)
    {
        if (!Vm.CheckHasQuirk(Abi.Uapi.KVM_X86_QUIRK_FIX_HYPERCALL_INSN))
        {
            ctxt.Exception.Vector = UD_VECTOR;
            ctxt.Exception.ErrorCodeValid = false;
            ctxt.HaveException = true;
            return X86EmulateContext.PropagateFault;
        }

        Span<byte> instruction = stackalloc byte[3];
        Ops.PatchHypercall(this, instruction);
        fixed (byte* p = instruction)
            return EmulatorReadWrite(ctxt, Rip, p, 3, true, ref ctxt.Exception);
    }

    /// <summary>kvm_inject_realmode_interrupt: an event of a guest in real mode, on processors that cannot inject it themselves.</summary>
    [KernelFunction("kvm_inject_realmode_interrupt", File = "arch/x86/kvm/x86.c")]
    public void InjectRealmodeInterrupt(int vector, int incEip)
    {
        if (!EmulateCtxt.InjectRealmodeInterrupt(vector, incEip))
        {
            MakeRequest(X86Request.KVM_REQ_TRIPLE_FAULT);
            return;
        }

        Rip = EmulateCtxt.Eip;
        SetRflags(EmulateCtxt.Eflags);
    }

    /// <summary>
    /// kvm_task_switch: 1, or 0 with KVM_EXIT_INTERNAL_ERROR. <paramref name="idtIndex"/> is -1 unless a software interrupt caused it.
    /// </summary>
    [KernelFunction("kvm_task_switch", File = "arch/x86/kvm/x86.c")]
    public int TaskSwitch(ushort tssSelector, int idtIndex, TaskSwitchReason reason, bool hasErrorCode, uint errorCode)
    {
        using var _ = FunctionTrace.Enter("kvm_task_switch");
        EmulateCtxt.Init();
        if (EmulateCtxt.TaskSwitch(tssSelector, idtIndex, reason, hasErrorCode, errorCode) != X86EmulateContext.Continue)
        {
            Run->exit_reason = Abi.Uapi.KVM_EXIT_INTERNAL_ERROR;
            Run->@internal.suberror = Abi.Uapi.KVM_INTERNAL_ERROR_EMULATION;
            Run->@internal.ndata = 0;
            return 0;
        }

        Rip = EmulateCtxt.Eip;
        SetRflags(EmulateCtxt.Eflags);
        return 1;
    }
}

using Kvm.Core.Tracing;
using Kvm.Emulator;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86;

/// <summary>
/// The instruction emulator of one vCPU: decodes one guest instruction and carries it out through the vCPU's registers and guest memory. Used where the
/// processor cannot: memory-mapped I/O, string port I/O, code it must not run.
/// </summary>
/// <remarks>
/// arch/x86/kvm/emulate.c:struct x86_emulate_ctxt. An instruction that needs data from userspace is left half done (<see cref="IoNeeded"/>) and carried out
/// again from the start, without decoding, when the data is there; what was read before is remembered in a cache.
/// </remarks>
public sealed unsafe partial class X86EmulateContext
{
    public const int Continue = 0;
    public const int Unhandleable = 1;
    public const int PropagateFault = 2;
    public const int RetryInstr = 3;
    public const int CmpxchgFailed = 4;
    public const int IoNeeded = 5;
    public const int Intercepted = 6;

    internal const int EmulationFailed = -1;
    internal const int EmulationOk = 0;
    internal const int EmulationRestart = 1;
    internal const int EmulationIntercepted = 2;

    private const int ReadAheadBytes = 1024;
    private const int MemReadBytes = 5 * 16;

    private readonly X86Vcpu vcpu;
    private readonly IKvmX86Ops ops;
    private readonly ulong[] regs = new ulong[16];
    private readonly byte[] buffers = GC.AllocateArray<byte>(ReadAheadBytes + MemReadBytes, pinned: true);
    private readonly byte* ioRead;
    private readonly byte* memRead;
    private uint regsValid;
    private uint regsDirty;
    private int ioReadPos;
    private int ioReadEnd;
    private int memReadPos;
    private int memReadEnd;

    internal X86EmulateContext(X86Vcpu vcpu)
    {
        this.vcpu = vcpu;
        ops = vcpu.Ops;
        fixed (byte* p = buffers)
        {
            ioRead = p;
            memRead = p + ReadAheadBytes;
        }

        code = new FetchReader(this);
        decoder16 = Iced.Intel.Decoder.Create(16, code);
        decoder32 = Iced.Intel.Decoder.Create(32, code);
        decoder64 = Iced.Intel.Decoder.Create(64, code);
    }

    public EmulMode Mode { get; private set; }

    /// <summary>RIP of the instruction; of the next one after it was carried out.</summary>
    public ulong Eip { get; internal set; }

    /// <summary>RIP after the instruction's bytes, or where it jumps.</summary>
    internal ulong NextEip { get; private set; }

    public ulong Eflags { get; internal set; }

    internal bool Tf { get; private set; }

    /// <summary>Interrupt shadow that the instruction leaves (KVM_X86_SHADOW_INT_*).</summary>
    internal uint Interruptibility { get; private set; }

    public bool HaveException { get; internal set; }

    /// <summary>The fault of the instruction, when <see cref="HaveException"/>.</summary>
    public X86Exception Exception;

    /// <summary>The port permission check passed in an earlier pass.</summary>
    private bool permOk;

    internal bool IsBranch { get; private set; }

    /// <summary>The guest-physical address of the exit that caused the emulation, if known.</summary>
    internal bool GpaAvailable { get; set; }

    internal ulong GpaVal { get; set; }

    /// <summary>init_emulate_ctxt: takes the mode and flags from the vCPU and forgets earlier work.</summary>
    [KernelFunction("init_emulate_ctxt", File = "arch/x86/kvm/x86.c")]
    internal void Init()
    {
        using var _ = FunctionTrace.Enter("init_emulate_ctxt");
        ops.GetCsDbLBits(vcpu, out bool db, out bool l);
        GpaAvailable = false;
        Eflags = vcpu.ReadRflags();
        Tf = (Eflags & X86_EFLAGS_TF) != 0;
        Eip = vcpu.Rip;
        Mode = !vcpu.IsProtmode ? EmulMode.Real
            : (Eflags & X86_EFLAGS_VM) != 0 ? EmulMode.Vm86
            : l && vcpu.IsLongMode ? EmulMode.Prot64
            : db ? EmulMode.Prot32
            : EmulMode.Prot16;
        Interruptibility = 0;
        HaveException = false;
        Exception = default;
        permOk = false;
        FunctionTrace.Leaf("init_decode_cache");
        InitDecodeCache();
        vcpu.EmulateRegsNeedSyncFromVcpu = false;
    }

    private void InitDecodeCache()
    {
        ioReadPos = ioReadEnd = 0;
        memReadPos = memReadEnd = 0;
        InvalidateRegisterCache();
        IsBranch = false;
    }

    // ---- registers ----

    internal void InvalidateRegisterCache()
    {
        regsValid = 0;
        regsDirty = 0;
    }

    [KernelFunction("reg_read", File = "arch/x86/kvm/kvm_emulate.h")]
    internal ulong RegRead(int reg)
    {
        using var _ = FunctionTrace.Enter("reg_read");
        uint bit = 1u << reg;
        if ((regsValid & bit) == 0)
        {
            FunctionTrace.Leaf("emulator_read_gpr");
            regs[reg] = vcpu.RegisterReadRaw((KvmReg)reg);
            regsValid |= bit;
        }

        return regs[reg];
    }

    [KernelFunction("reg_write", File = "arch/x86/kvm/kvm_emulate.h")]
    internal void RegWrite(int reg, ulong value)
    {
        FunctionTrace.Leaf("reg_write");
        regs[reg] = value;
        regsValid |= 1u << reg;
        regsDirty |= 1u << reg;
    }

    /// <summary>
    /// reg_rmw: the register will be changed. Register operands are marked while decoding and written later without marking: when userspace sets the
    /// registers between an access that it serves and the completion, what the instruction loaded is lost.
    /// </summary>
    private void RegModify(int reg)
    {
        RegWrite(reg, RegRead(reg));
    }

    /// <summary>write_register_operand.</summary>
    private void RegStore(int reg, bool highByte, int bytes, ulong value) => regs[reg] = OperandSize.Insert(regs[reg], value, bytes, highByte);

    /// <summary>assign_register: 1 and 2 bytes keep the rest, 4 bytes clear the upper half.</summary>
    private void RegAssign(int reg, bool highByte, int bytes, ulong value)
    {
        ulong old = bytes < 4 ? RegRead(reg) : 0;
        RegWrite(reg, OperandSize.Insert(old, value, bytes, highByte));
    }

    private ulong RegRead(int reg, bool highByte, int bytes) => OperandSize.Extract(RegRead(reg), bytes, highByte);

    /// <summary>emulator_writeback_register_cache: changed registers go to the vCPU, and stay marked: the instruction may not be over.</summary>
    [KernelFunction("writeback_registers", File = "arch/x86/kvm/emulate.c")]
    public void WritebackRegisterCache()
    {
        using var _ = FunctionTrace.Enter("writeback_registers");
        uint dirty = regsDirty;
        for (int i = 0; dirty != 0; i++, dirty >>= 1)
        {
            if ((dirty & 1) == 0)
                continue;
            FunctionTrace.Leaf("emulator_write_gpr");
            vcpu.RegisterWriteRaw((KvmReg)i, regs[i]);
        }
    }

    // ---- faults ----

    private int Fault(int vector, uint errorCode, bool valid)
    {
        Exception.Vector = (byte)vector;
        Exception.ErrorCode = (ushort)errorCode;
        Exception.ErrorCodeValid = valid;
        return PropagateFault;
    }

    private int Db() => Fault(DB_VECTOR, 0, false);

    private int Gp(uint error) => Fault(GP_VECTOR, error, true);

    private int Ss(uint error) => Fault(SS_VECTOR, error, true);

    private int Ud() => Fault(UD_VECTOR, 0, false);

    private int Ts(uint error) => Fault(TS_VECTOR, error, true);

    private int De() => Fault(DE_VECTOR, 0, false);

    private int Nm() => Fault(NM_VECTOR, 0, false);
}

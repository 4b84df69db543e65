using System.Runtime.InteropServices;
using Iced.Intel;
using Kvm.Interop;
using static Iced.Intel.Register;
using IcedMemory = Iced.Intel.MemoryOperand;

namespace Kvm.Emulator.Tests.Differential;

/// <summary>
/// Executes single instructions on the host's own processor: a whole register state in and out, exceptions included. An exception arrives as a signal; its
/// handler, a few bytes of machine code, goes to the epilogue when the signal came from the instruction, and to the previous handler otherwise.
/// </summary>
/// <remarks>One instance at a time: signal handlers belong to the process. x86-64 Linux with AVX.</remarks>
internal sealed unsafe class NativeProcessor : IDisposable
{
    private const int pages = 8, slotOffset = 0x1000, epilogueOffset = 0x1800, handlerOffset = 0x2000, stateOffset = 0x3000, dataOffset = 0x4000;
    private const int sigill = 4, sigbus = 7, sigfpe = 8, sigsegv = 11;
    private static readonly int[] signals = [sigill, sigbus, sigfpe, sigsegv];
    private static readonly Register[] saved = [RBX, RBP, R12, R13, R14, R15];
    private readonly byte* memory;
    private readonly byte* actions;
    private readonly ulong hostRsp, hostMxcsr;

    internal static string? Missing =>
        RuntimeInformation.ProcessArchitecture != Architecture.X64 || !OperatingSystem.IsLinux() ? "the host is not x86-64 Linux"
        : !System.Runtime.Intrinsics.X86.Avx.IsSupported ? "the host has no AVX" : null;

    internal NativeProcessor()
    {
        memory = (byte*)LibC.mmap(null, pages * 0x1000, 7, LibC.MAP_PRIVATE | LibC.MAP_ANONYMOUS, -1, 0);
        if (memory == LibC.MAP_FAILED)
            throw new InvalidOperationException("no executable memory");
        hostRsp = (ulong)memory + stateOffset + 0xf00;
        hostMxcsr = hostRsp + 8;
        Prologue();
        Epilogue();
        actions = (byte*)NativeMemory.AllocZeroed(160, 8);
        foreach (int signal in signals)
            Install(signal);
    }

    internal HostState* State => (HostState*)(memory + stateOffset);

    /// <summary>Two pages of memory for operands; what follows them can't be accessed.</summary>
    internal byte* Data => memory + dataOffset;

    internal void Execute(ReadOnlySpan<byte> instruction)
    {
        State->Fault = 0;
        byte* slot = memory + slotOffset;
        instruction.CopyTo(new Span<byte>(slot, 16));
        byte* jump = slot + instruction.Length;
        *jump = 0xe9;
        *(int*)(jump + 1) = (int)(memory + epilogueOffset - (jump + 5));
        ((delegate* unmanaged<void>)memory)();
    }

    private static IcedMemory At(ulong address) => new(RIP, (long)address, 8);

    private ulong StateAddress(int offset) => (ulong)memory + stateOffset + (ulong)offset;

    private static int FieldOffset(string field) => (int)Marshal.OffsetOf<HostState>(field);

    private void Prologue()
    {
        var code = new List<Instruction>();
        foreach (Register r in saved)
            code.Add(Instruction.Create(Code.Push_r64, r));
        code.Add(Instruction.Create(Code.Stmxcsr_m32, At(hostMxcsr)));
        code.Add(Instruction.Create(Code.Mov_rm64_r64, At(hostRsp), RSP));
        code.Add(Instruction.Create(Code.Fxrstor64_m512byte, At(StateAddress(FieldOffset(nameof(HostState.Fx))))));
        for (int n = 0; n < 16; n++)
            code.Add(Instruction.Create(Code.VEX_Vinsertf128_ymm_ymm_xmmm128_imm8, YMM0 + n, YMM0 + n, At(StateAddress(FieldOffset(nameof(HostState.YmmHi)) + n * 16)), 1));
        code.Add(Instruction.Create(Code.Push_rm64, At(StateAddress(FieldOffset(nameof(HostState.Rflags))))));
        code.Add(Instruction.Create(Code.Popfq));
        for (int n = 0; n < 16; n++)
        {
            if (n != 4)
                code.Add(Instruction.Create(Code.Mov_r64_rm64, RAX + n, At(StateAddress(n * 8))));
        }
        code.Add(Instruction.CreateBranch(Code.Jmp_rel32_64, (ulong)memory + slotOffset));
        Place(code, 0);
    }

    private void Epilogue()
    {
        var code = new List<Instruction>();
        for (int n = 0; n < 16; n++)
        {
            if (n != 4)
                code.Add(Instruction.Create(Code.Mov_rm64_r64, At(StateAddress(n * 8)), RAX + n));
        }
        code.Add(Instruction.Create(Code.Mov_r64_rm64, RSP, At(hostRsp)));
        code.Add(Instruction.Create(Code.Pushfq));
        code.Add(Instruction.Create(Code.Pop_rm64, At(StateAddress(FieldOffset(nameof(HostState.Rflags))))));
        code.Add(Instruction.Create(Code.Cld));
        code.Add(Instruction.Create(Code.Fxsave64_m512byte, At(StateAddress(FieldOffset(nameof(HostState.Fx))))));
        code.Add(Instruction.Create(Code.Fninit));
        for (int n = 0; n < 16; n++)
            code.Add(Instruction.Create(Code.VEX_Vextractf128_xmmm128_ymm_imm8, At(StateAddress(FieldOffset(nameof(HostState.YmmHi)) + n * 16)), YMM0 + n, 1));
        code.Add(Instruction.Create(Code.VEX_Vzeroupper));
        code.Add(Instruction.Create(Code.Ldmxcsr_m32, At(hostMxcsr)));
        foreach (Register r in saved.Reverse())
            code.Add(Instruction.Create(Code.Pop_r64, r));
        code.Add(Instruction.Create(Code.Retnq));
        Place(code, epilogueOffset);
    }

    /// <summary>handler(signal, info, context): an exception of the slot goes on at the epilogue with its vector recorded.</summary>
    private void Install(int signal)
    {
        const int rip = 168, trapNumber = 200; // uc_mcontext.gregs[REG_RIP], [REG_TRAPNO]
        byte* action = actions + signals.IndexOf(signal) * 160;
        byte* previous = actions + (signals.IndexOf(signal) + 4) * 160;
        sigaction(signal, null, previous);
        ulong at = (ulong)memory + handlerOffset + (ulong)(signals.IndexOf(signal) * 0x100);
        ulong other = at + 0x80;
        var code = new List<Instruction>
        {
            Instruction.Create(Code.Mov_r64_rm64, RAX, new IcedMemory(RDX, rip, 1)),
            Instruction.Create(Code.Mov_r64_imm64, RCX, (ulong)memory + slotOffset),
            Instruction.Create(Code.Sub_r64_rm64, RAX, RCX),
            Instruction.Create(Code.Cmp_rm64_imm8, RAX, 16),
            Instruction.CreateBranch(Code.Jae_rel32_64, other),
            Instruction.Create(Code.Mov_r64_rm64, RAX, new IcedMemory(RDX, trapNumber, 1)),
            Instruction.Create(Code.Inc_rm64, RAX),
            Instruction.Create(Code.Mov_rm64_r64, At(StateAddress(FieldOffset(nameof(HostState.Fault)))), RAX),
            Instruction.Create(Code.Mov_r64_imm64, RAX, (ulong)memory + epilogueOffset),
            Instruction.Create(Code.Mov_rm64_r64, new IcedMemory(RDX, rip, 1), RAX),
            Instruction.Create(Code.Retnq),
        };
        Place(code, (int)(at - (ulong)memory));
        Place([Instruction.Create(Code.Mov_r64_imm64, RAX, *(ulong*)previous), Instruction.Create(Code.Jmp_rm64, RAX)], (int)(other - (ulong)memory));
        Buffer.MemoryCopy(previous, action, 160, 160);
        *(ulong*)action = at;
        sigaction(signal, action, null);
    }

    private void Place(List<Instruction> code, int offset)
    {
        ulong ip = (ulong)memory + (ulong)offset;
        var writer = new Writer(memory + offset);
        Encoder encoder = Encoder.Create(64, writer);
        foreach (Instruction instruction in code)
            ip += encoder.Encode(instruction, ip);
    }

    private sealed class Writer(byte* at) : CodeWriter
    {
        private byte* next = at;

        public override void WriteByte(byte value) => *next++ = value;
    }

    [DllImport("libc", SetLastError = true)]
    private static extern int sigaction(int signal, byte* action, byte* old);

    public void Dispose()
    {
        foreach (int signal in signals)
            sigaction(signal, actions + (signals.IndexOf(signal) + 4) * 160, null);
        NativeMemory.Free(actions);
        LibC.munmap(memory, pages * 0x1000);
    }
}

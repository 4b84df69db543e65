using System.Runtime.Intrinsics.X86;
using Iced.Intel;
using Kvm.Emulator.Vector;
using IcedMemory = Iced.Intel.MemoryOperand;

namespace Kvm.Emulator.Native;

/// <summary>The code between C# and the guest's: registers are exchanged with the state block.</summary>
internal static unsafe class Trampolines
{
    private static readonly int[] saved = [HostRegister.Rbx, HostRegister.Rbp, HostRegister.R12, HostRegister.R13, HostRegister.R14, HostRegister.R15];

    /// <summary>A function of one argument, the code to go to; it returns when that goes to <see cref="Leave"/>.</summary>
    internal static byte* Enter(Emitter e, CpuState* s)
    {
        byte* entry = Align(e);
        foreach (int register in saved)
            Push(e, register);
        e.Move(HostRegister.R14, HostRegister.Rdi);
        for (int guest = 0; guest < 13; guest++)
            e.Near(true, 0x8b, HostRegister.Of(guest), &s->Gpr[guest]);
        e.Registers(false, 0xff, 4, HostRegister.R14);
        return entry;
    }

    /// <summary>Stores the guest's registers and returns.</summary>
    internal static byte* Leave(Emitter e, CpuState* s)
    {
        byte* entry = Align(e);
        for (int guest = 0; guest < 13; guest++)
            e.Near(true, 0x89, HostRegister.Of(guest), &s->Gpr[guest]);
        e.Near(false, 0x80, 7, &s->NativeVectors, 1);
        e.Byte(0);
        byte* none = e.JumpIf(Emitter.Equal);
        for (int i = 0; i < 16; i++)
            Vector(e, 0x11, i, VectorUnit.Xmm(s, i));
        if (Avx.IsSupported)
        {
            e.Near(false, 0x80, 7, &s->NativeVectors, 1);
            e.Byte(WholeVectors);
            byte* low = e.JumpIf(Emitter.NotEqual);
            for (int i = 0; i < 16; i++)
                Encode(e, Instruction.Create(Code.VEX_Vextractf128_xmmm128_ymm_imm8, Near(VectorUnit.YmmHigh(s, i)), Register.YMM0 + i, 1));
            Encode(e, Instruction.Create(Code.VEX_Vzeroupper));
            e.Here(low);
        }
        e.Near(false, 0x0fae, 3, s->Fx + VectorUnit.FxMxcsr); // STMXCSR
        e.Near(false, 0x0fae, 2, &s->NativeHostMxcsr); // LDMXCSR
        e.Near(false, 0xc6, 0, &s->NativeVectors, 1);
        e.Byte(0);
        e.Here(none);
        for (int i = saved.Length - 1; i >= 0; i--)
            Pop(e, saved[i]);
        e.Byte(0xc3);
        return entry;
    }

    /// <summary>What State->NativeVectors says: XMM registers, or all of YMM registers, are loaded.</summary>
    internal const int LowVectors = 1, WholeVectors = 2;

    /// <summary>Loads the guest's XMM registers and MXCSR, and goes on at R14. With unmasked exceptions the code is left, at the site in R15.</summary>
    internal static byte* LoadVectors(Emitter e, CpuState* s, byte* leave)
    {
        byte* entry = Align(e);
        LoadLow(e, s, leave);
        Loaded(e, s, LowVectors);
        return entry;
    }

    /// <summary>As <see cref="LoadVectors"/>, for whole YMM registers. Their lower halves may have been loaded before.</summary>
    internal static byte* LoadWholeVectors(Emitter e, CpuState* s, byte* leave)
    {
        byte* entry = Align(e);
        e.Near(false, 0x80, 7, &s->NativeVectors, 1);
        e.Byte(0);
        byte* low = e.JumpIf(Emitter.NotEqual);
        LoadLow(e, s, leave);
        e.Here(low);
        for (int i = 0; Avx.IsSupported && i < 16; i++)
            Encode(e, Instruction.Create(Code.VEX_Vinsertf128_ymm_ymm_xmmm128_imm8, Register.YMM0 + i, Register.YMM0 + i, Near(VectorUnit.YmmHigh(s, i)), 1));
        Loaded(e, s, WholeVectors);
        return entry;
    }

    private static void LoadLow(Emitter e, CpuState* s, byte* leave)
    {
        e.Near(false, 0x89, HostRegister.R15, &s->NativeSite);
        e.Near(false, 0x8b, HostRegister.R15, s->Fx + VectorUnit.FxMxcsr);
        e.Registers(false, 0xf7, 2, HostRegister.R15); // NOT
        e.Registers(false, 0xf7, 0, HostRegister.R15); // TEST
        e.Int((int)VectorUnit.MxcsrMasks);
        byte* masked = e.JumpIf(Emitter.Equal);
        e.JumpTo(leave);
        e.Here(masked);
        if (Avx.IsSupported)
            Encode(e, Instruction.Create(Code.VEX_Vzeroupper));
        e.Near(false, 0x0fae, 3, &s->NativeHostMxcsr);
        e.Near(false, 0x0fae, 2, s->Fx + VectorUnit.FxMxcsr);
        for (int i = 0; i < 16; i++)
            Vector(e, 0x10, i, VectorUnit.Xmm(s, i));
    }

    private static void Loaded(Emitter e, CpuState* s, int what)
    {
        e.Near(false, 0xc6, 0, &s->NativeVectors, 1);
        e.Byte(what);
        e.Registers(false, 0xff, 4, HostRegister.R14);
    }

    private static IcedMemory Near(byte* at) => new(Register.RIP, Register.None, 1, (long)at, 8);

    private static void Encode(Emitter e, in Instruction instruction) => Encoder.Create(64, e).Encode(instruction, (ulong)e.Executable);

    // MOVUPS, to or from memory.
    private static void Vector(Emitter e, int opcode, int register, byte* at) => e.Near(false, 0x0f00 | opcode, register, at);

    private static void Push(Emitter e, int register)
    {
        if (register >= 8)
            e.Byte(0x41);
        e.Byte(0x50 | register & 7);
    }

    private static void Pop(Emitter e, int register)
    {
        if (register >= 8)
            e.Byte(0x41);
        e.Byte(0x58 | register & 7);
    }

    private static byte* Align(Emitter e)
    {
        while (((ulong)e.At & 63) != 0)
            e.Byte(0xcc);
        return e.Executable;
    }
}

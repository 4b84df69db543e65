using System.Globalization;
using System.Text;
using Iced.Intel;
using Kvm.Emulator.Tests.Engine;
using Kvm.Emulator.Vector;

namespace Kvm.Emulator.Tests.Differential;

/// <summary>One instruction with its register state and memory, all from one seed.</summary>
internal sealed unsafe class OneCase
{
    private const ulong arithmetic = 0x8d5;
    private const ulong guestData = GuestMachine.DataBase;
    private const int dataSize = 0x1100;
    private readonly byte[] bytes;
    private readonly Instruction instruction;
    private readonly Random random;
    private readonly CaseGenerator generator;

    private OneCase(byte[] bytes, Instruction instruction, Random random, CaseGenerator generator)
    {
        this.bytes = bytes;
        this.instruction = instruction;
        this.random = random;
        this.generator = generator;
    }

    internal string Text => $"{instruction} [{Convert.ToHexString(bytes)}]";

    internal byte[] Bytes => bytes;

    /// <summary>A bit offset in a register addresses memory anywhere around the operand: only its own state keeps that in bounds.</summary>
    internal bool ReachesFar => instruction.Mnemonic is Mnemonic.Bt or Mnemonic.Bts or Mnemonic.Btr or Mnemonic.Btc && HasMemory && instruction.Op1Kind == OpKind.Register;

    /// <summary>The case as a program of one instruction, to be shrunk.</summary>
    internal ProgramCase Program()
    {
        HostState state = default;
        var data = new byte[dataSize];
        fixed (byte* p = data)
            Prepare(&state, p);
        return new ProgramCase([bytes], state, data);
    }

    /// <summary>Null: the operands that the seed gives do not go together.</summary>
    internal static OneCase? Make(Code code, int seed)
    {
        var random = new Random(seed);
        var generator = new CaseGenerator(random);
        return generator.Encode(code, out Instruction instruction) is { } bytes && !Undefined.Everything(instruction) ? new OneCase(bytes, instruction, random, generator) : null;
    }

    /// <summary>Null when both processors agree.</summary>
    internal string? Compare(NativeProcessor native, GuestMachine guest)
    {
        Prepare(native.State, native.Data);
        return Step(bytes, instruction, native, guest, VectorTable.Instance[instruction.Code] != null && random.Next(2) == 0);
    }

    /// <summary>One instruction on the state that the host's processor has: null when both end it alike. The host goes on with what it got.</summary>
    /// <param name="inBlock">On its own an instruction goes through its handler. With a HLT behind it it is a block, which the loops of the engine execute.</param>
    internal static string? Step(byte[] bytes, in Instruction instruction, NativeProcessor native, GuestMachine guest, bool inBlock = false)
    {
        guest.Start(64, inBlock ? [.. bytes, 0xf4] : bytes);
        Load(native.State, native.Data, guest);
        native.State->Gpr[15] = (ulong)native.Data;
        native.Execute(bytes);
        guest.Run(inBlock ? 2UL : 1);
        if (inBlock)
        {
            if (guest.State->Activity != ActivityState.Hlt)
                return "no HLT";
            guest.State->Rip--;
        }
        return Difference(bytes, instruction, native, guest);
    }

    internal void Prepare(HostState* s, byte* data)
    {
        for (int r = 0; r < 16; r++)
            s->Gpr[r] = generator.Value();
        s->Rflags = 0x202 | ((ulong)random.Next() & arithmetic);
        Unsafe(s);
        new Span<byte>(data, dataSize).Clear();
        for (int i = 0; i < 0x100; i += 8)
            *(ulong*)(data + i) = generator.VectorValue();
        for (int i = 0xfc0; i < 0x1040; i += 8)
            *(ulong*)(data + i) = generator.VectorValue();
        // CMPXCHG and its like should succeed now and then.
        if (instruction.Mnemonic is Mnemonic.Cmpxchg or Mnemonic.Cmpxchg8b or Mnemonic.Cmpxchg16b && random.Next(2) == 0 && HasMemory)
        {
            ulong at = instruction.MemoryDisplacement64;
            s->Gpr[0] = *(ulong*)(data + at);
            s->Gpr[2] = instruction.Mnemonic == Mnemonic.Cmpxchg8b ? s->Gpr[0] >> 32 : *(ulong*)(data + at + 8);
        }
        Float(s);
    }

    private bool HasMemory => Enumerable.Range(0, instruction.OpCount).Any(i => instruction.GetOpKind(i) == OpKind.Memory);

    /// <summary>A bit offset in a register addresses memory far from the operand: kept small.</summary>
    private void Unsafe(HostState* s)
    {
        if (ReachesFar)
            s->Gpr[instruction.Op1Register.GetFullRegister().GetNumber()] = (ulong)random.Next(128);
    }

    private void Float(HostState* s)
    {
        byte* fx = s->Fx;
        new Span<byte>(fx, 512).Clear();
        bool masked = random.Next(4) != 0;
        *(ushort*)fx = (ushort)(0x40 | (masked ? 0x3f : random.Next(0x40)) | random.Next(4) << 10 | (random.Next(3) == 0 ? random.Next(4) : 3) << 8);
        // No exception is pending: the flags are clear, only condition codes and the top of the stack are random.
        *(ushort*)(fx + 2) = (ushort)(random.Next(8) << 11 | random.Next(8) << 8 | random.Next(2) << 14);
        fx[4] = random.Next(3) == 0 ? (byte)random.Next(256) : (byte)0xff;
        *(uint*)(fx + 24) = (uint)((random.Next(3) == 0 ? random.Next(0x80) << 7 & 0x1f80 : 0x1f80) | (random.Next(3) == 0 ? random.Next(4) << 13 : 0) | (random.Next(4) == 0 ? random.Next(0x40) : 0)
            | (random.Next(6) == 0 ? 0x40 : 0) | (random.Next(6) == 0 ? 0x8000 : 0));
        for (int i = 0; i < 8; i++)
        {
            *(ulong*)(fx + 32 + i * 16) = Significand(out ushort exponent);
            *(ushort*)(fx + 40 + i * 16) = exponent;
        }
        for (int i = 0; i < 256; i += 8)
        {
            *(ulong*)(fx + 160 + i) = generator.VectorValue();
            *(ulong*)(s->YmmHi + i) = generator.VectorValue();
        }
    }

    private ulong Significand(out ushort exponent)
    {
        ulong sign = (ulong)random.Next(2) << 15;
        ulong value = generator.Value();
        int kind = random.Next(12);
        exponent = (ushort)(sign | kind switch
        {
            0 or 1 => 0u,
            2 or 3 => 0x7fffu,
            4 => (uint)random.Next(0x8000),
            5 => 1u,
            _ => (uint)(0x3fff + random.Next(-70, 70)),
        });
        return kind switch
        {
            0 => 0,
            1 => value & ~(1UL << 63),
            2 => 1UL << 63 | (random.Next(2) == 0 ? 0 : value),
            4 => value,
            6 => 1UL << 63,
            _ => value | 1UL << 63,
        };
    }

    internal static void Load(HostState* from, byte* data, GuestMachine guest)
    {
        CpuState* s = guest.State;
        for (int r = 0; r < 15; r++)
        {
            if (r != 4)
                s->Gpr[r] = from->Gpr[r];
        }
        s->Gpr[4] = GuestMachine.StackTop;
        s->Gpr[15] = guestData;
        s->Cr0 = (s->Cr0 & ~(Cr0.EM | Cr0.TS)) | Cr0.NE | Cr0.MP;
        s->Cr4 |= Cr4.OSFXSR | Cr4.OSXMMEXCPT | Cr4.OSXSAVE;
        s->Xcr0 = 7;
        guest.Cpu.Rflags = from->Rflags & ~0x200UL;
        Buffer.MemoryCopy(from->Fx, s->Fx, 512, 512);
        Buffer.MemoryCopy(from->YmmHi, s->YmmHi, 256, 256);
        Buffer.MemoryCopy(data, guest.Ram + guestData, dataSize, dataSize);
    }

    private static string? Difference(byte[] bytes, in Instruction instruction, NativeProcessor native, GuestMachine guest)
    {
        HostState* h = native.State;
        CpuState* s = guest.State;
        int hostFault = (int)h->Fault - 1;
        int fault = guest.State->Rip == GuestMachine.CodeBase + (ulong)bytes.Length ? -1 : guest.PendingVector;
        if (hostFault != fault)
            return string.Create(CultureInfo.InvariantCulture, $"exception {fault}, host {hostFault}");
        var text = new StringBuilder();
        if (fault >= 0 && fault != Fault.XM)
            return null;
        for (int r = 0; r < 15; r++)
        {
            if (r != 4 && h->Gpr[r] != s->Gpr[r] && !Undefined.Register(instruction, r, native))
                text.Append(CultureInfo.InvariantCulture, $"r{r} {s->Gpr[r]:x} host {h->Gpr[r]:x} ");
        }
        ulong flags = fault >= 0 ? 0 : (guest.Cpu.Rflags ^ h->Rflags) & arithmetic & ~Undefined.Flags(instruction);
        if (flags != 0)
            text.Append(CultureInfo.InvariantCulture, $"flags differ in {flags:x} host {h->Rflags & arithmetic:x} ");
        CompareFx(h->Fx, s->Fx, text);
        if (!new Span<byte>(h->YmmHi, 256).SequenceEqual(new Span<byte>(s->YmmHi, 256)))
            text.Append("ymm ");
        if (!new Span<byte>(native.Data, dataSize).SequenceEqual(new Span<byte>(guest.Ram + guestData, dataSize)))
            text.Append("memory ");
        return text.Length == 0 ? null : text.ToString();
    }

    private static void CompareFx(byte* host, byte* fx, StringBuilder text)
    {
        Word("fcw", 0, 2);
        Word("fsw", 2, 2);
        Word("ftw", 4, 1);
        Word("mxcsr", 24, 4);
        for (int i = 0; i < 8; i++)
        {
            Word("st" + i, 32 + i * 16, 8);
            Word("st" + i + " exponent", 40 + i * 16, 2);
        }
        for (int i = 0; i < 16; i++)
        {
            Word("xmm" + i, 160 + i * 16, 8);
            Word("xmm" + i + " high", 168 + i * 16, 8);
        }
        void Word(string name, int offset, int size)
        {
            ulong mask = size == 8 ? ulong.MaxValue : (1UL << (size * 8)) - 1;
            ulong a = *(ulong*)(fx + offset) & mask, b = *(ulong*)(host + offset) & mask;
            if (a != b)
                text.Append(CultureInfo.InvariantCulture, $"{name} {a:x} host {b:x} ");
        }
    }
}

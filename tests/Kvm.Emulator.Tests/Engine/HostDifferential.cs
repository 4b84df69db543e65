using System.Globalization;
using System.Text;
using static Kvm.Emulator.Tests.Engine.InstructionTemplate;

namespace Kvm.Emulator.Tests.Engine;

/// <summary>Integer instructions give on the emulated processor what they give on the host's: registers, memory and every defined flag.</summary>
public sealed unsafe class HostDifferential
{
    private const int ScratchSize = 64;
    private const ulong GuestScratch = GuestMachine.DataBase + 512;

    private readonly record struct Case(byte[] Code, ulong Undefined, string Text);

    // Operands near the edges of every width find more than uniform ones.
    private static ulong Value(Random random)
    {
        ulong value = (ulong)random.NextInt64(long.MinValue, long.MaxValue);
        return random.Next(6) switch
        {
            0 => (ulong)random.Next(-3, 4),
            1 => 1UL << random.Next(64),
            2 => (1UL << random.Next(64)) - 1,
            3 => value >> random.Next(64),
            _ => value,
        };
    }

    /// <summary>Encodes a template with random operands and adjusts registers so that the host does not fault. Null: cannot be made.</summary>
    private static Case? Encode(InstructionTemplate t, Random random, ulong* registers, byte* memory, bool countOfOne = false)
    {
        int width = t.EffectiveWidths[random.Next(t.EffectiveWidths.Length)];
        bool inMemory = t.Forms switch { Forms.Memory => true, Forms.Both => random.Next(2) == 0, _ => false };
        // RSP and R15 (the scratch pointer) are not operands.
        int Register()
        {
            int r;
            do
                r = random.Next(15);
            while (r == 4);
            return r;
        }
        int reg = t.Digit >= 0 ? t.Digit : Register(), rm = Register(), vvvv = Register();
        int displacement = t.Kind == TemplateKind.Aligned16 ? 16 * random.Next(3) : random.Next(40);
        byte[] immediate = new byte[t.Immediate == 4 ? (width == 16 ? 2 : 4) : t.Immediate];
        random.NextBytes(immediate);
        ulong undefined = t.Undefined;
        ulong source = Load(inMemory, registers, memory, rm, displacement, width, t.Kind);
        switch (t.Kind)
        {
            case TemplateKind.Shift or TemplateKind.Rotate or TemplateKind.DoubleShift:
                int mask = width == 64 ? 63 : 31;
                if (countOfOne && immediate.Length > 0)
                    immediate[0] = 1;
                else if (countOfOne)
                    return null;
                int count = (immediate.Length > 0 ? immediate[0] : (int)registers[1]) & mask;
                if (t.Kind == TemplateKind.DoubleShift && count > width)
                    return null;
                if (t.Kind != TemplateKind.Rotate && count != 0)
                    undefined |= AF;
                if (count > 1)
                    undefined |= OF;
                if (t.Kind == TemplateKind.Shift && count >= width)
                    undefined |= CF;
                break;
            case TemplateKind.Divide or TemplateKind.SignedDivide:
                if (!inMemory && rm is 0 or 2)
                    return null;
                if (!MakeDivisible(t.Kind, registers, source, width))
                    return null;
                break;
            case TemplateKind.BitString:
                registers[reg] = (ulong)random.Next(0, 120);
                displacement = 8;
                break;
            case TemplateKind.NonZeroSource:
                if (source == 0)
                    return null;
                break;
            default:
                break;
        }
        if (width == 8 && !inMemory && t.Forms != Forms.NoModRm && random.Next(3) == 0 && t.Digit < 0 && t.Vex < 0)
        {
            // AH CH DH BH: without REX.
            reg = random.Next(8);
            rm = random.Next(8);
            return new Case([.. t.Opcode, (byte)(0xc0 | reg << 3 | rm), .. immediate], undefined, Describe(t, width, "high bytes"));
        }
        var code = new List<byte>();
        if (t.Vex >= 0)
        {
            code.AddRange([0xc4, (byte)((reg < 8 || t.Digit >= 0 ? 0x80 : 0) | 0x40 | (inMemory || rm >= 8 ? 0 : 0x20) | (t.Vex & 0xf)),
                (byte)((width == 64 ? 0x80 : 0) | (~(t.Name == "rorx" ? 0 : vvvv) & 15) << 3 | t.Vex >> 4)]);
        }
        else
        {
            if (width == 16)
                code.Add(0x66);
            if (t.Prefix != 0)
                code.Add(t.Prefix);
            code.Add((byte)(0x40 | (width == 64 ? 8 : 0) | (t.Digit < 0 && t.Forms != Forms.NoModRm && reg >= 8 ? 4 : 0)
                | (inMemory ? 1 : t.InOpcode || t.Forms != Forms.NoModRm ? (rm >= 8 ? 1 : 0) : 0)));
        }
        code.AddRange(t.Opcode);
        if (t.InOpcode)
            code[^1] += (byte)(rm & 7);
        if (t.Kind == TemplateKind.Address)
        {
            // lea reg, [base + index * scale + disp8], base and index below R8.
            code[^2] &= 0xfe;
            int index = rm & 7, scale = random.Next(4);
            if (index == 4)
                index = 0;
            code.AddRange([(byte)(0x44 | (reg & 7) << 3), (byte)(scale << 6 | index << 3 | (vvvv & 7) switch { 4 => 0, var b => b }), (byte)displacement]);
        }
        else if (inMemory)
            code.AddRange([(byte)(0x47 | (reg & 7) << 3), (byte)displacement]);
        else if (t.Forms != Forms.NoModRm)
            code.Add((byte)(0xc0 | (reg & 7) << 3 | (rm & 7)));
        code.AddRange(immediate);
        return new Case([.. code], undefined, Describe(t, width, inMemory ? "memory" : "register"));
    }

    private static string Describe(InstructionTemplate t, int width, string form) => string.Create(CultureInfo.InvariantCulture, $"{t.Name} ({width}-bit, {form})");

    private static ulong Load(bool inMemory, ulong* registers, byte* memory, int rm, int displacement, int width, TemplateKind kind)
    {
        ulong value = inMemory ? *(ulong*)(memory + displacement) : registers[rm];
        return (kind == TemplateKind.ByteSource ? 8 : width) switch { 8 => (byte)value, 16 => (ushort)value, 32 => (uint)value, _ => value };
    }

    private static bool MakeDivisible(TemplateKind kind, ulong* registers, ulong divisor, int width)
    {
        if (divisor == 0)
            return false;
        if (width == 8)
        {
            ushort ax = (ushort)registers[0];
            if (kind == TemplateKind.Divide)
                return ax / divisor <= 255;
            int q8 = (short)ax / (sbyte)divisor;
            return q8 is >= -128 and <= 127;
        }
        ulong limit = width == 64 ? ulong.MaxValue : (1UL << width) - 1;
        if (kind == TemplateKind.Divide)
        {
            registers[2] = (registers[2] & ~limit) | ((registers[2] & limit) % divisor);
            return true;
        }
        Int128 dividend = (Int128)Sign(registers[2], width) << width | (Int128)(registers[0] & limit);
        Int128 quotient = dividend / Sign(divisor, width);
        return quotient >= -((Int128)1 << (width - 1)) && quotient < (Int128)1 << (width - 1);
    }

    private static long Sign(ulong value, int width) => width switch { 8 => (sbyte)value, 16 => (short)value, 32 => (int)value, _ => (long)value };

    private static bool Runs(InstructionTemplate t) => t.Feature is not { } f || HostProcessor.Has(f.Leaf, 0, f.Register, f.Bit);

    /// <summary>One instruction with random operands, both in a block with what follows and on its own.</summary>
    [SkippableFact]
    public void Every_integer_instruction_matches_the_host()
    {
        Skip.IfNot(HostProcessor.Available, "the host is not x86-64 Linux");
        using var host = new HostProcessor();
        using var guest = new GuestMachine(CpuModel.Load("bochs-skylake-x"));
        var random = new Random(20240611);
        List<InstructionTemplate> templates = [.. All.Where(Runs)];
        var failures = new StringBuilder();
        int done = 0;
        while (done < 24_000)
        {
            InstructionTemplate t = templates[done % templates.Count];
            Prepare(random, host);
            if (Encode(t, random, host.Registers, host.Scratch) is not { } c)
            {
                done += random.Next(2);
                continue;
            }
            Compare(host, guest, c, random, failures);
            done++;
            if (failures.Length > 4000)
                break;
        }
        failures.ToString().Should().BeEmpty();
    }

    /// <summary>Runs of instructions that hand flags to one another, with conditional branches between them.</summary>
    [SkippableFact]
    public void Flags_survive_between_instructions_as_on_the_host()
    {
        Skip.IfNot(HostProcessor.Available, "the host is not x86-64 Linux");
        using var host = new HostProcessor();
        using var guest = new GuestMachine(CpuModel.Load("bochs-skylake-x"));
        var random = new Random(77);
        string[] wanted = ["add", "or", "adc", "sbb", "and", "sub", "xor", "cmp", "test", "not", "neg", "inc", "dec", "rol", "ror", "rcl", "rcr", "shl", "shr", "sar", "set", "cmov", "mov", "lea", "cmc", "stc", "clc", "xadd", "cmpxchg"];
        List<InstructionTemplate> templates = [.. All.Where(t => Runs(t) && t.Vex < 0 && t.Prefix == 0 && t.Kind is TemplateKind.Plain or TemplateKind.Shift or TemplateKind.Rotate or TemplateKind.Address
            && wanted.Any(w => t.Name.StartsWith(w, StringComparison.Ordinal)) && !t.Name.StartsWith("cmpxchg16", StringComparison.Ordinal) && !t.Name.EndsWith(",cl", StringComparison.Ordinal))];
        var failures = new StringBuilder();
        for (int i = 0; i < 6_000 && failures.Length < 4000; i++)
        {
            Prepare(random, host);
            var code = new List<byte>();
            var text = new StringBuilder();
            for (int n = random.Next(2, 9); n > 0; n--)
            {
                if (random.Next(4) == 0)
                {
                    // jcc over a three-byte inc r8
                    int cc = random.Next(16);
                    code.AddRange([(byte)(0x70 + cc), 3, 0x49, 0xff, 0xc0]);
                    text.Append(CultureInfo.InvariantCulture, $"j{cc:x}; ");
                    continue;
                }
                if (Encode(templates[random.Next(templates.Count)], random, host.Registers, host.Scratch, countOfOne: true) is { } c)
                {
                    code.AddRange(c.Code);
                    text.Append(c.Text).Append("; ");
                }
            }
            Compare(host, guest, new Case([.. code], AF, text.ToString()), random, failures);
        }
        failures.ToString().Should().BeEmpty();
    }

    private static void Prepare(Random random, HostProcessor host)
    {
        for (int r = 0; r < 15; r++)
            host.Registers[r] = Value(random);
        host.Registers[16] = 0x202 | ((ulong)random.Next() & Arithmetic);
        for (int i = 0; i < ScratchSize; i += 8)
            *(ulong*)(host.Scratch + i) = Value(random);
        // CMPXCHG should succeed now and then.
        if (random.Next(2) == 0)
            *(ulong*)(host.Scratch + 8 * random.Next(6)) = host.Registers[0];
    }

    private static void Compare(HostProcessor host, GuestMachine guest, Case c, Random random, StringBuilder failures)
    {
        ulong* before = stackalloc ulong[17];
        byte* memory = stackalloc byte[ScratchSize];
        Buffer.MemoryCopy(host.Registers, before, 17 * 8, 17 * 8);
        Buffer.MemoryCopy(host.Scratch, memory, ScratchSize, ScratchSize);
        host.Registers[15] = (ulong)host.Scratch;
        host.Execute(c.Code);
        for (int alone = 0; alone < 2; alone++)
        {
            guest.Start(64, [.. c.Code, 0xf4]);
            for (int r = 0; r < 15; r++)
                if (r != 4)
                    guest.State->Gpr[r] = before[r];
            guest.State->Gpr[15] = GuestScratch;
            guest.Cpu.Rflags = before[16] & ~0x200UL;
            Buffer.MemoryCopy(memory, guest.Ram + GuestScratch, ScratchSize, ScratchSize);
            if (alone == 0)
                guest.Run(1000);
            else
                for (int i = 0; i < 40 && guest.State->Activity == ActivityState.Active; i++)
                    guest.Run(1);
            string difference = Difference(host, guest, c.Undefined);
            if (difference.Length == 0)
                continue;
            failures.Append(CultureInfo.InvariantCulture, $"{c.Text} [{Convert.ToHexString(c.Code)}] {(alone == 0 ? "block" : "single")}: {difference}; flags in {before[16]:x} rax {before[0]:x} rcx {before[1]:x} rdx {before[2]:x}\n");
            return;
        }
    }

    private static string Difference(HostProcessor host, GuestMachine guest, ulong undefined)
    {
        if (guest.Fault >= 0)
            return $"fault {guest.Fault}";
        var text = new StringBuilder();
        for (int r = 0; r < 15; r++)
            if (r != 4 && host.Registers[r] != guest.State->Gpr[r])
                text.Append(CultureInfo.InvariantCulture, $"r{r} {guest.State->Gpr[r]:x} host {host.Registers[r]:x} ");
        ulong flags = (guest.Cpu.Rflags ^ host.Registers[16]) & Arithmetic & ~undefined;
        if (flags != 0)
            text.Append(CultureInfo.InvariantCulture, $"flags differ in {flags:x} host {host.Registers[16] & Arithmetic:x} ");
        if (!new Span<byte>(host.Scratch, ScratchSize).SequenceEqual(new Span<byte>(guest.Ram + GuestScratch, ScratchSize)))
            text.Append("memory ");
        return text.ToString();
    }
}

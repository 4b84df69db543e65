using System.Globalization;
using System.Text;
using Iced.Intel;
using Kvm.Emulator.Tests.Differential;
using Xunit.Abstractions;

namespace Kvm.Arch.X86.Tests.Emulate;

/// <summary>
/// The kernel's instruction emulator and the processor give the same registers, flags (undefined ones too: they are one definition), memory and exceptions for every
/// instruction that the emulator knows: forced on memory, and with the operand in a device.
/// </summary>
public sealed class EmulatorAgainstProcessor(ITestOutputHelper output)
{
    private const int seed = 20261121, casesPerForm = 12;

    public static TheoryData<string, int> Guests => new() { { "intel", 64 }, { "amd", 64 }, { "intel", 32 }, { "amd", 32 }, { "intel", 16 }, { "amd", 16 } };

    /// <summary>Rows that leave the guest, change what the guest is, or that the emulator hands back in these modes.</summary>
    private static readonly HashSet<Mnemonic> apart =
    [
        Mnemonic.Iretd, Mnemonic.Iretq, Mnemonic.Fxsave64, Mnemonic.Fxrstor64,
        Mnemonic.Hlt, Mnemonic.In, Mnemonic.Out, Mnemonic.Insb, Mnemonic.Insw, Mnemonic.Insd, Mnemonic.Outsb, Mnemonic.Outsw, Mnemonic.Outsd,
        Mnemonic.Clts, Mnemonic.Invd, Mnemonic.Wbinvd, Mnemonic.Wrmsr, Mnemonic.Rdmsr, Mnemonic.Xsetbv, Mnemonic.Invlpg, Mnemonic.Lgdt, Mnemonic.Lidt, Mnemonic.Lmsw,
        Mnemonic.Monitor, Mnemonic.Mwait, Mnemonic.Vmrun, Mnemonic.Vmload, Mnemonic.Vmsave, Mnemonic.Stgi, Mnemonic.Clgi, Mnemonic.Skinit, Mnemonic.Invlpga,
        Mnemonic.Sysexit, Mnemonic.Syscall, Mnemonic.Sysenter, Mnemonic.Vmcall, Mnemonic.Vmmcall, Mnemonic.Rsm, Mnemonic.Lldt, Mnemonic.Ltr,
        Mnemonic.Rdtsc, Mnemonic.Rdpmc, Mnemonic.Rdpid, Mnemonic.Cpuid, Mnemonic.Cmpxchg16b,
    ];

    [Theory]
    [MemberData(nameof(Guests))]
    public void Every_row_gives_what_the_processor_gives(string vendor, int mode)
    {
        using var g = new ModeGuest(vendor, mode);
        var failures = new StringBuilder();
        int done = 0, failed = 0;
        foreach ((byte[] bytes, Action<EmulatedCase>? setup, int s) in Programs(mode))
        {
            if (failed > 40)
                break;
            var random = new Random(s);
            var c = new EmulatedCase(mode, bytes, random, new CaseGenerator(random));
            setup?.Invoke(c);
            done++;
            if (Compare(g, c) is not { } difference)
                continue;
            failed++;
            failures.Append(CultureInfo.InvariantCulture, $"{Disassemble(mode, bytes)} [{c}] seed {s}: {difference}\n");
        }

        output.WriteLine($"{done} cases, {failed} differences");
        failures.ToString().Should().BeEmpty();
    }

    /// <summary>No row of the table is left out of the comparison but those that cannot take part.</summary>
    [Fact]
    public void Every_row_is_compared_or_stands_apart()
    {
        HashSet<Mnemonic> compared = [];
        foreach (int mode in (int[])[64, 32, 16])
        {
            foreach ((byte[] bytes, _, _) in Programs(mode))
                compared.Add(Decode(mode, bytes).Mnemonic);
        }

        IEnumerable<Mnemonic> rows = Enum.GetValues<Code>().Where(c => c.ToOpCode().IsInstruction).Select(Sample).Where(i => EmulTable.Of(i) != EmulFlags.None)
            .Select(i => i.Mnemonic).Distinct();
        rows.Except(compared).Except(apart).Should().BeEmpty();
    }

    private static Instruction Sample(Code code)
    {
        Instruction i = default;
        i.Code = code;
        return i;
    }

    private static string? Compare(ModeGuest g, EmulatedCase c)
    {
        Outcome expected = c.OnProcessor(g);
        if (c.Emulated(g) is not { } emulated)
            return "not emulated";
        if (expected.Difference(emulated, false) is { } difference)
            return difference;
        Instruction i = Decode(g.Mode, c.Bytes);
        if (g.Mode != 64 || i.MemoryBase != Register.R15)
            return null;
        return c.OnDevice(g) is { } device ? expected.Difference(device, true) is { } d ? "in a device: " + d : null : "not emulated in a device";
    }

    private static Instruction Decode(int mode, byte[] bytes) => Iced.Intel.Decoder.Create(mode, bytes).Decode();

    private static string Disassemble(int mode, byte[] bytes) => Decode(mode, bytes).ToString();

    private static IEnumerable<(byte[] Bytes, Action<EmulatedCase>? Setup, int Seed)> Programs(int mode) =>
        mode == 64 ? Generated().Concat(EmulatedPrograms.Of(64, seed)) : EmulatedPrograms.Of(mode, seed);

    /// <summary>Random operands for every form whose operands are registers, memory and immediates, in 64-bit code.</summary>
    private static IEnumerable<(byte[] Bytes, Action<EmulatedCase>? Setup, int Seed)> Generated()
    {
        foreach (Code code in Enum.GetValues<Code>().Where(c => c.ToOpCode() is { IsInstruction: true, Mode64: true } && !apart.Contains(c.Mnemonic())))
        {
            for (int i = 0; i < casesPerForm; i++)
            {
                int s = unchecked(seed + (int)code * 1009 + i);
                var random = new Random(s);
                var generator = new CaseGenerator(random);
                if (generator.Encode(code, out Instruction instruction) is not { } bytes || !Takes(instruction = Decode(64, bytes)))
                    continue;
                yield return (bytes, Setup(instruction, random), s);
            }
        }
    }

    private static bool Takes(in Instruction i)
    {
        EmulFlags flags = EmulTable.Of(i);
        if (flags == EmulFlags.None || (flags & (EmulFlags.Branch | EmulFlags.StringOp)) != 0)
            return false;
        return i.Mnemonic is not (Mnemonic.Enter or Mnemonic.Leave or Mnemonic.Popfq or Mnemonic.Popf or Mnemonic.Xlatb or Mnemonic.Sti or Mnemonic.Lss or Mnemonic.Lfs or Mnemonic.Lgs)
            && i.Mnemonic is not (Mnemonic.Fxsave or Mnemonic.Fxrstor)
            // The prefix that makes it 16 bits wide is none that the kernel knows before it.
            && i.Code is not (Code.Movbe_r16_m16 or Code.Movbe_m16_r16)
            && !ZeroExtendsOnFailure(i) && !IsReservedPrefetch(i);
    }

    /// <summary>em_cmpxchg writes a register destination also when the comparison fails: the upper half of a 32-bit one is lost. The processor leaves it alone.</summary>
    private static bool ZeroExtendsOnFailure(in Instruction i) => i.Code == Code.Cmpxchg_rm32_r32 && i.Op0Kind == OpKind.Register;

    /// <summary>0F 0D with a register operand does nothing in the emulator; AMD's processors refuse it. 0F 19 to 0F 1E do nothing in a processor and are given up by the emulator.</summary>
    private static bool IsReservedPrefetch(in Instruction i) => i.Code.ToString() is var name && name.StartsWith("Reservednop", StringComparison.Ordinal)
        && !name.EndsWith("0F18", StringComparison.Ordinal) && !name.EndsWith("0F1F", StringComparison.Ordinal);

    private static Action<EmulatedCase>? Setup(in Instruction i, Random random)
    {
        int displacement = (int)i.MemoryDisplacement64;
        bool memory = i.MemoryBase == Register.R15;
        switch (i.Mnemonic)
        {
            case Mnemonic.Bt or Mnemonic.Bts or Mnemonic.Btr or Mnemonic.Btc when memory && i.Op1Kind == OpKind.Register:
                int bit = i.Op1Register.GetFullRegister().GetNumber();
                ulong index = (ulong)random.Next(128);
                return c => c.Set(bit, index);
            case Mnemonic.Cmpxchg or Mnemonic.Cmpxchg8b when memory && random.Next(2) == 0:
                bool pair = i.Mnemonic == Mnemonic.Cmpxchg8b;
                return c => c.ExpectMemory(displacement, pair);
            default:
                return null;
        }
    }
}

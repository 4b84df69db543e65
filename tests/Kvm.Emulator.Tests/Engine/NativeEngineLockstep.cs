using System.Globalization;
using System.Text;
using Kvm.Emulator.Vector;
using Xunit.Abstractions;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Emulator.Tests.Engine;

/// <summary>
/// The native engine does what the interpreter does: programs run on both, in slices of the same random budgets, with interrupts in between, and the state is compared
/// after each. KVM_TEST_PROGRAMS sets their number, KVM_TEST_SEED the first seed.
/// </summary>
public sealed unsafe class NativeEngineLockstep(ITestOutputHelper output)
{
    private const int defaultPrograms = 400, slices = 400;
    private const ulong status = 0x8d5, af = 0x10, handler = 0x3800, log = 0x20000;

    private static int Setting(string name, int otherwise) => int.TryParse(Environment.GetEnvironmentVariable(name), CultureInfo.InvariantCulture, out int value) ? value : otherwise;

    /// <summary>Flags exact at every boundary, interrupts included.</summary>
    [SkippableFact]
    public void Strictly_every_flag_is_the_same_at_every_stop() => Check("native,strict,threshold=0", definedFlags: true);

    [SkippableFact]
    public void Registers_and_memory_are_the_same_at_every_stop() => Check("native,threshold=0", definedFlags: false);

    /// <summary>Both engines take turns: blocks are translated when they have been executed a few times.</summary>
    [SkippableFact]
    public void Blocks_go_from_the_interpreter_to_host_code_in_between() => Check("native,threshold=3", definedFlags: false);

    /// <summary>Memory for little more than one block: all translations are dropped again and again, jumps into them included.</summary>
    [SkippableFact]
    public void Code_that_is_dropped_is_not_executed_again() => Check("native,threshold=0", definedFlags: false, 0x18000);

    [SkippableFact]
    public void Code_of_32_bits_strictly() => Check("native,strict,threshold=0", definedFlags: true, bits: 32);

    [SkippableFact]
    public void Code_of_32_bits() => Check("native,threshold=2", definedFlags: false, bits: 32);

    private void Check(string engine, bool definedFlags, int memory = 64 << 20, int bits = 64)
    {
        using var native = new GuestMachine(InstructionDifferentialModel, engine: EngineOptions.Parse(engine) with { CodeBytes = memory });
        Skip.If(native.Cpu.NativeEngine is null, "no native engine on this host");
        using var interpreter = new GuestMachine(InstructionDifferentialModel, engine: EngineOptions.Parse("interpreter"));
        int programs = Setting("KVM_TEST_PROGRAMS", defaultPrograms), seed = Setting("KVM_TEST_SEED", 6);
        var failures = new StringBuilder();
        int done = 0;
        int[] ends = new int[33];
        for (; done < programs && failures.Length < 3000; done++)
        {
            ends[native.Fault + 1]++;
            string? difference = One(native, interpreter, seed + done, bits, definedFlags, engine.Contains("strict", StringComparison.Ordinal));
            if (difference != null)
                failures.AppendLine(CultureInfo.InvariantCulture, $"seed {seed + done}: {difference}");
        }
        Native.NativeStatistics statistics = native.Cpu.NativeEngine!.Statistics;
        output.WriteLine($"{done} programs from seed {seed}; {native.State->InstructionsRetired} instructions; {statistics.Blocks} translations, exits {string.Join(' ', statistics.Exits)}; faults {string.Join(' ', ends.Select(static (n, v) => (n, v)).Where(static e => e.n != 0).Select(static e => $"{e.v - 1}:{e.n}"))}");
        failures.ToString().Should().BeEmpty();
        statistics.Blocks.Should().BeGreaterThan((ulong)done);
        if (memory < 1 << 20)
            native.Cpu.NativeEngine!.Generation.Should().BeGreaterThan((uint)done / 10);
    }

    private static CpuModel InstructionDifferentialModel => Differential.InstructionDifferential.Model;

    private static string? One(GuestMachine native, GuestMachine interpreter, int seed, int bits, bool definedFlags, bool strict)
    {
        byte[] program = bits == 64 ? new LockstepPrograms(new Random(seed), definedFlags).Make(20) : new LockstepPrograms32(new Random(seed)).Make(20);
        Start(native, program, seed, bits);
        Start(interpreter, program, seed, bits);
        var random = new Random(seed);
        for (int i = 0; i < slices; i++)
        {
            if (random.Next(4) == 0)
            {
                native.Cpu.RaiseInterrupt(0x41);
                interpreter.Cpu.RaiseInterrupt(0x41);
            }
            if (random.Next(4) == 0)
            {
                native.Cpu.CodeMayHaveChanged();
                interpreter.Cpu.CodeMayHaveChanged();
            }
            int budget = random.Next(3) == 0 ? random.Next(1, 40) : random.Next(1, 2000);
            StopReason reason = native.Run((ulong)budget), expected = interpreter.Run((ulong)budget);
            if (reason != expected)
                return $"slice {i}: {reason}, not {expected}; {Where(native, interpreter)}";
            bool halted = reason == StopReason.Halted;
            if (Difference(native, interpreter, strict || (halted && native.Fault < 0)) is { } difference)
                return $"slice {i} of {budget}, {reason}: {difference}; {Where(native, interpreter)}";
            if (halted)
                break;
        }
        return Memory(native, interpreter, strict);
    }

    private static string Where(GuestMachine native, GuestMachine interpreter) => string.Create(CultureInfo.InvariantCulture, $"at {native.State->Rip:x}, {interpreter.State->Rip:x}");

    private static void Start(GuestMachine guest, byte[] program, int seed, int bits)
    {
        var random = new Random(seed);
        guest.Restore();
        new Span<byte>(guest.Ram + GuestMachine.CodeBase, 0x8000).Clear();
        guest.Cpu.Code.CodeWritten(GuestMachine.CodeBase, 0x8000);
        new Span<byte>(guest.Ram + GuestMachine.StackTop - 0x2000, 0x2000).Clear();
        for (ulong i = 0; i < 0x3000; i += 8)
            *(ulong*)(guest.Ram + GuestMachine.DataBase + i) = (ulong)random.NextInt64(long.MinValue, long.MaxValue) >> random.Next(64);
        new Span<byte>(guest.Ram + log, 16).Clear();
        guest.Start(bits, program);
        // An interrupt counts, and notes the flags that it has found.
        guest.Load(handler, Handler(bits));
        guest.Load(LockstepPrograms32.Subroutine, [0x40, 0xc3]);
        *(ulong*)(guest.Ram + GuestMachine.Idt + (bits == 64 ? 0x410UL : 0x208)) = (handler & 0xffff) | (bits == 64 ? 0x10UL : 8) << 16 | 0x8e00UL << 32;
        CpuState* s = guest.State;
        for (int r = 0; r < 15; r++)
        {
            if (r != 4)
                s->Gpr[r] = random.Next(3) == 0 ? (ulong)random.Next(300) : (ulong)random.NextInt64(long.MinValue, long.MaxValue);
        }
        // The stack may cross a page now and then.
        s->Gpr[4] = GuestMachine.StackTop - (ulong)random.Next(2) * 8 - (random.Next(3) == 0 ? 0xfe0UL : 0);
        s->Gpr[bits == 64 ? 15 : 5] = LockstepPrograms.Data;
        guest.Segment(Seg.FS).Base = LockstepPrograms.Data + 0x20;
        for (int b = VectorUnit.FxXmm; b < 416; b += 8)
            *(ulong*)(s->Fx + b) = (ulong)random.NextInt64(long.MinValue, long.MaxValue) >> random.Next(20);
        *(ulong*)s->Fx = 0x37f;
        for (int b = 0; b < 256; b += 8)
            *(ulong*)(s->YmmHi + b) = (ulong)random.NextInt64();
        VectorUnit.Mxcsr(s) = 0x1f80 | (uint)random.Next(4) << 13 & (seed % 3 == 0 ? 0x6000u : 0);
        s->Cr0 = (s->Cr0 & ~(Cr0.EM | Cr0.TS)) | Cr0.NE | Cr0.MP;
        s->Cr4 |= Cr4.OSFXSR | Cr4.OSXMMEXCPT | Cr4.OSXSAVE;
        s->Xcr0 = 7;
        guest.Cpu.Rflags = 0x202 | ((ulong)random.Next() & status & ~af);
        guest.Cpu.UpdateMode();
    }

    private static byte[] Handler(int bits) => GuestMachine.Assemble(bits, handler, a =>
    {
        if (bits == 64)
        {
            a.inc(__qword_ptr[log]);
            a.push(rax);
            a.mov(rax, __qword_ptr[rsp + 24]);
            a.and(rax, ~(int)af);
            a.add(__qword_ptr[log + 8], rax);
            a.pop(rax);
            a.iretq();
        }
        else
        {
            a.inc(__dword_ptr[log]);
            a.push(eax);
            a.mov(eax, __dword_ptr[esp + 12]);
            a.and(eax, ~(int)af);
            a.add(__dword_ptr[log + 8], eax);
            a.pop(eax);
            a.iretd();
        }
    });

    private static string? Difference(GuestMachine native, GuestMachine interpreter, bool flags)
    {
        CpuState* s = native.State, t = interpreter.State;
        for (int r = 0; r < 16; r++)
            if (s->Gpr[r] != t->Gpr[r])
                return string.Create(CultureInfo.InvariantCulture, $"r{r} {s->Gpr[r]:x}, not {t->Gpr[r]:x}");
        if (s->Rip != t->Rip)
            return "RIP";
        ulong different = (native.Cpu.Rflags ^ interpreter.Cpu.Rflags) & ~(flags ? af : status);
        if (different != 0)
            return string.Create(CultureInfo.InvariantCulture, $"RFLAGS {native.Cpu.Rflags:x}, not {interpreter.Cpu.Rflags:x}");
        if (s->InstructionsRetired != t->InstructionsRetired)
            return string.Create(CultureInfo.InvariantCulture, $"{(long)(s->InstructionsRetired - t->InstructionsRetired)} more instructions");
        if (!new Span<byte>(s->Fx, 416).SequenceEqual(new Span<byte>(t->Fx, 416)) || !new Span<byte>(s->YmmHi, 256).SequenceEqual(new Span<byte>(t->YmmHi, 256)))
            return string.Create(CultureInfo.InvariantCulture, $"vector state, MXCSR {VectorUnit.Mxcsr(s):x} and {VectorUnit.Mxcsr(t):x}");
        return s->Cr2 != t->Cr2 ? "CR2" : null;
    }

    private static string? Memory(GuestMachine native, GuestMachine interpreter, bool strict)
    {
        for (ulong i = 0; i < GuestMachine.Size; i += 8)
        {
            ulong a = *(ulong*)(native.Ram + i), b = *(ulong*)(interpreter.Ram + i);
            // Stored flags: AF anywhere, and all of them where they need not be exact.
            bool image = i is >= GuestMachine.StackTop - 0x2000 and < GuestMachine.StackTop or log + 8;
            if (a != b && !(image && ((!strict && i == log + 8) || ((a ^ b) & ~(strict ? af : status)) == 0)))
                return string.Create(CultureInfo.InvariantCulture, $"memory at {i:x}: {a:x}, not {b:x}");
        }
        return null;
    }
}

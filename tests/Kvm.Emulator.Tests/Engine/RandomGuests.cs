using System.Diagnostics;
using System.Globalization;
using Kvm.Emulator.Vector;
using Xunit.Abstractions;

namespace Kvm.Emulator.Tests.Engine;

/// <summary>
/// No sequence of bytes makes the processor do anything but execute, fault or stop, within its instruction budget and in bounded time.
/// KVM_TEST_GUESTS sets the number of guests (over all modes), KVM_TEST_SEED the seed.
/// </summary>
public sealed unsafe class RandomGuests(ITestOutputHelper output)
{
    private const int budget = 300, defaultGuests = 21_000;
    private static readonly string[] modes = ["real", "virtual-8086", "protected", "protected user", "long", "long user", "compatibility"];

    public static TheoryData<string, VectorEngine> Modes
    {
        get
        {
            var data = new TheoryData<string, VectorEngine>();
            foreach (string mode in modes)
            {
                data.Add(mode, VectorEngine.Auto);
                data.Add(mode, VectorEngine.Managed);
            }
            return data;
        }
    }

    private static int Setting(string name, int otherwise) => int.TryParse(Environment.GetEnvironmentVariable(name), CultureInfo.InvariantCulture, out int value) ? value : otherwise;

    [Theory]
    [MemberData(nameof(Modes))]
    public void Random_bytes_in_every_mode(string mode, VectorEngine engine)
    {
        int guests = Setting("KVM_TEST_GUESTS", defaultGuests) / (2 * modes.Length), seed = Setting("KVM_TEST_SEED", 31);
        var random = new Random(seed + (Array.IndexOf(modes, mode) * 7919));
        using var guest = new GuestMachine(CpuModel.Load("bochs-skylake-x"), vectorEngine: engine);
        byte[] code = new byte[256];
        TimeSpan longest = TimeSpan.Zero;
        var ends = new Dictionary<StopReason, int>();
        for (int i = 0; i < guests; i++)
        {
            random.NextBytes(code);
            if (i % 3 == 0)
                Season(random, code);
            guest.Restore();
            Enter(guest, mode, code);
            Randomize(random, guest, i);
            long start = Stopwatch.GetTimestamp();
            StopReason end = guest.Run(budget);
            TimeSpan took = Stopwatch.GetElapsedTime(start);
            longest = took > longest ? took : longest;
            ends[end] = ends.GetValueOrDefault(end) + 1;
        }
        output.WriteLine($"{guests} guests in {mode} mode, seed {seed}, {engine}: {string.Join(", ", ends.Select(static e => $"{e.Value} {e.Key}"))}; longest {longest.TotalMilliseconds:F1} ms");
        guest.State->InstructionsRetired.Should().BeGreaterThan((ulong)guests);
        ends.GetValueOrDefault(StopReason.Shutdown).Should().BeLessThan(guests / 10 + 10, "each guest finds its tables and handlers whole, so few end in a triple fault");
        ends.Keys.Should().BeSubsetOf([StopReason.Halted, StopReason.Shutdown, StopReason.Budget]);
        longest.Should().BeLessThan(TimeSpan.FromSeconds(30), "a guest that only seems to run is stopped by its budget");
    }

    private static void Enter(GuestMachine guest, string mode, byte[] code)
    {
        int bits = mode switch { "real" => 16, "long" or "long user" or "compatibility" => 64, _ => 32 };
        guest.Start(bits, code);
        CpuState* s = guest.State;
        // Exceptions from user mode come to a stack of their own.
        *(uint*)(guest.Ram + GuestMachine.Tss + 4) = (uint)GuestMachine.StackTop;
        *(uint*)(guest.Ram + GuestMachine.Tss + 8) = bits == 64 ? 0 : 0x18u;
        switch (mode)
        {
            case "protected user": User(guest, 0x23, 0xc0fb, 0x2b, 0xc0f3); break;
            case "long user": User(guest, 0x33, 0xa0fb, 0x2b, 0xc0f3); break;
            case "compatibility": User(guest, 0x23, 0xc0fb, 0x2b, 0xc0f3); break;
            case "virtual-8086":
                for (Seg seg = Seg.ES; seg <= Seg.GS; seg++)
                    guest.Segment(seg) = new SegmentCache { Limit = 0xffff, AccessRights = 0xf3 };
                guest.Segment(Seg.CS) = new SegmentCache { Selector = (ushort)(GuestMachine.CodeBase >> 4), Base = GuestMachine.CodeBase, Limit = 0xffff, AccessRights = 0xf3 };
                s->Cpl = 3;
                s->Rip = 0;
                s->Gpr[4] = 0x8000;
                guest.Cpu.Rflags |= Flags.VM;
                break;
        }
    }

    private static void User(GuestMachine guest, ushort cs, uint csRights, ushort ss, uint ssRights)
    {
        for (Seg seg = Seg.ES; seg <= Seg.GS; seg++)
            guest.Segment(seg) = new SegmentCache { Selector = ss, Limit = uint.MaxValue, AccessRights = ssRights };
        guest.Segment(Seg.CS) = new SegmentCache { Selector = cs, Limit = uint.MaxValue, AccessRights = csRights };
        guest.State->Cpl = 3;
    }

    private static void Randomize(Random random, GuestMachine guest, int i)
    {
        CpuState* s = guest.State;
        for (int r = 0; r < 16; r++)
        {
            if (r != 4)
                s->Gpr[r] = random.Next(3) switch { 0 => (ulong)random.Next(64), 1 => GuestMachine.DataBase + (ulong)random.Next(0x100000), _ => (ulong)random.NextInt64() };
        }
        if (i % 5 == 0)
            guest.Cpu.Rflags = (guest.Cpu.Rflags & Flags.VM) | ((ulong)random.Next() & 0x40cd5);
        if (i % 2 == 0)
        {
            // The vector units are on, their state is anything.
            s->Cr0 = (s->Cr0 & ~(Cr0.EM | Cr0.TS)) | Cr0.NE | Cr0.MP;
            s->Cr4 |= Cr4.OSFXSR | Cr4.OSXMMEXCPT | Cr4.OSXSAVE;
            s->Xcr0 = 7;
            for (int b = 0; b < 416; b += 8)
                *(ulong*)(s->Fx + b) = (ulong)random.NextInt64(long.MinValue, long.MaxValue);
            *(ushort*)s->Fx = (ushort)(*(ushort*)s->Fx & 0x1f3f | 0x40);
            VectorUnit.Mxcsr(s) &= 0xffff;
        }
        guest.Cpu.UpdateMode();
    }

    // Prefixes and two-byte opcodes, more often than chance brings them.
    private static void Season(Random random, byte[] code)
    {
        byte[] interesting = [0x0f, 0x66, 0xf0, 0xf2, 0xf3, 0x67, 0x48, 0xc4, 0xc5, 0x64, 0xff, 0xf7, 0xc8, 0x8e, 0xa4, 0xab, 0xcf, 0xd9, 0xdb, 0xdd, 0x38, 0x3a];
        for (int i = 0; i < code.Length; i += random.Next(1, 6))
            code[i] = interesting[random.Next(interesting.Length)];
    }
}

namespace Kvm.Emulator.Tests.Engine;

/// <summary>No sequence of bytes makes the processor do anything but execute, fault or stop.</summary>
public sealed unsafe class RandomGuests
{
    [Theory]
    [InlineData(16)]
    [InlineData(32)]
    [InlineData(64)]
    public void Random_bytes_in_every_mode(int bits)
    {
        var random = new Random(bits * 31);
        using var guest = new GuestMachine(CpuModel.Load("bochs-skylake-x"));
        byte[] code = new byte[256];
        for (int i = 0; i < 3000; i++)
        {
            random.NextBytes(code);
            if (i % 3 == 0)
                Season(random, code);
            guest.Start(bits, code);
            for (int r = 0; r < 16; r++)
                if (r != 4)
                    guest.State->Gpr[r] = random.Next(3) switch { 0 => (ulong)random.Next(64), 1 => GuestMachine.DataBase + (ulong)random.Next(0x100000), _ => (ulong)random.NextInt64() };
            if (i % 5 == 0)
                guest.Cpu.Rflags = (ulong)random.Next() & 0x40cd5;
            guest.Cpu.UpdateMode();
            guest.Run(300);
        }
        guest.State->InstructionsRetired.Should().BeGreaterThan(10_000);
    }

    // Prefixes and two-byte opcodes, more often than chance brings them.
    private static void Season(Random random, byte[] code)
    {
        byte[] interesting = [0x0f, 0x66, 0xf0, 0xf2, 0xf3, 0x67, 0x48, 0xc4, 0x64, 0xff, 0xf7, 0xc8, 0x8e, 0xa4, 0xab, 0xcf];
        for (int i = 0; i < code.Length; i += random.Next(1, 6))
            code[i] = interesting[random.Next(interesting.Length)];
    }
}

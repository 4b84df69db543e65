using System.Diagnostics;
using Kvm.Abi;
using Xunit.Abstractions;

namespace Kvm.Arch.X86.Tests.Emulate;

/// <summary>The emulator is on the path of every device access: nothing is allocated, and the processor executes instructions whose form it knows.</summary>
public sealed unsafe class EmulatorCost(ITestOutputHelper output)
{
    private const int rounds = 20_000;

    [Theory]
    [InlineData("mov", new byte[] { 0x41, 0x89, 0x07 })]
    [InlineData("add", new byte[] { 0x41, 0x01, 0x07 })]
    [InlineData("lock cmpxchg", new byte[] { 0xf0, 0x41, 0x0f, 0xb1, 0x0f })]
    [InlineData("bts", new byte[] { 0x41, 0x0f, 0xba, 0x2f, 0x05 })]
    public void An_emulated_instruction_allocates_nothing(string name, byte[] code)
    {
        using var g = new ModeGuest("intel", 64);
        kvm_regs r = default;
        r.rip = ModeGuest.Code;
        r.rsp = ModeGuest.StackTop;
        r.r15 = ModeGuest.Data;
        r.rflags = 2;
        g.Guest.Regs = r;
        long allocated = long.MaxValue;
        double nanoseconds = double.MaxValue;
        g.Guest.OnVcpu(v =>
        {
            for (int round = 0; round < 5; round++)
            {
                long before = GC.GetAllocatedBytesForCurrentThread(), start = Stopwatch.GetTimestamp();
                for (int i = 0; i < rounds; i++)
                    v.EmulateInstructionFromBuffer(code);
                nanoseconds = Math.Min(nanoseconds, Stopwatch.GetElapsedTime(start).TotalNanoseconds / rounds);
                allocated = Math.Min(allocated, GC.GetAllocatedBytesForCurrentThread() - before);
            }

            return 1;
        });
        output.WriteLine($"{name}: {nanoseconds:f0} ns");
        allocated.Should().Be(0);
    }
}

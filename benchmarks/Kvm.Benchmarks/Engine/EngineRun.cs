using System.Globalization;
using Kvm.Emulator;

namespace Kvm.Benchmarks.Engine;

/// <summary>Runs kernels on a processor of the emulator, in long mode with the first gigabyte mapped one to one.</summary>
internal static unsafe partial class EngineRun
{
    [System.Runtime.InteropServices.LibraryImport("libc")]
    private static partial int clock_gettime(int clock, long* time);

    /// <summary>CPU seconds of this thread: does not count what other processes take.</summary>
    private static double ThreadSeconds()
    {
        const int CLOCK_THREAD_CPUTIME_ID = 3;
        long* time = stackalloc long[2];
        _ = clock_gettime(CLOCK_THREAD_CPUTIME_ID, time);
        return time[0] + (time[1] * 1e-9);
    }

    private sealed class Clock : IMachineBus
    {
        internal double Begin, End;
        public uint ReadPort(ushort port, int size) => uint.MaxValue;
        public ulong ReadMmio(ulong address, int size) => ulong.MaxValue;
        public void WriteMmio(ulong address, int size, ulong value) { }

        public void WritePort(ushort port, int size, uint value)
        {
            if (port != 0xe9)
                return;
            if ((byte)value == 'S')
                Begin = ThreadSeconds();
            else
                End = ThreadSeconds();
        }
    }

    /// <summary>CPU seconds between 'S' and 'E', and instructions retired.</summary>
    internal static (double Seconds, ulong Instructions) Once(EngineKernel kernel, uint divisor = 1, string? engine = null)
    {
        var clock = new Clock();
        using var machine = new Machine(MachineOptions.Uniform(CpuModel.IntelSkylake) with
        {
            Bus = clock,
            Engine = engine is null ? EngineOptions.Default : EngineOptions.Parse(engine),
        });
        const ulong size = 8 << 20, tables = 0x6000;
        var ram = (byte*)System.Runtime.InteropServices.NativeMemory.AlignedAlloc((nuint)size, 4096);
        try
        {
            System.Runtime.InteropServices.NativeMemory.Clear(ram, (nuint)size);
            machine.Memory.Map(0, size, ram);
            kernel.Assemble(divisor).CopyTo(new Span<byte>(ram + EngineKernel.CodeBase, 65536));
            *(ulong*)(ram + tables) = (tables + 0x1000) | 3;
            *(ulong*)(ram + tables + 0x1000) = (tables + 0x2000) | 3;
            for (ulong i = 0; i < 512; i++)
                *(ulong*)(ram + tables + 0x2000 + i * 8) = (i << 21) | 0x83;
            Processor cpu = machine.Processors[0];
            cpu.EnterKernelMode(new KernelContext { Cr3 = tables, StackTop = 0x1f000 });
            cpu.State->Rip = EngineKernel.CodeBase;
            cpu.Run();
            return (clock.End - clock.Begin, cpu.State->InstructionsRetired);
        }
        finally
        {
            System.Runtime.InteropServices.NativeMemory.AlignedFree(ram);
        }
    }

    /// <summary>Runs each kernel (or those named) and prints the best and median time and speed.</summary>
    internal static void Report(IReadOnlyList<string> names, int rounds)
    {
        var kernels = EngineKernel.All.Where(k => names.Count == 0 || names.Contains(k.Name)).ToList();
        foreach (EngineKernel kernel in kernels)
            Once(kernel, 10);
        Console.WriteLine("kernel      M instr   best s  median s   MIPS (median)");
        foreach (EngineKernel kernel in kernels)
        {
            var runs = Enumerable.Range(0, rounds).Select(_ => Once(kernel)).OrderBy(r => r.Seconds).ToList();
            (double median, ulong instructions) = runs[runs.Count / 2];
            Console.WriteLine(string.Format(CultureInfo.InvariantCulture, "{0,-8} {1,10:F1} {2,8:F3} {3,9:F3} {4,10:F0}", kernel.Name, instructions / 1e6, runs[0].Seconds, median, instructions / median / 1e6));
        }
    }
}

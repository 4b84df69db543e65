using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Text;

namespace Kvm.Emulator.Tests.Corpus;

/// <summary>Some ten thousand small programs around segments, gates, interrupts, tasks, privilege and virtual-8086 mode, with the outcome that Bochs 2.7 recorded for them.</summary>
public sealed unsafe class ProtectedModeCorpus
{
    private const int Seed = 20240611, Count = 13_000;

    private sealed class OutputBus : IMachineBus
    {
        public List<byte> Output { get; } = [];

        public uint ReadPort(ushort port, int size) => port == 0xe9 ? 0xe9u : size == 1 ? 0xff : size == 2 ? 0xffff : uint.MaxValue;

        public void WritePort(ushort port, int size, uint value)
        {
            if (port == 0xe9)
                Output.Add((byte)value);
        }

        public ulong ReadMmio(ulong address, int size) => ulong.MaxValue;
        public void WriteMmio(ulong address, int size, ulong value) { }
    }

    /// <summary>Runs an image on the emulator; at most <paramref name="bytes"/> of output.</summary>
    internal static byte[] Run(CpuModel model, byte[] rom, byte[] image, uint imageAddress, int bytes)
    {
        var bus = new OutputBus();
        using var machine = new Machine(MachineOptions.Uniform(model) with { Bus = bus });
        nuint ramSize = ((nuint)imageAddress + (nuint)image.Length + 0xfffff) & ~(nuint)0xfffff;
        byte* ram = (byte*)NativeMemory.AlignedAlloc(ramSize, 4096);
        byte* romCopy = (byte*)NativeMemory.AlignedAlloc((nuint)rom.Length, 4096);
        try
        {
            NativeMemory.Clear(ram, ramSize);
            image.CopyTo(new Span<byte>(ram + imageAddress, image.Length));
            rom.CopyTo(new Span<byte>(romCopy, rom.Length));
            // As on a PC, there is no RAM between 640 KiB and 1 MiB.
            machine.Memory.Map(0, 0xa0000, ram);
            machine.Memory.Map(0x100000, ramSize - 0x100000, ram + 0x100000);
            machine.Memory.Map(0xffff_0000, (ulong)rom.Length, romCopy);
            Processor cpu = machine.Processors[0];
            // Some thousand instructions a vector: a program that goes astray does not run on for ever.
            for (int left = bytes / 8; left > 0 && bus.Output.Count < bytes && cpu.Run(10_000) == StopReason.Budget; left--)
            {
            }
            return [.. bus.Output];
        }
        finally
        {
            NativeMemory.AlignedFree(ram);
            NativeMemory.AlignedFree(romCopy);
        }
    }

    [Fact]
    public void Every_vector_ends_as_recorded()
    {
        List<ProtectedVector> vectors = ProtectedGenerator.Generate(Seed, Count);
        byte[] rom = ProtectedRunner.Rom(), image = ProtectedRunner.Build(vectors);
        byte[] recorded = Recorded(image);
        byte[] found = Run(CpuModel.Load("bochs-skylake-x"), rom, image, ProtectedRunner.Image, (Count * 8) + 1);
        CorpusLine[] expected = ProtectedRunner.Parse(recorded), lines = ProtectedRunner.Parse(found.AsSpan(1));
        var report = new StringBuilder();
        int wrong = 0;
        for (int i = 0; i < Count; i++)
        {
            CorpusLine? line = i < lines.Length ? lines[i] : null;
            if (line == expected[i])
                continue;
            wrong++;
            if (report.Length < 10_000)
                report.AppendLine($"{i} {vectors[i].Name}: {Convert.ToHexString(vectors[i].Code)} cs {vectors[i].Cs:x} ended {line}, recorded {expected[i]}");
        }
        wrong.Should().Be(0, report.ToString());
    }

    /// <summary>With the path of Bochs in KVM_RECORD_WITH_BOCHS and that of a file in KVM_RECORD_TO, records anew; with the latter only, judges by that file.</summary>
    private static byte[] Recorded(byte[] image)
    {
        string? bochs = Environment.GetEnvironmentVariable("KVM_RECORD_WITH_BOCHS"), file = Environment.GetEnvironmentVariable("KVM_RECORD_TO");
        byte[] digest = SHA256.HashData(image);
        if (!string.IsNullOrEmpty(bochs) && !string.IsNullOrEmpty(file))
            File.WriteAllBytes(file, [.. digest, .. BochsRecorder.Run(bochs, ProtectedRunner.Rom, image, Count * 8)]);
        using Stream data = !string.IsNullOrEmpty(file) ? File.OpenRead(file) : typeof(ProtectedModeCorpus).Assembly.GetManifestResourceStream("Corpus.protected")!;
        var copy = new MemoryStream();
        data.CopyTo(copy);
        copy.ToArray().AsSpan(0, digest.Length).ToArray().Should().Equal(digest, "the recording belongs to these programs: whoever changes them records anew");
        return copy.ToArray()[digest.Length..];
    }
}

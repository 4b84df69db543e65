using System.Buffers.Binary;
using Iced.Intel;

namespace Kvm.Tool.Tests;

/// <summary>A file that <c>kvm run</c> boots: a multiboot image of a few instructions in 32-bit mode.</summary>
internal sealed class MultibootGuest : IDisposable
{
    private const uint Address = 0x100000, HeaderSize = 32, AddressesValid = 1 << 16, Magic = 0x1badb002;

    public MultibootGuest(Action<Assembler> program)
    {
        var c = new Assembler(32);
        program(c);
        using var image = new MemoryStream();
        Span<byte> header = stackalloc byte[(int)HeaderSize];
        uint[] fields = [Magic, AddressesValid, unchecked(0u - Magic - AddressesValid), Address, Address, 0, 0, Address + HeaderSize];
        for (int i = 0; i < fields.Length; i++) BinaryPrimitives.WriteUInt32LittleEndian(header[(i * 4)..], fields[i]);
        image.Write(header);
        c.Assemble(new StreamCodeWriter(image), Address + HeaderSize);
        Path = System.IO.Path.GetTempFileName();
        File.WriteAllBytes(Path, image.ToArray());
    }

    public string Path { get; }

    public void Dispose() => File.Delete(Path);
}

using System.Buffers.Binary;
using System.Text;
using Kvm.Client;
using Kvm.Client.Tests;
using Kvm.Vmm.Boot;
using Kvm.Vmm.Devices;

namespace Kvm.Vmm.Tests;

/// <summary>Firmware configuration: the directory of files, and DMA.</summary>
public sealed class FwCfgTests : IDisposable
{
    private const ulong Access = 0x1000, Target = 0x2000;
    private const uint Error = 1, Read = 2, Skip = 4, Select = 8, Write = 16;

    private readonly KvmSystem _kvm;
    private readonly Vm _vm;
    private readonly GuestRam _ram;
    private readonly FwCfg _fwCfg;

    public FwCfgTests()
    {
        _kvm = Kernels.Open("intel");
        _vm = _kvm.CreateVm();
        _ram = new GuestRam(_vm, 1 << 20);
        _fwCfg = new FwCfg(1 << 20, 1, _ram);
    }

    public void Dispose()
    {
        _ram.Dispose();
        _vm.Dispose();
        _kvm.Dispose();
    }

    [Fact]
    public void Directory_lists_files_with_size_key_and_name()
    {
        _fwCfg.AddFile("etc/one", new byte[] { 1, 2, 3 });
        _fwCfg.AddFile("etc/two", new byte[300]);
        byte[] directory = Item(0x19, 4 + 2 * 64 + 1);
        BinaryPrimitives.ReadUInt32BigEndian(directory).Should().Be(2);
        BinaryPrimitives.ReadUInt32BigEndian(directory.AsSpan(4)).Should().Be(3);
        ushort key = BinaryPrimitives.ReadUInt16BigEndian(directory.AsSpan(8));
        Encoding.ASCII.GetString(directory, 12, 56).TrimEnd('\0').Should().Be("etc/one");
        BinaryPrimitives.ReadUInt32BigEndian(directory.AsSpan(68)).Should().Be(300);
        Encoding.ASCII.GetString(directory, 76, 56).TrimEnd('\0').Should().Be("etc/two");
        Item(key, 4).Should().Equal(1, 2, 3, 0);
    }

    [Fact]
    public void Names_are_ascii_fit_their_field_and_are_given_once()
    {
        _fwCfg.AddFile(new string('n', 55), new byte[1]);
        foreach (string name in new[] { new string('n', 55), new string('m', 56), "", "ä" })
            _fwCfg.Invoking(f => f.AddFile(name, new byte[1])).Should().Throw<ArgumentException>();
    }

    [Fact]
    public void Version_and_signature_tell_of_dma_only_where_there_is_some()
    {
        Item(1, 1)[0].Should().Be(3);
        var signature = new byte[8];
        _fwCfg.Read(FwCfg.DmaPort, signature.AsSpan(0, 4));
        _fwCfg.Read(FwCfg.DmaPort + 4, signature.AsSpan(4, 4));
        signature.Should().Equal("QEMU CFG"u8.ToArray());

        var without = new FwCfg(1 << 20, 1);
        without.Write(0x510, [1, 0]);
        var version = new byte[1];
        without.Read(0x511, version);
        version[0].Should().Be(1);
        byte[] nothing = [0xff, 0xff, 0xff, 0xff];
        without.Read(FwCfg.DmaPort, nothing);
        nothing.Should().Equal(0xff, 0xff, 0xff, 0xff);
    }

    [Fact]
    public void Dma_selects_skips_and_reads_and_zeroes_follow_the_item()
    {
        _fwCfg.AddFile("f", new byte[] { 10, 11, 12, 13, 14 });
        Dma((uint)0x20 << 16 | Select | Skip, 2, 0).Should().Be(0);
        _ram.At(Target, 8).Fill(0xee);
        Dma(Read, 5, Target).Should().Be(0);
        _ram.At(Target, 6).ToArray().Should().Equal(12, 13, 14, 0, 0, 0xee);
        Dma((uint)0x20 << 16 | Select | Skip, 0xffffffff, 0).Should().Be(0);
        Dma(Read, 1, Target).Should().Be(0);
        _ram.At(Target, 1)[0].Should().Be(0);
    }

    /// <summary>What a guest asks for is checked: nothing outside RAM is touched, and the control word says so.</summary>
    [Theory]
    [InlineData(Read, 4u, 0xffffful)]
    [InlineData(Read, 4u, 0xffff_ffff_ffff_fffful)]
    [InlineData(Read, 0xffffffffu, 0ul)]
    [InlineData(Read, 0x100001u, 0ul)]
    [InlineData(Write, 4u, Target)]
    public void Dma_outside_ram_and_writing_are_errors(uint control, uint length, ulong address) => Dma(control, length, address).Should().Be(Error);

    [Fact]
    public void Dma_descriptor_outside_ram_is_ignored()
    {
        Span<byte> half = stackalloc byte[4];
        foreach (ulong at in new[] { 0xffff8ul, 0x100000ul, ulong.MaxValue - 3 })
        {
            BinaryPrimitives.WriteUInt32BigEndian(half, (uint)(at >> 32));
            _fwCfg.Write(FwCfg.DmaPort, half);
            BinaryPrimitives.WriteUInt32BigEndian(half, (uint)at);
            _fwCfg.Write(FwCfg.DmaPort + 4, half);
        }

        Item(0, 4).Should().Equal("QEMU"u8.ToArray());
    }

    private uint Dma(uint control, uint length, ulong address)
    {
        Span<byte> access = _ram.At(Access, 16);
        BinaryPrimitives.WriteUInt32BigEndian(access, control);
        BinaryPrimitives.WriteUInt32BigEndian(access[4..], length);
        BinaryPrimitives.WriteUInt64BigEndian(access[8..], address);
        Span<byte> half = stackalloc byte[4];
        BinaryPrimitives.WriteUInt32BigEndian(half, (uint)Access);
        _fwCfg.Write(FwCfg.DmaPort + 4, half);
        return BinaryPrimitives.ReadUInt32BigEndian(access);
    }

    private byte[] Item(ushort key, int count)
    {
        _fwCfg.Write(FwCfg.Port, BitConverter.GetBytes(key));
        var data = new byte[count];
        for (int i = 0; i < count; i++) _fwCfg.Read(FwCfg.Port + 1, data.AsSpan(i, 1));
        return data;
    }
}

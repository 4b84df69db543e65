namespace Kvm.Emulator.Tests.Corpus;

/// <summary>One case for <see cref="ProtectedRunner"/>: the state to start in, descriptors, gate, TSS fields, stack and data contents, and up to 16 bytes of code.</summary>
internal sealed class ProtectedVector
{
    public enum Start { OuterLevel, SameLevel, Virtual8086 }

    // Offsets in the record.
    public const uint CodeAt = 0, RegistersAt = 0x10, Cr4At = 0x2c, FrameAt = 0x30, KindAt = 0x54, DescriptorsAt = 0x58, GateAt = 0x78, StacksAt = 0x80, MapAt = 0x98, LinkAt = 0x9c,
        StackAt = 0xa0, DataAt = 0xd0, SysenterAt = 0xe0, Cr0At = 0xec, SecondTssAt = 0xf0;
    public const int Size = 0x190;

    public string Name { get; init; } = "";
    public byte[] Code { get; set; } = [];
    /// <summary>EAX EBX ECX EDX ESI EDI EBP.</summary>
    public uint[] Registers { get; } = new uint[7];
    public uint Cr0 { get; set; } = 0x11;
    public uint Cr4 { get; set; }
    public uint Eip { get; set; } = ProtectedRunner.Code;
    public ushort Cs { get; set; } = ProtectedRunner.Code0;
    public uint Eflags { get; set; } = 2;
    public uint Esp { get; set; } = ProtectedRunner.Stack + ProtectedRunner.StackOffset;
    public ushort Ss { get; set; } = ProtectedRunner.Data0;
    public ushort Es { get; set; } = ProtectedRunner.Data0;
    public ushort Ds { get; set; } = ProtectedRunner.Data0;
    public ushort Fs { get; set; } = ProtectedRunner.Data0;
    public ushort Gs { get; set; } = ProtectedRunner.Data0;
    public Start Kind { get; set; } = Start.SameLevel;
    public ulong[] Descriptors { get; } = new ulong[4];
    public ulong Gate { get; set; }
    /// <summary>ESP0 SS0 ESP1 SS1 ESP2 SS2 of the TSS.</summary>
    public uint[] Stacks { get; } = new uint[6];
    /// <summary>Dword 64H of the TSS: I/O map base in the upper half.</summary>
    public uint Map { get; set; } = 0x0088_0000;
    public ushort Link { get; set; }
    public uint[] Stack { get; } = new uint[12];
    public uint[] Data { get; } = new uint[4];
    public uint[] Sysenter { get; } = new uint[3];
    /// <summary>The 32-bit TSS of the second task, then the 16-bit one.</summary>
    public byte[] SecondTss { get; } = new byte[0x68 + 0x2c];

    /// <summary>Starts at CPL <paramref name="cpl"/> with the flat segments of that level.</summary>
    public void AtLevel(int cpl)
    {
        ushort data = (ushort)(ProtectedRunner.Data0 + (cpl * 16) + cpl);
        Cs = (ushort)(ProtectedRunner.Code0 + (cpl * 16) + cpl);
        Ss = data;
        Kind = cpl == 0 ? Start.SameLevel : Start.OuterLevel;
        Es = Ds = Fs = Gs = (ushort)(ProtectedRunner.Data0 + 0x30 + 3);
    }

    public void Write(Span<byte> to)
    {
        to.Clear();
        to[..16].Fill(0xcc);
        Code.CopyTo(to);
        Dwords(to[(int)RegistersAt..], Registers);
        Dwords(to[(int)Cr4At..], [Cr4, Eip, Cs, Eflags, Esp, Ss, Es, Ds, Fs, Gs, (uint)Kind]);
        for (int i = 0; i < 4; i++)
            BitConverter.TryWriteBytes(to[((int)DescriptorsAt + (i * 8))..], Descriptors[i]);
        BitConverter.TryWriteBytes(to[(int)GateAt..], Gate);
        Dwords(to[(int)StacksAt..], Stacks);
        Dwords(to[(int)MapAt..], [Map, Link]);
        Dwords(to[(int)StackAt..], Stack);
        Dwords(to[(int)DataAt..], Data);
        Dwords(to[(int)SysenterAt..], Sysenter);
        Dwords(to[(int)Cr0At..], [Cr0]);
        SecondTss.CopyTo(to[(int)SecondTssAt..]);
    }

    private static void Dwords(Span<byte> to, ReadOnlySpan<uint> values)
    {
        for (int i = 0; i < values.Length; i++)
            BitConverter.TryWriteBytes(to[(i * 4)..], values[i]);
    }
}

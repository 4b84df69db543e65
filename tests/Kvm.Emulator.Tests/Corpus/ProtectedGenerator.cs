using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Emulator.Tests.Corpus;

/// <summary>Makes <see cref="ProtectedVector"/>s of many kinds, at random but always the same for a seed.</summary>
internal sealed class ProtectedGenerator
{
    private readonly Random random;
    private ProtectedVector v = new();

    public ProtectedGenerator(int seed) => random = new Random(seed);

    private static readonly (string Name, Action<ProtectedGenerator> Make)[] Kinds =
    [
        ("segment load", g => g.SegmentLoad()),
        ("far transfer", g => g.FarTransfer()),
        ("far return", g => g.FarReturn()),
        ("iret", g => g.InterruptReturn()),
        ("interrupt", g => g.SoftwareInterrupt()),
        ("look", g => g.LookAtDescriptors()),
        ("access", g => g.DataAccess()),
        ("flags", g => g.FlagsAndPorts()),
        ("v86", g => g.Virtual8086()),
        ("task", g => g.TaskSwitch()),
        ("fast call", g => g.FastCall()),
        ("alignment", g => g.Alignment()),
        ("privileged", g => g.Privileged()),
    ];

    public static IReadOnlyList<string> KindNames => [.. Kinds.Select(k => k.Name)];

    /// <summary>Vectors of all kinds, in turn.</summary>
    public static List<ProtectedVector> Generate(int seed, int count)
    {
        var generator = new ProtectedGenerator(seed);
        var vectors = new List<ProtectedVector>(count);
        for (int i = 0; i < count; i++)
        {
            (string name, Action<ProtectedGenerator> make) = Kinds[i % Kinds.Length];
            generator.v = new ProtectedVector { Name = name };
            generator.Common();
            make(generator);
            generator.AvoidTargetsBeyondLimits();
            vectors.Add(generator.v);
        }
        return vectors;
    }

    /// <summary>Processors differ in whether a return address or an interrupt's frame has been written when the target turns out to lie beyond the limit of its segment.</summary>
    private void AvoidTargetsBeyondLimits()
    {
        if (v.Name is not ("interrupt" or "task" or "far transfer" or "v86"))
            return;
        for (int i = 0; i < 4; i++)
            if ((v.Descriptors[i] >> 43 & 3) == 3)
                v.Descriptors[i] = (v.Descriptors[i] & ~0xff00_00ff_ffff_0000ul) | 0x008f_0000_0000_ffff;
        for (int i = 0; i < v.Code.Length - 1; i++)
            if ((v.Code[i] & ~7) == ProtectedRunner.Code16 && v.Code[i + 1] == 0)
                v.Code[i] = (byte)ProtectedRunner.Code0;
        if ((v.Data[1] & 0xfff8) == ProtectedRunner.Code16)
            v.Data[1] = ProtectedRunner.Code0;
        v.Gate = WithoutCode16(v.Gate);
        for (int i = 0; i < 4; i++)
            if ((v.Descriptors[i] >> 44 & 1) == 0)
                v.Descriptors[i] = WithoutCode16(v.Descriptors[i]);
    }

    private static ulong WithoutCode16(ulong gate) => (gate >> 16 & 0xfff8) == ProtectedRunner.Code16 ? (gate & ~0xffff_0000ul) | ProtectedRunner.Code0 << 16 : gate;

    private int Next(int below) => random.Next(below);
    private bool Chance(int percent) => random.Next(100) < percent;
    private T Pick<T>(params T[] values) => values[random.Next(values.Length)];
    private uint Random32() => (uint)random.NextInt64();

    // ---- what every vector has ----

    private void Common()
    {
        for (int i = 0; i < 7; i++)
            v.Registers[i] = Random32();
        v.AtLevel(Pick(0, 0, 0, 1, 2, 3, 3, 3));
        for (int i = 0; i < 4; i++)
            v.Descriptors[i] = Descriptor();
        v.Gate = Gate();
        for (int i = 0; i < 3; i++)
        {
            v.Stacks[i * 2] = ProtectedRunner.Stack + 0x40u + ((uint)i * 4);
            v.Stacks[(i * 2) + 1] = Chance(85) ? (uint)(ProtectedRunner.Data0 + (i * 16) + i) : Selector();
        }
        v.Eflags = 2 | (uint)Next(4) << 12 | (Chance(20) ? 0x200u : 0) | (Chance(10) ? 0x400u : 0);
        for (int i = 0; i < 12; i++)
            v.Stack[i] = Random32();
        for (int i = 0; i < 4; i++)
            v.Data[i] = Random32();
        v.Sysenter[0] = Selector();
        v.Sysenter[1] = ProtectedRunner.Stack + 0x60;
        v.Sysenter[2] = ProtectedRunner.Target;
        FillSecondTss(valid: true);
    }

    private ushort Selector()
    {
        int kind = Next(20);
        if (kind < 11)
            return (ushort)(ProtectedRunner.Patch + (Next(4) * 8) + Next(4) + (Chance(25) ? 4 - ProtectedRunner.Patch : 0));
        return kind switch
        {
            11 => (ushort)Next(4),
            12 => (ushort)(Next(0x40) * 8 + Next(8)),
            13 => (ushort)random.Next(0x10000),
            14 => Pick<ushort>(ProtectedRunner.Conforming, ProtectedRunner.Data16 + 3, ProtectedRunner.Code16 + 3),
            15 => Pick<ushort>(ProtectedRunner.MainTss, ProtectedRunner.SecondTss, ProtectedRunner.SecondTss16, ProtectedRunner.LdtSelector),
            // Around the limits of the two tables.
            16 => Pick<ushort>(0x1f8, 0x200, 0x1c, 0x1f, 0x24),
            _ => (ushort)(0x08 + (Next(8) * 8) + Next(4)),
        };
    }

    private ulong Descriptor()
    {
        uint rights = (uint)Next(16) | (Chance(75) ? 0x10u : 0) | (uint)Next(4) << 5 | (Chance(85) ? 0x80u : 0) | (Chance(60) ? 0x4000u : 0) | (Chance(20) ? 0x1000u : 0);
        // Useful ones more often than chance would have it.
        if (Chance(40))
            rights = (rights & ~0x1fu) | Pick(0x13u, 0x12u, 0x1bu, 0x1au, 0x1fu, 0x19u, 0x11u, 0x17u, 0x16u);
        uint baseAddress = Chance(75) ? 0 : ProtectedRunner.DataSegment;
        uint limit = Pick(uint.MaxValue, uint.MaxValue, uint.MaxValue, uint.MaxValue, 0xfffffu, 0xffu, 0x80u, 0xfu, 0u);
        if ((rights & 0x10) == 0)
        {
            int type = (int)rights & 15;
            if (type is 4 or 5 or 6 or 7 or 12 or 14 or 15)
                return Gate(type, (int)rights >> 5 & 3, (rights & 0x80) != 0);
            limit = Pick(0x67u, 0x2bu, 0x2au, 0x66u, 0xfffu, 0x28u);
            baseAddress = ProtectedRunner.Tss2 + (Chance(50) ? 0 : 0x100u);
        }
        return BareMachine.Segment(baseAddress, limit, rights);
    }

    private ulong Gate() => Gate(Pick(5, 6, 7, 14, 15, 14, 15, 14, 15, 12, 4, Next(16)), Chance(80) ? 3 : Next(4), Chance(90));

    private ulong Gate(int type, int dpl, bool present)
    {
        ushort selector = Chance(45) ? (ushort)(Pick(0, 0, 0, 1, 2, 3) * 16 + ProtectedRunner.Code0 + Next(4)) : Chance(15) ? ProtectedRunner.Conforming : Selector();
        if (type == 5)
            selector = Chance(70) ? Pick<ushort>(ProtectedRunner.SecondTss, ProtectedRunner.SecondTss16, ProtectedRunner.MainTss) : Selector();
        return BareMachine.Gate(type, selector, Offset(), dpl, present, Next(5));
    }

    private uint Offset() => Pick(ProtectedRunner.Target, ProtectedRunner.Target, ProtectedRunner.Target, 0x80u, 0x81u, 0xffffu, 0x1_0090u, uint.MaxValue, ProtectedRunner.Target - ProtectedRunner.DataSegment);

    private void Assemble(Action<Assembler> write, int bits = 32)
    {
        var a = new Assembler(bits);
        write(a);
        using var stream = new MemoryStream();
        a.Assemble(new StreamCodeWriter(stream), ProtectedRunner.Code);
        v.Code = stream.ToArray();
    }

    /// <summary>Bytes, with an operand-size prefix now and then.</summary>
    private void Bytes(params byte[] bytes) => v.Code = Chance(25) ? [0x66, .. bytes] : bytes;

    private static byte[] Dword(uint value) => BitConverter.GetBytes(value);

    // ---- kinds ----

    private void SegmentLoad()
    {
        ushort selector = Selector();
        v.Registers[0] = selector;
        v.Data[0] = Chance(50) ? selector : Offset();
        v.Data[1] = selector;
        v.Stack[0] = selector | (Random32() << 16);
        byte segment = Pick<byte>(0, 2, 2, 3, 4, 5);
        switch (Next(4))
        {
            case 0: Bytes(0x8e, (byte)(0xc0 | segment << 3)); break;
            case 1: Bytes([0x8e, (byte)(0x05 | segment << 3), .. Dword(ProtectedRunner.DataSegment + 4)]); break;
            case 2:
                Bytes(segment switch { 0 => [0x07], 2 => [0x17], 3 => [0x1f], 4 => [0x0f, 0xa1], _ => [0x0f, 0xa9] });
                break;
            default:
                byte[] address = Dword(ProtectedRunner.DataSegment);
                Bytes(segment switch
                {
                    0 => [0xc4, 0x05, .. address],
                    3 => [0xc5, 0x05, .. address],
                    2 => [0x0f, 0xb2, 0x05, .. address],
                    4 => [0x0f, 0xb4, 0x05, .. address],
                    _ => [0x0f, 0xb5, 0x05, .. address],
                });
                break;
        }
    }

    private ushort CodeSelector() => Chance(40) ? (ushort)(ProtectedRunner.Code0 + (Next(4) * 16) + Next(4)) : Chance(10) ? ProtectedRunner.Conforming : Selector();

    private void FarTransfer()
    {
        ushort selector = CodeSelector();
        uint offset = Offset();
        v.Data[0] = offset;
        v.Data[1] = selector;
        bool call = Chance(60);
        if (call)
        {
            offset = ProtectedRunner.Target;
            v.Data[0] = offset;
        }
        if (Chance(30))
            v.Esp = ProtectedRunner.Stack + (uint)Next(0x90);
        if (Chance(50))
            Bytes([call ? (byte)0x9a : (byte)0xea, .. Dword(offset), .. BitConverter.GetBytes(selector)]);
        else
            Bytes([0xff, (byte)(call ? 0x1d : 0x2d), .. Dword(ProtectedRunner.DataSegment)]);
    }

    private void FarReturn()
    {
        int cpl = v.Cs & 3;
        int outer = Math.Min(3, cpl + Pick(0, 0, 1, 2, 3));
        v.Stack[0] = Offset();
        v.Stack[1] = Chance(50) ? (uint)(ProtectedRunner.Code0 + (outer * 16) + outer) : CodeSelector();
        int release = Pick(0, 0, 4, 8);
        int at = 2 + (release / 4);
        v.Stack[at] = ProtectedRunner.Stack + 0x20;
        v.Stack[at + 1] = Chance(60) ? (uint)(ProtectedRunner.Data0 + (outer * 16) + outer) : Selector();
        UseDataSelectors();
        if (release == 0)
            Bytes(0xcb);
        else
            Bytes(0xca, (byte)release, 0);
    }

    /// <summary>Data segments that a return to an outer level may have to drop.</summary>
    private void UseDataSelectors()
    {
        if ((v.Cs & 3) != 0)
            return;
        v.Descriptors[0] = BareMachine.Segment(0, uint.MaxValue, 0x4093 | (uint)Next(4) << 5);
        v.Descriptors[1] = BareMachine.Segment(0, uint.MaxValue, 0x409f | (uint)Next(4) << 5);
        v.Es = ProtectedRunner.Patch;
        v.Fs = ProtectedRunner.Patch + 8;
        v.Gs = (ushort)Next(4);
    }

    private void InterruptReturn()
    {
        FarReturn();
        uint eflags = 2 | (uint)Next(4) << 12 | (Chance(30) ? 0x200u : 0) | (Chance(10) ? 0x4000u : 0) | (Chance(10) ? 0x10000u : 0) | (Chance(20) ? 0x40000u : 0)
            | (Chance(20) ? 0x200000u : 0) | (Chance(20) ? 0x80000u : 0) | (Chance(20) ? 0x100000u : 0) | (uint)Next(256) & 0xd5;
        for (int i = 7; i > 2; i--)
            v.Stack[i] = v.Stack[i - 1];
        v.Stack[2] = eflags;
        v.Stack[3] = ProtectedRunner.Stack + 0x20;
        int outer = (int)v.Stack[1] & 3;
        v.Stack[4] = Chance(60) ? (uint)(ProtectedRunner.Data0 + (outer * 16) + outer) : Selector();
        if (Chance(15))
        {
            // To virtual-8086 mode (which CPL 0 only may do).
            v.Stack[0] = 0x80;
            v.Stack[1] = ProtectedRunner.Code >> 4;
            v.Stack[2] |= 0x20000;
            v.Stack[4] = ProtectedRunner.Stack >> 4;
            for (int i = 5; i < 9; i++)
                v.Stack[i] = ProtectedRunner.DataSegment >> 4;
        }
        Bytes(0xcf);
    }

    private void SoftwareInterrupt()
    {
        UseDataSelectors();
        if (Chance(20))
            v.Esp = ProtectedRunner.Stack + (uint)Next(0x30);
        v.Eflags |= Chance(20) ? 0x800u : 0;
        v.Code = Pick<byte[]>([0xcd, ProtectedRunner.GateVector], [0xcd, ProtectedRunner.GateVector], [0xcd, ProtectedRunner.GateVector], [0xcd, (byte)Next(256)], [0xcc], [0xce], [0xf1]);
        if (Chance(15))
            v.Link = Selector();
    }

    private void LookAtDescriptors()
    {
        ushort selector = Selector();
        v.Registers[0] = selector;
        v.Registers[1] = (uint)Next(0x10000);
        v.Data[0] = selector;
        byte mode = Pick<byte>(0xc0, 0x05);
        byte[] address = mode == 0x05 ? Dword(ProtectedRunner.DataSegment) : [];
        Bytes(Next(8) switch
        {
            0 => [0x0f, 0x02, (byte)(mode | 3 << 3), .. address],
            1 => [0x0f, 0x03, (byte)(mode | 3 << 3), .. address],
            2 => [0x0f, 0x00, (byte)(mode | 4 << 3), .. address],
            3 => [0x0f, 0x00, (byte)(mode | 5 << 3), .. address],
            4 => [0x63, (byte)(mode | 3 << 3), .. address],
            5 => [0x0f, 0x00, (byte)(mode | 2 << 3), .. address],
            6 => [0x0f, 0x00, (byte)(mode | 3 << 3), .. address],
            _ => [0x0f, (byte)Next(2), (byte)(mode | Pick(0, 1, 4) << 3), .. address],
        });
        // SGDT and SIDT have no register form.
        if (mode == 0xc0 && v.Code.Length == 3 && v.Code[1] == 1 && (v.Code[2] >> 3 & 7) < 4)
            v.Code = [0x0f, 0x01, 0xe0];
    }

    private void DataAccess()
    {
        // A segment that can be loaded, of either kind, and an offset near one of its edges.
        uint rights = Pick(0x93u, 0x91u, 0x97u, 0x95u, 0x9bu, 0x99u, 0x9fu) | 0x60 | (Chance(60) ? 0x4000u : 0);
        uint limit = Pick(0xffu, 0x80u, 0u, 0xfffu, uint.MaxValue);
        v.Descriptors[0] = BareMachine.Segment(ProtectedRunner.DataSegment, limit, rights);
        bool executeOnly = (rights & 0xa) == 8;
        if (!executeOnly)
            v.Ds = v.Es = v.Fs = (ushort)(ProtectedRunner.Patch + 3);
        else
            v.Ds = v.Es = v.Fs = ProtectedRunner.Data16 + 3;
        if (Chance(20))
            v.Fs = 0;
        // What an access over the end of 4 GiB does depends on the processor.
        uint edge = limit == uint.MaxValue ? Pick(0x40u, 0x80u) : Pick(limit, limit, 0u, 0xffffu, 0x40u);
        uint offset = edge - (uint)Next(9) + 4;
        v.Registers[1] = offset;
        v.Registers[5] = offset;
        v.Registers[4] = offset;
        byte size = Pick<byte>(0, 1, 1);
        Bytes(Next(10) switch
        {
            0 => [0x64, (byte)(0x8a + size), 0x03],
            1 => [0x64, (byte)(0x88 + size), 0x03],
            2 => [0x64, (byte)size, 0x03],
            3 => [0x67, 0x64, (byte)(0x8a + size), 0x07],
            4 => [(byte)(0xaa + size)],
            5 => [(byte)(0xa4 + size)],
            6 => [0x64, 0xff, 0x33],
            7 => [0x64, 0x8f, 0x03],
            8 => [0x64, 0x62, 0x03],
            _ => [0x64, 0x0f, 0xc7, 0x0b],
        });
        if (Chance(25) && !executeOnly && (rights & 8) == 0)
            UseAsStack(limit);
    }

    private void UseAsStack(uint limit)
    {
        int cpl = v.Cs & 3;
        uint rights = Pick(0x93u, 0x97u) | (uint)cpl << 5 | (Chance(60) ? 0x4000u : 0);
        v.Descriptors[1] = BareMachine.Segment(ProtectedRunner.DataSegment, limit, rights);
        v.Ss = (ushort)(ProtectedRunner.Patch + 8 + cpl);
        v.Esp = Pick(limit + 1, 4u, 0u, 2u, 0x10000u, 0x40u) - (uint)Next(3);
        // At the same level the frame of IRETD must fit.
        if (cpl == 0)
        {
            v.AtLevel(0);
            v.Esp = ProtectedRunner.Stack + ProtectedRunner.StackOffset;
        }
        Bytes(Pick<byte[]>([0x50], [0x58], [0x60], [0x61], [0x9c], [0x9d], [0xe8, 0x20, 0, 0, 0], [0xc3], [0xc9], [0x6a, 1]));
        if (v.Code.Length > 4)
            v.Code = [0xe8, 0x20, 0, 0, 0];
        // LEAVE finds its frame, and a return goes, where something is.
        v.Registers[6] = v.Esp;
        if (v.Code is [0xc3] or [0x66, 0xc3])
        {
            v.Stack[0] = 0x80;
            if (cpl != 0)
                v.Code = [0xc9];
        }
    }

    private void FlagsAndPorts()
    {
        v.Cr4 = Chance(40) ? Pick(1u, 2u, 3u, 4u, 8u) : 0;
        v.Eflags |= (Chance(30) ? 0x80000u : 0) | (Chance(30) ? 0x100000u : 0);
        v.Map = (uint)Pick(0x88, 0x88, 0x88, 0x68, 0x1ff, 0x1fe, 0x200, 0xffff, 0x1f0) << 16;
        v.Registers[3] = (uint)Pick(Next(0x200), Next(0x10000), 0xffff, 0xfffd);
        v.Stack[0] = (Random32() & 0x3f7fd7) & ~0x100u & ~0x20000u;
        Bytes(Pick<byte[]>([0xfa], [0xfb], [0x9c], [0x9d], [0xec], [0xed], [0xee], [0xef], [0xe4, (byte)Next(256)], [0xe5, (byte)Next(256)], [0x6c], [0x6e]));
        if (v.Code[^1] is >= 0xec and <= 0xef or 0x6c or 0x6e || v.Code.Length > 1 && v.Code[^2] is 0xe4 or 0xe5)
            KeepPortsHarmless();
    }

    /// <summary>No port that means anything to a machine: writes go to 80H (POST code) or are refused; reads leave nothing in the result.</summary>
    private void KeepPortsHarmless()
    {
        bool direct = v.Code.Length > 1 && v.Code[^2] is 0xe4 or 0xe5;
        bool allowed = (v.Cs & 3) <= (v.Eflags >> 12 & 3);
        if (direct)
            v.Code[^1] = allowed ? (byte)0x80 : v.Code[^1];
        if (!direct && (allowed || v.Registers[3] != 0x80))
            v.Registers[3] = allowed || Chance(50) ? 0x80 : v.Registers[3];
        // What a port of nobody's reads differs between machines: the value goes where nobody looks.
        v.Code = [.. v.Code, 0xb8, 0, 0, 0, 0];
        v.Registers[5] = ProtectedRunner.DataSegment + 0x50;
        v.Registers[4] = ProtectedRunner.DataSegment + 0x50;
    }

    private void Virtual8086()
    {
        v.Kind = ProtectedVector.Start.Virtual8086;
        v.Cr4 = Chance(60) ? 1u : 0;
        v.Cs = (ushort)(ProtectedRunner.Code >> 4);
        v.Eip = 0;
        v.Ss = (ushort)(ProtectedRunner.Stack >> 4);
        v.Esp = Pick(0x80u, 0x80u, 0x80u, 0x80u, 2u, 1u, 0u, 0xffffu) | (Chance(20) ? 0x120000u : 0);
        v.Ds = v.Es = v.Fs = v.Gs = (ushort)(ProtectedRunner.DataSegment >> 4);
        v.Eflags = (v.Eflags & ~0x3000u) | 0x20002 | (uint)Pick(0, 0, 3, 3, 1) << 12 | (Chance(30) ? 0x80000u : 0) | (Chance(30) ? 0x100000u : 0);
        v.Map = (uint)Pick(0x88, 0x88, 0x88, 0x1ff) << 16;
        v.Stack[0] = 0x80 | ProtectedRunner.Code >> 4 << 16;
        v.Stack[1] = (Random32() & 0x3f7fd7) & ~0x100u;
        byte[] bytes = Next(14) switch
        {
            0 or 1 or 2 => [0xcd, ProtectedRunner.GateVector],
            3 => [0xcd, (byte)Next(64)],
            4 => [0xcf],
            5 => [0x9c],
            6 => [0x9d],
            7 => [0xfa],
            8 => [0xfb],
            9 => [0x8e, Pick<byte>(0xc0, 0xd8, 0xe0, 0xe8)],
            10 => [0xcb],
            11 => [0x9a, 0x80, 0, 0, 0x70],
            12 => [0xea, 0x80, 0, 0, 0x70],
            _ => Pick<byte[]>([0x0f, 0x00, 0xc0], [0x0f, 0x02, 0xc0], [0xf4], [0x0f, 0x20, 0xc0], [0xcc], [0x63, 0xc0], [0x0f, 0x01, 0xe0], [0xa1, 0xff, 0xff], [0xff, 0x36, 0xff, 0xff]),
        };
        // Bochs reads the stack before it finds that the flags may not be changed, against the manual.
        if (bytes[0] is 0x9d)
            v.Esp = 0x80;
        v.Registers[0] = (uint)Next(0x10000);
        v.Code = Chance(20) && bytes[0] is not (0x9a or 0xea) ? [0x66, .. bytes] : bytes;
        if (bytes[0] is 0xcf)
        {
            v.Stack[0] = 0x80 | (uint)(ProtectedRunner.Code >> 4) << 16;
            if (v.Code[0] == 0x66)
            {
                v.Stack[0] = 0x80;
                v.Stack[1] = ProtectedRunner.Code >> 4;
                v.Stack[2] = (Random32() & 0x3f7fd7) & ~0x100u;
            }
        }
        // The program's own vector table: interrupts 0 to 63 lead to the target.
    }

    private void FillSecondTss(bool valid)
    {
        void Put32(int at, uint value) => BitConverter.TryWriteBytes(v.SecondTss.AsSpan(at), value);
        void Put16(int at, uint value) => BitConverter.TryWriteBytes(v.SecondTss.AsSpan(0x68 + at), (ushort)value);
        // One thing is wrong at most: the order in which a task switch checks is not the same in all processors.
        int cpl = Chance(60) ? 0 : Next(4), wrong = valid ? -1 : Next(10);
        ushort Data(int index, bool stack = false) => wrong == index ? Selector() : (ushort)(ProtectedRunner.Data0 + ((stack ? cpl : 3) * 16) + cpl);
        // CPL stays what the others go by.
        ushort code = wrong == 1 ? (ushort)((Selector() & ~3) | cpl) : (ushort)(ProtectedRunner.Code0 + (cpl * 16) + cpl);
        uint eflags = 2 | (uint)Next(4) << 12 | (Chance(20) ? 0x200u : 0) | (Chance(10) ? 0x4000u : 0) | (Chance(5) ? 0x20000u : 0) | (uint)Next(256) & 0xd5;
        uint eip = wrong == 6 ? Offset() : ProtectedRunner.Target;
        ushort[] segments = [Data(0), code, Data(2, stack: true), Data(3), Data(4), Data(5)];
        ushort ldt = wrong == 7 ? Selector() : Pick<ushort>(0, ProtectedRunner.LdtSelector);
        for (int i = 0; i < 3; i++)
        {
            Put32(4 + (i * 8), ProtectedRunner.Stack + 0x40u);
            Put32(8 + (i * 8), (uint)(ProtectedRunner.Data0 + (i * 16) + i));
        }
        Put32(0x20, eip);
        Put32(0x24, eflags);
        Put16(0x0e, (uint)Next(0x100));
        Put16(0x10, eflags);
        for (int i = 0; i < 8; i++)
        {
            uint value = i == 4 ? ProtectedRunner.Stack + 0x60u : Random32();
            Put32(0x28 + (i * 4), value);
            Put16(0x12 + (i * 2), value);
        }
        for (int i = 0; i < 6; i++)
            Put32(0x48 + (i * 4), segments[i] | (Random32() & 0xffff_0000 & (valid ? 0 : uint.MaxValue)));
        for (int i = 0; i < 4; i++)
            Put16(0x22 + (i * 2), segments[i]);
        Put32(0x60, ldt);
        Put16(0x2a, ldt);
        Put32(0x64, 0x0088_0000);
    }

    private void TaskSwitch()
    {
        FillSecondTss(valid: Chance(40));
        ushort selector = Chance(70) ? (ushort)(Pick(ProtectedRunner.SecondTss, ProtectedRunner.SecondTss, ProtectedRunner.SecondTss16) + Next(4) * (Chance(30) ? 1 : 0)) : Selector();
        v.Link = selector;
        switch (Next(5))
        {
            case 0:
                v.Code = [0xea, .. Dword(Offset()), .. BitConverter.GetBytes(selector)];
                break;
            case 1:
                v.Code = [0x9a, .. Dword(ProtectedRunner.Target), .. BitConverter.GetBytes(selector)];
                break;
            case 2:
                v.Gate = BareMachine.Gate(SegmentRights.TaskGate, selector, 0, dpl: 3, present: Chance(90));
                v.Code = [0xcd, ProtectedRunner.GateVector];
                break;
            case 3:
                v.Descriptors[0] = BareMachine.Gate(SegmentRights.TaskGate, selector, 0, dpl: Pick(3, 3, 3, 0), present: Chance(90));
                v.Code = [Pick<byte>(0xea, 0x9a), .. Dword(0), .. BitConverter.GetBytes((ushort)(ProtectedRunner.Patch + Next(4)))];
                break;
            default:
                // A nested task returns: the TSS it returns to must be busy.
                v.Descriptors[0] = BareMachine.Segment(Pick(ProtectedRunner.Tss2, ProtectedRunner.Tss2 + 0x100), 0x67, Pick(0x8bu, 0x83u, 0x89u, 0x0bu, 0x8bu));
                v.Link = Chance(80) ? (ushort)ProtectedRunner.Patch : selector;
                // The runner starts with IRETD, which would return at once: NT is set by code.
                v.Code = [0x9c, 0x80, 0x4c, 0x24, 0x01, 0x40, 0x9d, 0xcf];
                break;
        }
    }

    private void FastCall()
    {
        v.Registers[2] = Pick(ProtectedRunner.Stack + 0x40, 0u, uint.MaxValue);
        v.Registers[3] = ProtectedRunner.Target;
        v.Sysenter[0] = Pick<uint>(0, 3, ProtectedRunner.Code0, ProtectedRunner.Code0 + 3, 0x100, Selector());
        v.Code = Pick<byte[]>([0x0f, 0x34], [0x0f, 0x35], [0x0f, 0x34], [0x0f, 0x35], [0x0f, 0x05], [0x0f, 0x07]);
    }

    private void Alignment()
    {
        v.AtLevel(Pick(3, 3, 3, 3, 3, 0, 2));
        v.Cr0 = Chance(85) ? 0x4_0011u : 0x11;
        v.Eflags |= Chance(85) ? 0x4_0000u : 0;
        uint at = ProtectedRunner.DataSegment + (uint)Next(9);
        v.Registers[0] &= 0x1f;
        v.Registers[1] = at;
        v.Registers[4] = at;
        v.Registers[5] = at + 0x10 + (uint)Next(4);
        v.Esp = ProtectedRunner.Stack + 0x80 - (uint)Next(5);
        v.Data[0] = v.Data[1] = v.Data[2] = 0x0043_0043;
        for (int i = 0; i < 12; i++)
            v.Stack[i] = 0x0043_0043;
        Bytes(Pick<byte[]>([0x8a, 0x03], [0x8b, 0x03], [0x89, 0x03], [0x01, 0x03], [0x87, 0x03], [0xa5], [0xab], [0xaf], [0x50], [0x58], [0x60], [0x61], [0x9c], [0xff, 0x33], [0x8f, 0x03],
            [0xc5, 0x03], [0x0f, 0xb4, 0x03], [0x0f, 0x02, 0x03], [0x63, 0x03], [0x0f, 0x01, 0x03], [0x0f, 0x01, 0x0b], [0x0f, 0x00, 0x03], [0x0f, 0x01, 0x23], [0x62, 0x03],
            [0x0f, 0xa3, 0x03], [0x0f, 0xab, 0x03], [0x0f, 0xc7, 0x0b], [0x0f, 0xc1, 0x03], [0xc8, 8, 0, 0], [0xc9], [0xe8, 0x20, 0, 0, 0], [0x8e, 0x1b],
            [0xd7], [0xc3], [0xcb]));
        v.Registers[6] = ProtectedRunner.Stack + 0x80 - (uint)Next(5);
        if (v.Code is [0xc3] or [0x66, 0xc3])
            v.Stack.AsSpan().Clear();
    }

    private void Privileged()
    {
        int cpl = v.Cs & 3;
        byte[] bytes = Next(12) switch
        {
            0 => [0x0f, 0x20, (byte)(0xc0 | Next(8) << 3)],
            1 => [0x0f, 0x21, (byte)(0xc0 | Next(8) << 3)],
            2 => [0x0f, 0x06],
            3 => [0x0f, 0x01, 0x3d, .. Dword(ProtectedRunner.DataSegment)],
            4 => [0x0f, 0x32],
            5 => [0x0f, 0x08],
            6 => [0x0f, 0x09],
            7 => [0x0f, 0x01, 0xf0],
            8 => [0x0f, 0x01, 0xf8],
            9 => [0x0f, 0x01, 0x15, .. Dword(Templates)],
            10 => [0x0f, 0x22, (byte)(0xc0 | Pick(1, 5, 6, 7) << 3)],
            _ => [0x0f, 0x0b],
        };
        v.Registers[0] = 0x11;
        v.Registers[2] = Pick(0x174u, 0x10u, 0x7777u);
        v.Cr4 = Chance(30) ? 8u : 0;
        // Counters, and registers whose value is a matter of taste, must not reach the result.
        if (bytes[1] is 0x32 || bytes[1] is 0x20 or 0x21)
            bytes = [.. bytes, 0xb8, 0, 0, 0, 0, 0xba, 0, 0, 0, 0];
        if (cpl == 0 && bytes[1] is 0x32)
            v.Registers[2] = 0x174;
        // MOV from a register other than EAX is not made here.
        v.Code = bytes;
    }

    private const uint Templates = ProtectedRunner.Templates + 0x600;
}

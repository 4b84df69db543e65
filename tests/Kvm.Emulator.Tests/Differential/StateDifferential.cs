using System.Globalization;
using System.Text;
using Iced.Intel;
using Kvm.Emulator.Tests.Engine;
using Kvm.Emulator.Vector;
using Kvm.Interop;
using Xunit.Abstractions;

namespace Kvm.Emulator.Tests.Differential;

/// <summary>
/// Instructions that save and load state, masked moves and gathers give on the emulated processor what they give on the host's: memory, registers, exceptions.
/// KVM_TEST_CASES and KVM_TEST_SEED as for <see cref="InstructionDifferential"/>.
/// </summary>
/// <remarks>
/// Operands lie in two pages, with nothing behind them. Not compared: XSTATE_BV bits of components in their initial configuration (none is), what FXSAVE stores as
///MXCSR_MASK on a host with other optional bits, FIP and FDP above bit 47; the x87 state after a page fault of MASKMOVQ, which AMD's processors have
/// changed for MMX use by then.
/// </remarks>
[Collection("host signals")]
public sealed unsafe class StateDifferential(ITestOutputHelper output)
{
    private const int dataSize = 0x2000;
    private const ulong guestData = GuestMachine.DataBase;

    private static readonly string[] images =
    [
        "FXSAVE", "FXSAVE64", "FXRSTOR", "FXRSTOR64", "XSAVE", "XSAVE64", "XSAVEOPT", "XSAVEC", "XSAVEC64", "XRSTOR", "XRSTOR64", "FNSTENV", "FNSTENV16", "FLDENV", "FLDENV16",
        "FNSAVE", "FNSAVE16", "FRSTOR", "FRSTOR16", "LDMXCSR", "STMXCSR", "VLDMXCSR", "VSTMXCSR", "FLDCW", "FNSTCW", "FNINIT", "FNCLEX", "EMMS", "WAIT", "FNENI", "FNOP",
    ];

    private static readonly Code[] moves = [.. Enum.GetValues<Code>().Where(static c => c.Encoding() is EncodingKind.Legacy or EncodingKind.VEX
        && c.ToOpCode().IsInstruction && (c.Mnemonic().ToString().Contains("askmov", StringComparison.Ordinal) || c.Mnemonic().ToString().Contains("gather", StringComparison.OrdinalIgnoreCase)))];

    public static TheoryData<string> Images => [.. images];

    private static int Setting(string name, int otherwise) => int.TryParse(Environment.GetEnvironmentVariable(name), CultureInfo.InvariantCulture, out int value) ? value : otherwise;

    [SkippableTheory]
    [MemberData(nameof(Images))]
    public void State_images(string form) => Run(form, images.Length, (random, native) => Image(form, random, native.Data));

    public static TheoryData<Code> Moves => [.. moves];

    [SkippableTheory]
    [MemberData(nameof(Moves))]
    public void Masked_moves_and_gathers(Code code) => Run(code.ToString(), moves.Length, (random, native) => Move(code, random, native));

    private void Run(string name, int forms, Func<Random, NativeProcessor, byte[]> make)
    {
        Skip.If(NativeProcessor.Missing is not null, NativeProcessor.Missing);
        Skip.IfNot(System.Runtime.Intrinsics.X86.Avx2.IsSupported && HostXsave, "the host lacks XSAVEC or AVX2");
        int cases = Math.Max(200, Setting("KVM_TEST_CASES", 60_000) / (images.Length + moves.Length)), seed = Setting("KVM_TEST_SEED", 20261121);
        using var native = new NativeProcessor();
        LibC.mprotect(native.Data + dataSize, 0x2000, 0);
        using var guest = new GuestMachine(Model);
        guest.Start(64, [0xf4]);
        EndMemory(guest);
        var text = new StringBuilder();
        int differences = 0;
        for (int i = 0; i < cases && differences < 5; i++)
        {
            int caseSeed = unchecked(seed + i * 7919 + name.Sum(static c => c) * 104729);
            // A task switch of the host in the middle of a case loses the x87 pointers on AMD's processors.
            if (Case(make, native, guest, caseSeed) is null || Case(make, native, guest, caseSeed) is not { } difference)
                continue;
            differences++;
            text.Append(CultureInfo.InvariantCulture, $"case {i} {difference}\n");
        }
        output.WriteLine($"{name}: {cases} cases of {forms} forms, seed {seed}: {differences} differences");
        text.ToString().Should().BeEmpty();
    }

    private static string? Case(Func<Random, NativeProcessor, byte[]> make, NativeProcessor native, GuestMachine guest, int seed)
    {
        var random = new Random(seed);
        Prepare(native.State, native.Data, random);
        byte[] code = make(random, native);
        return Compare(native, guest, code) is { } difference ? $"{Convert.ToHexString(code)}: {difference}" : null;
    }

    // ---- processors ----

    private static (uint Eax, uint Ebx, uint Ecx, uint Edx) Cpuid(uint leaf, int subleaf = 0)
    {
        (int a, int b, int c, int d) = System.Runtime.Intrinsics.X86.X86Base.CpuId(unchecked((int)leaf), subleaf);
        return ((uint)a, (uint)b, (uint)c, (uint)d);
    }

    private static bool HostXsave => (Cpuid(1).Ecx >> 27 & 1) != 0 && (Cpuid(0xd, 1).Eax & 3) == 3;

    /// <summary>The host's vendor, and what it says of pointers, selectors and MXCSR.</summary>
    private static readonly CpuModel Model = HostIsAmd
        ? CpuModel.AmdZen.With(cpuid: static (leaf, subleaf, d) => (leaf, subleaf) switch
        {
            (0x80000008, 0) => d with { Ebx = (d.Ebx & ~4u) | (Cpuid(0x80000008).Ebx & 4) },
            (0x80000001, 0) => d with { Ecx = (d.Ecx & ~0x80u) | (Cpuid(0x80000001).Ecx & 0x80) },
            _ => d,
        })
        : CpuModel.IntelSkylake.With(cpuid: static (leaf, subleaf, d) => (leaf, subleaf) == (7, 0) ? d with { Ebx = (d.Ebx & ~0x2000u) | (Cpuid(7).Ebx & 0x2000) } : d);

    private static bool HostIsAmd => Cpuid(0).Ebx == 0x68747541;

    /// <summary>4 KiB pages; those behind the operands are not there.</summary>
    private static void EndMemory(GuestMachine guest)
    {
        const ulong table = 0x9000;
        ulong* entries = (ulong*)(guest.Ram + table);
        for (ulong i = 0; i < 512; i++)
            entries[i] = i << 12 | (i < (guestData + dataSize) >> 12 ? 7UL : 0);
        *(ulong*)(guest.Ram + GuestMachine.PageTables + 0x2000) = table | 7;
        guest.Cpu.Mmu.FlushAll();
    }

    // ---- cases ----

    private static void Prepare(HostState* s, byte* data, Random random)
    {
        for (int r = 0; r < 16; r++)
            s->Gpr[r] = (ulong)random.NextInt64();
        s->Gpr[15] = (ulong)data;
        s->Rflags = 0x202;
        random.NextBytes(new Span<byte>(s->Fx, 512));
        random.NextBytes(new Span<byte>(s->YmmHi, 256));
        random.NextBytes(new Span<byte>(data, dataSize));
        *(ushort*)s->Fx = (ushort)(random.Next() & 0xf7f | 0x40);
        // Now and then an exception is pending.
        *(ushort*)(s->Fx + 2) = (ushort)(random.Next() & 0x7f40 | (random.Next(3) == 0 ? random.Next(64) : 0));
        *(ulong*)(s->Fx + 8) &= 0x7fff_ffff_ffff;
        *(ulong*)(s->Fx + 16) &= 0x7fff_ffff_ffff;
        *(uint*)(s->Fx + 24) = (uint)(random.Next() & 0xffff);
        for (int i = 0; i < 8; i++)
            new Span<byte>(s->Fx + 42 + i * 16, 6).Clear();
    }

    /// <summary>0F AE and its relatives at [R15 + offset].</summary>
    private static byte[] Image(string form, Random random, byte* data)
    {
        bool wide = form.EndsWith("64", StringComparison.Ordinal), narrow = form.EndsWith("16", StringComparison.Ordinal);
        string name = wide || narrow ? form[..^2] : form;
        (byte[] opcode, int reg, int alignment, int size)? memory = name switch
        {
            "FXSAVE" => ([0x0f, 0xae], 0, 16, 512),
            "FXRSTOR" => ([0x0f, 0xae], 1, 16, 512),
            "XSAVE" => ([0x0f, 0xae], 4, 64, 832),
            "XRSTOR" => ([0x0f, 0xae], 5, 64, 832),
            "XSAVEOPT" => ([0x0f, 0xae], 6, 64, 832),
            "XSAVEC" => ([0x0f, 0xc7], 4, 64, 832),
            "LDMXCSR" => ([0x0f, 0xae], 2, 1, 4),
            "STMXCSR" => ([0x0f, 0xae], 3, 1, 4),
            "FLDENV" => ([0xd9], 4, 1, 28),
            "FNSTENV" => ([0xd9], 6, 1, 28),
            "FRSTOR" => ([0xdd], 4, 1, 108),
            "FNSAVE" => ([0xdd], 6, 1, 108),
            "FLDCW" => ([0xd9], 5, 1, 2),
            "FNSTCW" => ([0xd9], 7, 1, 2),
            _ => null,
        };
        int offset = random.Next(8) == 0 ? dataSize - random.Next(0x400) : random.Next(0x200);
        if (memory is not { } m)
            return name switch
            {
                "VLDMXCSR" => Vex(2, offset = Mxcsr(offset)),
                "VSTMXCSR" => Vex(3, offset),
                "FNINIT" => [0xdb, 0xe3],
                "FNCLEX" => [0xdb, 0xe2],
                "EMMS" => [0x0f, 0x77],
                "WAIT" => [0x9b],
                "FNENI" => [0xdb, 0xe0],
                _ => [0xd9, 0xd0],
            };
        if (random.Next(10) != 0)
            offset &= ~(m.alignment - 1);
        if (offset < 0x1000)
            Area(name, random, data + offset, size: m.size);
        if (name == "LDMXCSR")
            Mxcsr(offset);
        return [.. narrow ? new byte[] { 0x66 } : [], (byte)(wide ? 0x49 : 0x41), .. m.opcode, (byte)(0x87 | m.reg << 3), .. BitConverter.GetBytes(offset)];

        byte[] Vex(int reg, int at) => [0xc4, 0xc1, 0x78, 0xae, (byte)(0x87 | reg << 3), .. BitConverter.GetBytes(at)];

        int Mxcsr(int at)
        {
            if (at + 4 <= dataSize)
                *(uint*)(data + at) &= random.Next(4) == 0 ? 0x7_ffffu : 0xffff;
            return at;
        }
    }

    /// <summary>Bits of XSTATE_BV that no processor has, and XCOMP_BV's format bit.</summary>
    private static readonly int[] absent = [3, 4, 30, 45, 60, 62, 63];

    /// <summary>Makes an area that is mostly acceptable.</summary>
    private static void Area(string name, Random random, byte* at, int size)
    {
        if (size < 512)
            return;
        *(uint*)(at + 24) = (uint)random.Next() & (random.Next(8) == 0 ? 0x7_ffffu : 0xffff);
        *(ulong*)(at + 8) &= 0x7fff_ffff_ffff;
        *(ulong*)(at + 16) &= 0x7fff_ffff_ffff;
        if (name != "XRSTOR")
            return;
        bool compacted = random.Next(2) == 0;
        ulong layout = compacted ? 1UL << 63 | (uint)random.Next(8) : 0;
        *(ulong*)(at + 512) = (ulong)random.Next(8) & (compacted ? layout : ulong.MaxValue);
        *(ulong*)(at + 520) = layout;
        new Span<byte>(at + 528, 48).Clear();
        switch (random.Next(16))
        {
            case 0: *(ulong*)(at + 512) |= 1UL << absent[random.Next(absent.Length)]; break;
            case 1: *(ulong*)(at + 520) ^= 1UL << absent[random.Next(absent.Length)]; break;
            case 2: at[528 + random.Next(48)] = 1; break;
        }
    }

    private static byte[] Move(Code code, Random random, NativeProcessor native)
    {
        HostState* s = native.State;
        OpCodeInfo info = code.ToOpCode();
        Instruction instruction = default;
        instruction.Code = code;
        int[] registers = [.. Enumerable.Range(0, 16).OrderBy(_ => random.Next()).Take(3)];
        bool gather = code.Mnemonic().ToString().Contains("gather", StringComparison.OrdinalIgnoreCase);
        int end = gather ? 64 + random.Next(64) : random.Next(3) == 0 ? dataSize - random.Next(40) : random.Next(64);
        for (int i = 0; i < info.OpCount; i++)
        {
            string kind = info.GetOpKind(i).ToString();
            if (kind == "seg_rDI")
            {
                instruction.SetOpKind(i, OpKind.MemorySegRDI);
                s->Gpr[7] = (ulong)(native.Data + end);
            }
            else if (kind.StartsWith("mem", StringComparison.Ordinal))
            {
                instruction.SetOpKind(i, OpKind.Memory);
                instruction.MemoryBase = Register.R15;
                instruction.MemoryDisplacement64 = (ulong)end;
                instruction.MemoryDisplSize = 8;
                if (gather)
                {
                    instruction.MemoryIndex = (kind.EndsWith('y') ? Register.YMM0 : Register.XMM0) + registers[2];
                    instruction.MemoryIndexScale = 1 << random.Next(4);
                }
            }
            else
            {
                instruction.SetOpKind(i, OpKind.Register);
                int n = kind.EndsWith("vvvv", StringComparison.Ordinal) ? registers[1] : kind.EndsWith("rm", StringComparison.Ordinal) ? registers[2] : registers[0];
                instruction.SetOpRegister(i, kind.StartsWith("mm", StringComparison.Ordinal) ? Register.MM0 + (n & 7) : (kind.StartsWith("ymm", StringComparison.Ordinal) ? Register.YMM0 : Register.XMM0) + n);
            }
        }
        if (gather)
            Indices(s, registers[2], code.ToOpCode().ToString().Contains("vm64", StringComparison.Ordinal), instruction.MemoryIndexScale, random);
        var writer = new ByteWriter();
        Iced.Intel.Encoder.Create(64, writer).Encode(instruction, 0);
        return [.. writer.Bytes];
    }

    /// <summary>Mostly within the two pages, now and then outside.</summary>
    private static void Indices(HostState* s, int register, bool wide, int scale, Random random)
    {
        for (int i = 0; i < (wide ? 4 : 8); i++)
        {
            long index = random.Next(12) == 0 ? dataSize / scale + random.Next(64) : random.Next((dataSize - 0x80) / scale) - random.Next(8) / scale;
            byte* at = i * (wide ? 8 : 4) is var offset && offset < 16 ? s->Fx + 160 + register * 16 + offset : s->YmmHi + register * 16 + offset - 16;
            if (wide)
                *(long*)at = index;
            else
                *(int*)at = (int)index;
        }
    }

    private sealed class ByteWriter : CodeWriter
    {
        internal readonly List<byte> Bytes = [];

        public override void WriteByte(byte value) => Bytes.Add(value);
    }

    // ---- comparison ----

    private static string? Compare(NativeProcessor native, GuestMachine guest, byte[] code)
    {
        guest.Start(64, code);
        CpuState* s = guest.State;
        for (int r = 0; r < 16; r++)
        {
            ulong value = native.State->Gpr[r];
            s->Gpr[r] = value - (ulong)native.Data < 2 * dataSize ? value - (ulong)native.Data + guestData : value;
        }
        s->Gpr[4] = GuestMachine.StackTop;
        (native.State->Gpr[0], native.State->Gpr[2]) = (native.State->Gpr[0] & 7, 0);
        (s->Gpr[0], s->Gpr[2]) = (native.State->Gpr[0], 0);
        s->Cr0 = (s->Cr0 & ~(Cr0.EM | Cr0.TS)) | Cr0.NE | Cr0.MP;
        s->Cr4 |= Cr4.OSFXSR | Cr4.OSXMMEXCPT | Cr4.OSXSAVE;
        s->Xcr0 = 7;
        guest.Cpu.Rflags = 2;
        Buffer.MemoryCopy(native.State->Fx, s->Fx, 512, 512);
        s->FxCs = s->FxDs = 0;
        s->MxcsrHigh = 0;
        X87State.UpdateSummary(s);
        X87State.Opcode(s) &= 0x7ff;
        s->Fx[5] = 0;
        Buffer.MemoryCopy(native.State->YmmHi, s->YmmHi, 256, 256);
        Buffer.MemoryCopy(native.Data, guest.Ram + guestData, dataSize, dataSize);
        native.Execute(code);
        guest.Run(1);
        return Difference(native, guest, code.Length, mmx: code is [0x0f, 0xf7, _]);
    }

    private static string? Difference(NativeProcessor native, GuestMachine guest, int length, bool mmx)
    {
        HostState* h = native.State;
        CpuState* s = guest.State;
        int hostFault = (int)h->Fault - 1, fault = s->Rip == GuestMachine.CodeBase + (ulong)length ? -1 : guest.PendingVector;
        if (hostFault != fault)
            return string.Create(CultureInfo.InvariantCulture, $"exception {fault}, host {hostFault}");
        var text = new StringBuilder();
        if (fault == Fault.PF && mmx)
            return null;
        Bytes("fcw fsw ftw", h->Fx, s->Fx, 5);
        if (*(uint*)(h->Fx + 24) != guest.Cpu.MxcsrValue)
            text.Append(CultureInfo.InvariantCulture, $"mxcsr {guest.Cpu.MxcsrValue:x} host {*(uint*)(h->Fx + 24):x} ");
        Bytes("st", h->Fx + 32, s->Fx + 32, 128);
        Bytes("xmm", h->Fx + 160, s->Fx + 160, 256);
        Bytes("ymm", h->YmmHi, s->YmmHi, 256);
        Bytes("memory", native.Data, guest.Ram + guestData, dataSize);
        return text.Length == 0 ? null : text.ToString();

        void Bytes(string name, byte* host, byte* here, int size)
        {
            int at = new Span<byte>(host, size).CommonPrefixLength(new Span<byte>(here, size));
            if (at < size)
                text.Append(CultureInfo.InvariantCulture, $"{name}+{at:x} {Convert.ToHexString(new Span<byte>(here + at, Math.Min(8, size - at)))} host {Convert.ToHexString(new Span<byte>(host + at, Math.Min(8, size - at)))} ");
        }
    }
}

using Kvm.Abi;
using static Kvm.Abi.Uapi;

namespace Kvm.Arch.X86.Tests.Emulate;

/// <summary>What emulate.c cannot do ends with KVM_INTERNAL_ERROR_EMULATION, and nothing else does.</summary>
public sealed unsafe class EmulatedOpcodes
{
    public static TheoryData<string, int> Guests => EmulatorAgainstProcessor.Guests;

    [Theory]
    [MemberData(nameof(Guests))]
    public void The_emulator_gives_up_on_what_the_kernels_gives_up_on(string vendor, int mode)
    {
        using var g = new ModeGuest(vendor, mode);
        var failures = new SortedDictionary<string, string>(StringComparer.Ordinal);
        foreach ((byte prefix, byte[] opcode, byte modrm) in Encodings())
        {
            if (GivenUpLater(mode, opcode, modrm))
                continue;
            byte[] bytes = [.. prefix == 0 ? Array.Empty<byte>() : [prefix], .. opcode, modrm, 0, 0, 0, 0, 0, 0, 0, 0];
            bool expected = KernelOpcodes.Emulated(mode, prefix, opcode, modrm), emulated = Emulated(g, bytes);
            if (expected == emulated)
                continue;
            string key = $"{Convert.ToHexString(bytes.AsSpan(0, bytes.Length - 9))} {(emulated ? "is" : "is not")} emulated with";
            failures[key] = (failures.TryGetValue(key, out string? so) ? so : "") + $" {modrm:x2}";
        }

        string.Join("\n", failures.Select(f => f.Key + f.Value)).Should().BeEmpty();
    }

    /// <summary>All opcodes of the three maps, each register field with a memory and a register operand.</summary>
    private static IEnumerable<(byte Prefix, byte[] Opcode, byte ModRm)> Encodings()
    {
        foreach (byte prefix in (byte[])[0, 0x66, 0xf2, 0xf3])
        {
            for (int o = 0; o < 256; o++)
            {
                byte b = (byte)o;
                byte[][] opcodes = IsPrefix(b) ? [[0x0f, b], [0x0f, 0x38, b]] : [[b], [0x0f, b], [0x0f, 0x38, b]];
                foreach (byte[] opcode in opcodes)
                {
                    if (opcode is [0x0f] or [0x0f, 0x38])
                        continue;
                    bool every = opcode is [0x0f, 0x01] or [0xd9] or [0xdb] or [0xdd];
                    for (int reg = 0; reg < 8; reg++)
                    {
                        yield return (prefix, opcode, (byte)(reg << 3 | 3));
                        for (int rm = every ? 0 : 1; rm < (every ? 8 : 2); rm++)
                            yield return (prefix, opcode, (byte)(0xc0 | reg << 3 | rm));
                    }
                }
            }
        }
    }

    private static bool IsPrefix(byte b) => b is 0x26 or 0x2e or 0x36 or 0x3e or 0x64 or 0x65 or 0x66 or 0x67 or 0xf0 or 0xf2 or 0xf3 or (>= 0x40 and <= 0x4f);

    /// <summary>Carried out up to a point that depends on the operands: interrupts and IRET outside real mode, far transfers that do not succeed, SYSENTER in 64-bit code.</summary>
    private static bool GivenUpLater(int mode, byte[] opcode, byte modrm) => opcode switch
    {
        [0xcc or 0xcd or 0xce or 0xcf or 0x9a or 0xea or 0xca or 0xcb or 0xc8] => true,
        [0xff] => (modrm >> 3 & 7) is 3 or 5,
        [0x0f, 0x34] => mode == 64,
        _ => false,
    };

    private static bool Emulated(ModeGuest g, byte[] bytes)
    {
        g.ResetSystem();
        kvm_regs r = default;
        ulong* registers = (ulong*)&r;
        for (int i = 0; i < 16; i++)
            registers[i] = ModeGuest.Data;
        r.rcx = 1;
        r.rsp = ModeGuest.StackTop;
        if (g.Mode == 16)
        {
            r.rbp = ModeGuest.Data / 2;
            r.rdi = ModeGuest.Data / 2;
        }

        r.rip = ModeGuest.Code;
        r.rflags = 2;
        g.Guest.Regs = r;
        g.Guest.Run->exit_reason = 0;
        bool failed = g.Guest.Emulate(bytes) == 0 && g.Guest.Run->exit_reason == KVM_EXIT_INTERNAL_ERROR;
        g.Guest.ForgetExit();
        return !failed;
    }
}

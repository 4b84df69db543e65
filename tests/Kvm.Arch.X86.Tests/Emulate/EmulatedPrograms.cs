namespace Kvm.Arch.X86.Tests.Emulate;

/// <summary>Instructions with implicit operands, given by their bytes: strings, stack, branches, absolute addresses, segment registers, and what exists in 16- and 32-bit code only.</summary>
internal static class EmulatedPrograms
{
    private const int casesPerForm = 12;

    /// <summary>A branch may go here: a HLT.</summary>
    private const ulong target = ModeGuest.Code + 0x40;

    public static IEnumerable<(byte[] Bytes, Action<EmulatedCase>? Setup, int Seed)> Of(int mode, int seed)
    {
        int n = 0;
        foreach ((byte[] bytes, Action<EmulatedCase, Random>? setup) in Forms(mode))
        {
            for (int i = 0; i < casesPerForm; i++)
            {
                int s = unchecked(seed + ++n * 31);
                yield return (bytes, setup == null ? null : c => setup(c, new Random(s)), s);
            }
        }
    }

    private static IEnumerable<(byte[], Action<EmulatedCase, Random>?)> Forms(int mode) =>
        Strings(mode).Concat(Branches(mode)).Concat(Stack(mode)).Concat(mode == 64 ? Only64() : Legacy(mode));

    private static IEnumerable<(byte[], Action<EmulatedCase, Random>?)> Strings(int mode)
    {
        byte[][] sizes = mode == 64 ? [[], [0x66], [0x48]] : [[], [0x66]];
        byte[][] prefixes = [[], [0xf3], [0xf2], [0x67], [0x67, 0xf3]];
        foreach (byte opcode in (byte[])[0xa4, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf])
        {
            foreach (byte[] prefix in prefixes)
            {
                foreach (byte[] size in sizes)
                    yield return ([.. prefix, .. size, opcode], Indexes(mode, prefix.Contains((byte)0x67)));
            }
        }
    }

    // The upper halves of registers that a smaller address size does not use hold anything; with a count of zero processors differ, so it is not zero then.
    private static Action<EmulatedCase, Random> Indexes(int mode, bool other) => (c, random) =>
    {
        ulong rest = !other && mode == 64 ? 0 : mode == 16 && !other ? 0xabcd0000 : mode == 64 ? 0xabcdef0100000000 : 0;
        if (mode == 32 && other)
            rest = 0xabcd0000;
        c.Regs.rsi = rest | (ModeGuest.Data + 0x60 + (uint)random.Next(32));
        c.Regs.rdi = rest | (ModeGuest.Data + (uint)(random.Next(2) == 0 ? 0x60 : 0xff0) + (uint)random.Next(32));
        c.Regs.rcx = rest | (uint)random.Next(other ? 1 : 0, 6);
        // Equal elements, so that comparisons go on.
        if (random.Next(2) == 0)
            c.Fill((byte)c.Regs.rax);
    };

    private static IEnumerable<(byte[], Action<EmulatedCase, Random>?)> Branches(int mode)
    {
        for (byte cc = 0; cc < 16; cc++)
        {
            yield return ([(byte)(0x70 + cc), 0x10], null);
            yield return (mode == 16 ? [0x0f, (byte)(0x80 + cc), 0x10, 0] : [0x0f, (byte)(0x80 + cc), 0x10, 0, 0, 0], null);
        }

        for (byte opcode = 0xe0; opcode < 0xe4; opcode++)
        {
            yield return ([opcode, 0x10], (c, random) => c.Regs.rcx = (ulong)random.Next(3));
            yield return ([0x67, opcode, 0x10], (c, random) => c.Regs.rcx = (uint)random.Next(3) | (mode == 64 ? 0x5500000000ul : 0x550000));
        }

        yield return ([0xeb, 0x10], null);
        yield return (mode == 16 ? [0xe9, 0x10, 0] : [0xe9, 0x10, 0, 0, 0], null);
        yield return (mode == 16 ? [0xe8, 0x10, 0] : [0xe8, 0x10, 0, 0, 0], null);
        yield return ([0xff, 0xd0], (c, _) => c.Regs.rax = target);
        yield return ([0xff, 0xe0], (c, _) => c.Regs.rax = target);
        yield return ([0xc3], (c, _) => c.Push(0, target, mode));
        yield return ([0xc2, 0x20, 0], (c, _) => c.Push(0, target, mode));
    }

    private static IEnumerable<(byte[], Action<EmulatedCase, Random>?)> Stack(int mode)
    {
        // Flags that trap or whose meaning is a mode's stay clear.
        yield return ([0x9d], (c, random) => c.Push(0, 2 | ((ulong)random.Next() & 0x4cd5), mode));
        yield return ([0x9c], null);
        yield return ([0xc8, 0x20, 0, 0], null);
        yield return ([0xc9], (c, _) => c.Regs.rbp = ModeGuest.StackTop + 0x20);
        yield return ([0x0f, 0xa0], null);
        yield return ([0x0f, 0xa9], (c, _) => c.Push(0, mode == 16 ? 0x123u : 0x10u, mode));
        yield return ([0xfa], null);
        yield return ([0xfb], null);
        yield return ([0x8e, 0xd8], (c, _) => c.Regs.rax = mode == 16 ? 0ul : 0x10);
        yield return ([0x8c, 0xd8], null);
        yield return ([0x90], null);
        yield return ([0xd7], (c, _) => c.Regs.rbx = ModeGuest.Data);
        yield return (mode == 16 ? [0x68, 0x34, 0x92] : [0x68, 0x34, 0x92, 0x71, 0x82], null);
    }

    private static IEnumerable<(byte[], Action<EmulatedCase, Random>?)> Only64()
    {
        for (byte opcode = 0xa0; opcode < 0xa4; opcode++)
        {
            byte[] address = [.. BitConverter.GetBytes(ModeGuest.Data + 0x20)];
            yield return ([opcode, .. address], null);
            yield return ([0x66, opcode, .. address], null);
            yield return ([0x48, opcode, .. address], null);
        }

        // LSS, LFS, LGS with a null or data selector behind the offset.
        foreach (byte opcode in (byte[])[0xb2, 0xb4, 0xb5])
            yield return ([0x41, 0x0f, opcode, 0x07], (c, _) => c.FarPointer(0x10));
    }

    private static IEnumerable<(byte[], Action<EmulatedCase, Random>?)> Legacy(int mode)
    {
        foreach (byte opcode in (byte[])[0x2f, 0xd6, 0x60, 0x61, 0x40, 0x4b, 0x06, 0x1e, 0x9f, 0x9e, 0x98, 0x99])
        {
            yield return ([opcode], null);
            yield return ([0x66, opcode], null);
        }

        foreach (byte imm in (byte[])[10, 0, 7, 255])
        {
            yield return ([0xd4, imm], null);
            yield return ([0xd5, imm], null);
        }

        for (byte group = 0; group < 8; group++)
        {
            yield return ([0x82, (byte)(0xc0 | group << 3), 0x81], null);
            yield return ([0x83, (byte)(0xc3 | group << 3), 0x81], null);
            yield return ([0xd3, (byte)(0xc3 | group << 3)], null);
        }

        // LES and LDS through [BX] and [EBX].
        byte[] at = mode == 16 ? [0x07] : [0x03];
        foreach (byte opcode in (byte[])[0xc4, 0xc5])
            yield return ([opcode, .. at], (c, _) => c.FarPointerAtBx(mode, mode == 16 ? (ushort)0x40 : (ushort)0x10));
        yield return ([0x0f, 0xae, at[0]], (c, _) => c.FxImage());
        yield return ([0x0f, 0xae, (byte)(at[0] | 8)], (c, _) => c.FxImage());
        foreach (byte opcode in (byte[])[0xf0, 0xf1])
            yield return ([0x0f, 0x38, opcode, at[0]], (c, _) => c.Regs.rbx = ModeGuest.Data);
        if (mode != 16)
            yield break;
        yield return ([0xcc], null);
        yield return ([0xcd, 0x05], null);
        yield return ([0xce], null);
        yield return ([0xcf], (c, _) => c.PushFrame(target));
        yield return ([0xcb], (c, _) => c.PushFrame(target));
        yield return ([0xca, 0x10, 0], (c, _) => c.PushFrame(target));
        yield return ([0xea, (byte)(target & 0xff), (byte)(target >> 8), 0, 0], null);
        yield return ([0x9a, (byte)(target & 0xff), (byte)(target >> 8), 0, 0], null);
    }
}

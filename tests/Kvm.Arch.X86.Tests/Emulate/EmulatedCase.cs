using Kvm.Abi;
using Kvm.Emulator.Tests.Differential;
using static Kvm.Abi.Uapi;

namespace Kvm.Arch.X86.Tests.Emulate;

/// <summary>What an instruction leaves behind.</summary>
internal sealed class Outcome
{
    public readonly ulong[] Registers = new ulong[18];
    public readonly byte[] Data = new byte[ModeGuest.DataSize];
    public readonly byte[] Stack = new byte[0x400];
    public readonly byte[] Xmm = new byte[256];
    /// <summary>Stack registers, control, status and tag word.</summary>
    public readonly byte[] X87 = new byte[133];

    /// <summary>Null when the two are the same. R15, which addresses the operand, is not compared when the operands are in different places.</summary>
    public string? Difference(Outcome other, bool elsewhere)
    {
        for (int i = 0; i < 18; i++)
        {
            if (Registers[i] != other.Registers[i] && !(elsewhere && i == 15))
                return $"{Name(i)} {other.Registers[i]:x}, the processor has {Registers[i]:x}";
        }

        return !Data.AsSpan().SequenceEqual(other.Data) ? $"memory at {Data.AsSpan().CommonPrefixLength(other.Data):x}"
            : !Stack.AsSpan().SequenceEqual(other.Stack) ? "stack"
            : !Xmm.AsSpan().SequenceEqual(other.Xmm) ? $"xmm{Xmm.AsSpan().CommonPrefixLength(other.Xmm) / 16}: {Convert.ToHexString(other.Xmm)}, the processor has {Convert.ToHexString(Xmm)}"
            : !X87.AsSpan().SequenceEqual(other.X87) ? $"x87: {Convert.ToHexString(other.X87)}, the processor has {Convert.ToHexString(X87)}"
            : null;
    }

    private static string Name(int i) => i switch
    {
        < 8 => new[] { "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp" }[i],
        16 => "rip",
        17 => "rflags",
        _ => $"r{i}",
    };
}

/// <summary>One instruction with registers and memory: what the processor makes of it, and what the kernel's emulator does.</summary>
internal sealed unsafe class EmulatedCase
{
    private readonly byte[] data = new byte[ModeGuest.DataSize];
    private readonly byte[] stack = new byte[0x400];
    private readonly byte[] xmm = new byte[256];
    private kvm_regs regs;

    public EmulatedCase(int mode, byte[] bytes, Random random, CaseGenerator generator)
    {
        Bytes = bytes;
        for (int i = 0; i < 0x200; i += 8)
        {
            BitConverter.TryWriteBytes(data.AsSpan(i), generator.VectorValue());
            BitConverter.TryWriteBytes(data.AsSpan(0xf00 + i), generator.VectorValue());
            BitConverter.TryWriteBytes(stack.AsSpan(0x200 + i), generator.Value());
        }

        random.NextBytes(xmm);
        fixed (kvm_regs* r = &regs)
        {
            for (int i = 0; i < (mode == 64 ? 16 : 8); i++)
                ((ulong*)r)[i] = mode == 64 ? generator.Value() : (uint)generator.Value();
        }

        regs.rip = ModeGuest.Code;
        regs.rflags = 2 | ((ulong)random.Next() & 0xcd5);
        regs.rsp = ModeGuest.StackTop;
        regs.r15 = ModeGuest.Data;
        if (mode != 64)
            regs.r15 = 0;
    }

    public byte[] Bytes { get; }

    public ref kvm_regs Regs => ref regs;

    public void Set(int register, ulong value)
    {
        // kvm_regs has RAX RBX RCX RDX RSI RDI RSP RBP.
        ReadOnlySpan<int> order = [0, 2, 3, 1, 6, 7, 4, 5];
        fixed (kvm_regs* r = &regs)
            ((ulong*)r)[register < 8 ? order[register] : register] = value;
    }

    /// <summary>The comparison of CMPXCHG or CMPXCHG8B succeeds.</summary>
    public void ExpectMemory(int displacement, bool pair)
    {
        regs.rax = BitConverter.ToUInt64(data, displacement);
        if (pair)
            regs.rdx = regs.rax >> 32;
    }

    /// <summary>Elements that a string instruction compares are alike.</summary>
    public void Fill(byte value) => data.AsSpan(0, 0x100).Fill(value);

    /// <summary>The value that a pop finds, as wide as the mode's stack.</summary>
    public void Push(int at, ulong value, int mode) => BitConverter.GetBytes(value).AsSpan(0, mode / 8).CopyTo(stack.AsSpan(0x200 + at));

    /// <summary>IP, CS and flags of 16-bit code on the stack.</summary>
    public void PushFrame(ulong ip)
    {
        Push(0, ip, 16);
        Push(2, 0, 16);
        Push(4, 0x46, 16);
    }

    /// <summary>The selector of a far pointer at the data.</summary>
    public void FarPointer(ushort selector) => BitConverter.TryWriteBytes(data.AsSpan(4), selector);

    /// <summary>An image for FXRSTOR at [BX].</summary>
    public void FxImage()
    {
        regs.rbx = ModeGuest.Data;
        BitConverter.TryWriteBytes(data.AsSpan(0), 0x12345a001800037ful & 0xffff00ffffff);
        data.AsSpan(8, 16).Clear();
        BitConverter.TryWriteBytes(data.AsSpan(24), 0x1f80);
    }

    public void FarPointerAtBx(int mode, ushort selector)
    {
        regs.rbx = ModeGuest.Data;
        BitConverter.TryWriteBytes(data.AsSpan(mode / 8), selector);
    }

    /// <summary>KVM_RUN: the processor executes the instruction.</summary>
    public Outcome OnProcessor(ModeGuest g)
    {
        Prepare(g, 0);
        g.Guest.RunToExit().Should().Be((uint)KVM_EXIT_HLT);
        return Result(g, null);
    }

    /// <summary>The emulator executes it as if an exit had asked for it. Null: it does not emulate that.</summary>
    public Outcome? Emulated(ModeGuest g)
    {
        Prepare(g, 0);
        if (g.Guest.Emulate(Bytes) == 0)
            return null;
        g.Guest.RunToExit().Should().Be((uint)KVM_EXIT_HLT);
        return Result(g, null);
    }

    /// <summary>KVM_RUN with the operand in a device: the emulator executes it because it must. Null: it does not emulate that.</summary>
    public Outcome? OnDevice(ModeGuest g)
    {
        Prepare(g, ModeGuest.Hole - ModeGuest.Data);
        byte[] device = [.. data];
        uint reason;
        while ((reason = g.Guest.RunToExit()) == KVM_EXIT_MMIO)
        {
            kvm_run* run = g.Guest.Run;
            int at = (int)(run->mmio.phys_addr - ModeGuest.Hole);
            var window = new Span<byte>((byte*)&run->mmio.data, (int)run->mmio.len);
            if (run->mmio.is_write != 0)
                window.CopyTo(device.AsSpan(at));
            else
                device.AsSpan(at, window.Length).CopyTo(window);
        }

        return reason == KVM_EXIT_HLT ? Result(g, device) : null;
    }

    private void Prepare(ModeGuest g, ulong displacement)
    {
        g.ResetSystem();
        byte* m = g.Memory;
        var code = new Span<byte>(m + ModeGuest.Code, 0x80);
        code.Fill(0xf4);
        Bytes.CopyTo(code);
        data.CopyTo(new Span<byte>(m + ModeGuest.Data, data.Length));
        stack.CopyTo(new Span<byte>(m + ModeGuest.StackBase, stack.Length));
        kvm_regs r = regs;
        r.r15 += displacement;
        g.Guest.Regs = r;
        // FCW, MXCSR, the registers, and a header that says so.
        byte* area = stackalloc byte[4096];
        new Span<byte>(area, 4096).Clear();
        *(ushort*)area = 0x37f;
        *(uint*)(area + 24) = 0x1f80;
        *(ulong*)(area + 512) = 3;
        for (int i = 0; i < 8; i++)
        {
            xmm.AsSpan(i * 8, 8).CopyTo(new Span<byte>(area + 32 + i * 16, 8));
            *(ushort*)(area + 40 + i * 16) = 0x4000;
        }

        area[4] = 0x5a;
        *(ushort*)(area + 2) = 0x1800;
        xmm.CopyTo(new Span<byte>(area + 160, 256));
        Guest.Ok(g.Guest.VcpuIoctl(KVM_SET_XSAVE, area));
    }

    private static Outcome Result(ModeGuest g, byte[]? device)
    {
        var o = new Outcome();
        kvm_regs r = g.Guest.Regs;
        new Span<ulong>(&r, 18).CopyTo(o.Registers);
        (device ?? new Span<byte>(g.Memory + ModeGuest.Data, ModeGuest.DataSize)).CopyTo(o.Data);
        new Span<byte>(g.Memory + ModeGuest.StackBase, o.Stack.Length).CopyTo(o.Stack);
        kvm_fpu fpu;
        Guest.Ok(g.Guest.VcpuIoctl(KVM_GET_FPU, &fpu));
        new Span<byte>(&fpu.xmm, 256).CopyTo(o.Xmm);
        new Span<byte>(&fpu, 133).CopyTo(o.X87);
        return o;
    }

    public override string ToString() => Convert.ToHexString(Bytes);
}

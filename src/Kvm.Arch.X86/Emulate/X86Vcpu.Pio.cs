using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;

namespace Kvm.Arch.X86;

/// <remarks>Port I/O: the vCPU's device bus first, then userspace.</remarks>
public unsafe partial class X86Vcpu
{
    /// <summary>
    /// emulator_pio_in_out: 1 when in-kernel devices served all of it; 0 when it became a KVM_EXIT_IO. The data of an OUT and the room of an IN are in
    /// the page at KVM_PIO_PAGE_OFFSET.
    /// </summary>
    [KernelFunction("emulator_pio_in_out", File = "arch/x86/kvm/x86.c")]
    private int PioInOut(int size, ushort port, byte* data, uint count, bool isIn)
    {
        using var _ = FunctionTrace.Enter("emulator_pio_in_out");
        for (uint i = 0; i < count; i++)
        {
            KvmResult r = isIn ? Vm.IoBusRead(this, KvmBus.Pio, port, size, data) : Vm.IoBusWrite(this, KvmBus.Pio, port, size, data);
            if (r.Raw != 0)
            {
                if (i == 0)
                    return PioUserspace(size, port, data, count, isIn);

                // The device went away in the middle: writes are dropped, reads give 0.
                if (isIn)
                    new Span<byte>(data, (int)(size * (count - i))).Clear();
                break;
            }

            data += size;
        }

        return 1;
    }

    private int PioUserspace(int size, ushort port, byte* data, uint count, bool isIn)
    {
        Pio.Port = port;
        Pio.In = isIn;
        Pio.Count = count;
        Pio.Size = size;
        uint bytes = (uint)size * count;
        if (isIn)
            new Span<byte>(PioData, (int)bytes).Clear();
        else
            new ReadOnlySpan<byte>(data, (int)bytes).CopyTo(new Span<byte>(PioData, (int)bytes));

        Run->exit_reason = KVM_EXIT_IO;
        Run->io.direction = (byte)(isIn ? KVM_EXIT_IO_IN : KVM_EXIT_IO_OUT);
        Run->io.size = (byte)size;
        Run->io.data_offset = KVM_PIO_PAGE_OFFSET * 4096;
        Run->io.count = count;
        Run->io.port = port;
        return 0;
    }

    private int PioIn(int size, ushort port, byte* data, uint count)
    {
        int r = PioInOut(size, port, data, count, true);
        if (r != 0 && Tracepoints.Enabled)
            TracePio("pio_read", port, size, count, data);
        return r;
    }

    internal int PioOut(int size, ushort port, byte* data, uint count)
    {
        if (Tracepoints.Enabled)
            TracePio("pio_write", port, size, count, data);
        return PioInOut(size, port, data, count, false);
    }

    private static void TracePio(string what, ushort port, int size, uint count, byte* data)
    {
        ulong value = size switch { 1 => *data, 2 => *(ushort*)data, _ => *(uint*)data };
        Tracepoints.Emit("kvm_pio", $"{what} at 0x{port:x} size {size} count {count} val 0x{value:x}{(count > 1 ? " (...)" : "")}");
    }

    [KernelFunction("complete_emulator_pio_in", File = "arch/x86/kvm/x86.c")]
    private void CompletePioIn(byte* data)
    {
        FunctionTrace.Leaf("complete_emulator_pio_in");
        int bytes = Pio.Size * (int)Pio.Count;
        new ReadOnlySpan<byte>(PioData, bytes).CopyTo(new Span<byte>(data, bytes));
        if (Tracepoints.Enabled)
            TracePio("pio_read", Pio.Port, Pio.Size, (uint)Pio.Count, PioData);
        Pio.Count = 0;
    }

    /// <summary>An IN of the instruction emulator; its second pass finds what userspace answered.</summary>
    [KernelFunction("emulator_pio_in_emulated", File = "arch/x86/kvm/x86.c")]
    internal int PioInEmulated(int size, ushort port, byte* data, uint count)
    {
        using var _ = FunctionTrace.Enter("emulator_pio_in_emulated");
        if (Pio.Count == 0)
            return PioIn(size, port, data, count);
        CompletePioIn(data);
        return 1;
    }

    [KernelFunction("emulator_pio_out_emulated", File = "arch/x86/kvm/x86.c")]
    internal int PioOutEmulated(int size, ushort port, byte* data, uint count)
    {
        using var _ = FunctionTrace.Enter("emulator_pio_out_emulated");
        return PioOut(size, port, data, count);
    }

    // ---- IN and OUT of AL, AX, EAX, decoded by the processor ----

    /// <summary>An exit handler's result: 1 done and skipped, 0 to userspace. The instruction is skipped at the next KVM_RUN then.</summary>
    [KernelFunction("kvm_fast_pio", File = "arch/x86/kvm/x86.c")]
    public int FastPio(int size, ushort port, bool isIn)
    {
        using var _ = FunctionTrace.Enter("kvm_fast_pio");
        int ret = isIn ? FastPioIn(size, port) : FastPioOut(size, port);
        return ret != 0 ? SkipInstruction() : 0;
    }

    private int FastPioOut(int size, ushort port)
    {
        ulong value = Rax;
        int ret = PioOut(size, port, (byte*)&value, 1);
        if (ret != 0)
            return ret;

        // Firmware of the first QEMU versions relies on RIP being past the OUT already.
        if (port == 0x7e && Vm.CheckHasQuirk(KVM_X86_QUIRK_OUT_7E_INC_RIP))
        {
            CompleteUserspaceIo = &CompleteFastPioOutPort7e;
            SkipInstruction();
        }
        else
        {
            Pio.LinearRip = GetLinearRip();
            CompleteUserspaceIo = &CompleteFastPioOut;
        }

        return 0;
    }

    [KernelFunction("complete_fast_pio_out_port_0x7e", File = "arch/x86/kvm/x86.c")]
    private static int CompleteFastPioOutPort7e(X86Vcpu vcpu)
    {
        vcpu.Pio.Count = 0;
        return 1;
    }

    /// <summary>The instruction is skipped now, unless userspace moved RIP meanwhile.</summary>
    [KernelFunction("complete_fast_pio_out", File = "arch/x86/kvm/x86.c")]
    private static int CompleteFastPioOut(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("complete_fast_pio_out");
        vcpu.Pio.Count = 0;
        return vcpu.IsLinearRip(vcpu.Pio.LinearRip) ? vcpu.SkipInstruction() : 1;
    }

    private int FastPioIn(int size, ushort port)
    {
        // Narrow reads keep the upper bits of RAX; a 4-byte read clears them.
        ulong value = size < 4 ? Rax : 0;
        int ret = PioIn(size, port, (byte*)&value, 1);
        if (ret != 0)
        {
            Rax = value;
            return ret;
        }

        Pio.LinearRip = GetLinearRip();
        CompleteUserspaceIo = &CompleteFastPioIn;
        return 0;
    }

    [KernelFunction("complete_fast_pio_in", File = "arch/x86/kvm/x86.c")]
    private static int CompleteFastPioIn(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("complete_fast_pio_in");
        if (!vcpu.IsLinearRip(vcpu.Pio.LinearRip))
        {
            vcpu.Pio.Count = 0;
            return 1;
        }

        ulong value = vcpu.Pio.Size < 4 ? vcpu.Rax : 0;
        vcpu.CompletePioIn((byte*)&value);
        vcpu.Rax = value;
        return vcpu.SkipInstruction();
    }
}

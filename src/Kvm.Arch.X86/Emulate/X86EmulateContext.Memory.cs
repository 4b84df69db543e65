using Kvm.Abi;
using Kvm.Core.Tracing;
using static Kvm.Arch.X86.VcpuSreg;

namespace Kvm.Arch.X86;

/// <remarks>Operands in memory: segmentation, then the vCPU's guest-virtual access with its MMIO.</remarks>
public sealed unsafe partial class X86EmulateContext
{
    private const int RSP = 4;

    private ulong SegBase(int seg)
    {
        if (Mode == EmulMode.Prot64 && seg < VCPU_SREG_FS)
            return 0;
        using var _ = FunctionTrace.Enter("emulator_get_cached_segment_base");
        return ops.GetSegmentBase(vcpu, seg);
    }

    private int VirtAddrBits => vcpu.VcpuVirtAddrBits;

    /// <summary>linearize: the linear address, #GP or #SS for limits, types and non-canonical addresses.</summary>
    private int Linearize(int seg, ulong ea, uint size, bool write, out ulong linear)
    {
        using var _ = FunctionTrace.Enter("linearize.isra.0");
        return Linearize(seg, ea, size, write, fetch: false, Mode, out linear, out ulong _);
    }

    private int Linearize(int seg, ulong ea, uint size, bool write, bool fetch, EmulMode mode, out ulong linear, out ulong maxSize)
    {
        ulong la = SegBase(seg) + ea;
        maxSize = 0;
        if (mode == EmulMode.Prot64)
        {
            linear = la;
            int bits = VirtAddrBits;
            if (X86Bits.IsNoncanonical(la, (byte)bits))
                return BadAddress(seg);
            maxSize = Math.Min(uint.MaxValue, (1ul << bits) - la);
            if (size > maxSize)
                return BadAddress(seg);
        }
        else
        {
            linear = la = (uint)la;
            kvm_segment desc;
            using (FunctionTrace.Enter("emulator_get_segment"))
                ops.GetSegment(vcpu, out desc, seg);
            if (desc.unusable != 0 || !InsideSegment(desc, ea, size, write, fetch, mode, out maxSize))
                return BadAddress(seg);
        }

        // insn_alignment: 16 bytes, of larger images too.
        return aligned && size >= 16 && (la & 15) != 0 ? Gp(0) : Continue;
    }

    private static bool InsideSegment(in kvm_segment desc, ulong ea, uint size, bool write, bool fetch, EmulMode mode, out ulong maxSize)
    {
        maxSize = 0;
        bool isCode = (desc.type & 8) != 0;
        bool readWrite = (desc.type & 2) != 0;
        if (write && ((mode != EmulMode.Real && isCode) || !readWrite))
            return false;
        if (!fetch && isCode && !readWrite)
            return false;
        ulong limit = desc.limit;
        if (!isCode && (desc.type & 4) != 0)
        {
            // Expand-down: valid above the limit.
            if (ea <= limit)
                return false;
            limit = desc.db != 0 ? 0xffffffff : 0xffff;
        }

        if (ea > limit)
            return false;
        if (limit == 0xffffffff)
        {
            maxSize = uint.MaxValue;
            return true;
        }

        maxSize = limit + 1 - ea;
        return size <= maxSize;
    }

    private int BadAddress(int seg) => seg == VCPU_SREG_SS ? Ss(0) : Gp(0);

    /// <summary>read_emulated: through the cache of what this instruction read already.</summary>
    [KernelFunction("read_emulated", File = "arch/x86/kvm/emulate.c")]
    private int ReadEmulated(ulong linear, void* to, int size)
    {
        using var _ = FunctionTrace.Enter("read_emulated");
        if (memReadPos >= memReadEnd)
        {
            int rc;
            using (FunctionTrace.Enter("emulator_read_emulated"))
                rc = vcpu.EmulatorReadWrite(this, linear, memRead + memReadEnd, (uint)size, write: false, ref Exception);
            if (rc != Continue)
                return rc;
            memReadEnd += size;
        }

        Buffer.MemoryCopy(memRead + memReadPos, to, size, size);
        memReadPos += size;
        return Continue;
    }

    private int SegmentedRead(int seg, ulong ea, void* to, int size)
    {
        using var _ = FunctionTrace.Enter("segmented_read.isra.0");
        int rc = Linearize(seg, ea, (uint)size, false, out ulong linear);
        return rc != Continue ? rc : ReadEmulated(linear, to, size);
    }

    private int SegmentedWrite(int seg, ulong ea, void* from, int size)
    {
        using var _ = FunctionTrace.Enter("segmented_write.isra.0");
        int rc = Linearize(seg, ea, (uint)size, true, out ulong linear);
        if (rc != Continue)
            return rc;
        using var t = FunctionTrace.Enter("emulator_write_emulated");
        return vcpu.EmulatorReadWrite(this, linear, (byte*)from, (uint)size, write: true, ref Exception);
    }

    private int SegmentedCmpxchg(int seg, ulong ea, void* old, void* value, int size)
    {
        int rc = Linearize(seg, ea, (uint)size, true, out ulong linear);
        return rc != Continue ? rc : vcpu.EmulatorCmpxchg(this, linear, (byte*)old, (byte*)value, (uint)size, ref Exception);
    }

    /// <summary>Descriptor tables and TSS: at supervisor privilege. Where there is no memory the instruction ends without effect (IoNeeded) and is tried again.</summary>
    private int LinearReadSystem(ulong linear, void* to, int size)
    {
        int r = vcpu.ReadGuestVirtSystem(linear, new Span<byte>(to, size), out X86Exception fault);
        if (r == PropagateFault)
            Exception = fault;
        return r;
    }

    private int LinearWriteSystem(ulong linear, void* from, int size)
    {
        int r = vcpu.WriteGuestVirtSystem(linear, new ReadOnlySpan<byte>(from, size), out X86Exception fault);
        if (r == PropagateFault)
            Exception = fault;
        return r;
    }

    // ---- stack ----

    private ulong StackMask
    {
        get
        {
            if (Mode == EmulMode.Prot64)
                return ~0ul;
            ops.GetSegment(vcpu, out kvm_segment ss, VCPU_SREG_SS);
            return ss.db != 0 ? 0xffffffff : 0xffff;
        }
    }

    private void RspIncrement(int by)
    {
        ulong mask = StackMask;
        ulong rsp = RegRead(RSP);
        RegWrite(RSP, Merge(rsp, rsp + (ulong)by, mask));
    }

    private static ulong Merge(ulong old, ulong value, ulong mask) => mask == 0xffffffff ? (uint)value : (old & ~mask) | (value & mask);

    private int Push(ulong value, int bytes)
    {
        RspIncrement(-bytes);
        return SegmentedWrite(VCPU_SREG_SS, RegRead(RSP) & StackMask, &value, bytes);
    }

    private int Pop(out ulong value, int bytes)
    {
        ulong v = 0;
        int rc = SegmentedRead(VCPU_SREG_SS, RegRead(RSP) & StackMask, &v, bytes);
        value = v;
        if (rc == Continue)
            RspIncrement(bytes);
        return rc;
    }
}

using System.Runtime.InteropServices;
using Kvm.Abi;
using Kvm.Core;
using static Kvm.Arch.X86.Errnos;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86;

/// <remarks>The guest's FPU image in XSAVE format: FXSAVE area, header, extended components. Userspace reads and writes it.</remarks>
public unsafe partial class X86Vcpu
{
    private const int OffsetMxcsr = 24;
    private const int OffsetSt = 32;
    private const int OffsetXmm = 160;
    private const int OffsetSwReserved = 464;
    private const int OffsetHeader = 512;
    private const uint MxcsrInit = 0x1f80;
    private const uint MxcsrFeatureMask = 0xffff;

    /// <summary>guest_fpu.fpstate->regs: at least a page, so that KVM_GET_XSAVE can be answered from it.</summary>
    public byte[] FpuState { get; private set; } = [];

    /// <summary>guest_fpu.uabi_size.</summary>
    internal int FpuUabiSize { get; private set; } = 4096;

    /// <summary>fpu_alloc_guest_fpstate: false when memory is short.</summary>
    private bool AllocGuestFpstate()
    {
        using var _ = Core.Tracing.FunctionTrace.Enter("fpu_alloc_guest_fpstate");
        using (Core.Tracing.FunctionTrace.Enter("vzalloc"))
        {
            if (Vm.Host.Faults.ShouldFail("vzalloc", "guest_fpstate"))
                return false;
        }

        FpuUabiSize = Math.Max(4096, (int)Arch.XstateSizeUntraced(Arch.HostXcr0));
        FpuState = GC.AllocateArray<byte>(FpuUabiSize, pinned: true);
        BitConverter.TryWriteBytes(FpuState, (ushort)0x37f);
        BitConverter.TryWriteBytes(FpuState.AsSpan(OffsetMxcsr), MxcsrInit);
        return true;
    }

    /// <summary>KVM_GET_FPU; MXCSR is not part of the answer.</summary>
    internal void GetFpu(ref kvm_fpu fpu)
    {
        ReadOnlySpan<byte> x = FpuState;
        x.Slice(OffsetSt, 128).CopyTo(MemoryMarshal.AsBytes(MemoryMarshal.CreateSpan(ref fpu.fpr, 1)));
        fpu.fcw = BitConverter.ToUInt16(x);
        fpu.fsw = BitConverter.ToUInt16(x[2..]);
        fpu.ftwx = x[4];
        fpu.last_opcode = BitConverter.ToUInt16(x[6..]);
        fpu.last_ip = BitConverter.ToUInt64(x[8..]);
        fpu.last_dp = BitConverter.ToUInt64(x[16..]);
        x.Slice(OffsetXmm, 256).CopyTo(MemoryMarshal.AsBytes(MemoryMarshal.CreateSpan(ref fpu.xmm, 1)));
    }

    internal void SetFpu(kvm_fpu fpu)
    {
        Span<byte> x = FpuState;
        MemoryMarshal.AsBytes(MemoryMarshal.CreateSpan(ref fpu.fpr, 1)).CopyTo(x[OffsetSt..]);
        BitConverter.TryWriteBytes(x, fpu.fcw);
        BitConverter.TryWriteBytes(x[2..], fpu.fsw);
        BitConverter.TryWriteBytes(x[4..], (ushort)fpu.ftwx);
        BitConverter.TryWriteBytes(x[6..], fpu.last_opcode);
        BitConverter.TryWriteBytes(x[8..], fpu.last_ip);
        BitConverter.TryWriteBytes(x[16..], fpu.last_dp);
        MemoryMarshal.AsBytes(MemoryMarshal.CreateSpan(ref fpu.xmm, 1)).CopyTo(x[OffsetXmm..]);
    }

    /// <summary>fpu_copy_guest_fpstate_to_uabi: components in their initial state read as initial values.</summary>
    internal KvmResult IoctlGetXsave(ulong arg, int size)
    {
        if (size < FpuUabiSize)
            return -EINVAL;
        if (Vm.Host.Faults.ShouldFail("kzalloc", "kvm_xsave"))
            return -ENOMEM;
        var to = new byte[size];
        ReadOnlySpan<byte> from = FpuState;
        ulong supported = GuestSupportedXcr0 | XFEATURE_MASK_FPSSE;
        ulong bv = BitConverter.ToUInt64(from[OffsetHeader..]) & supported;
        if (!Arch.HostX86.BootCpuHas(X86Feature.XSAVE))
            bv = XFEATURE_MASK_FPSSE;

        BitConverter.TryWriteBytes(to, (ushort)0x37f);
        BitConverter.TryWriteBytes(to.AsSpan(OffsetMxcsr), MxcsrInit);
        BitConverter.TryWriteBytes(to.AsSpan(OffsetMxcsr + 4), MxcsrFeatureMask);
        if ((bv & XFEATURE_MASK_FP) != 0)
        {
            from[..OffsetMxcsr].CopyTo(to);
            from[OffsetSt..OffsetXmm].CopyTo(to.AsSpan(OffsetSt));
        }

        if ((bv & (XFEATURE_MASK_SSE | XFEATURE_MASK_YMM)) != 0)
            from.Slice(OffsetMxcsr, 4).CopyTo(to.AsSpan(OffsetMxcsr));
        if ((bv & XFEATURE_MASK_SSE) != 0)
            from.Slice(OffsetXmm, 256).CopyTo(to.AsSpan(OffsetXmm));
        if (Arch.HostX86.BootCpuHas(X86Feature.XSAVE))
        {
            uint xstateSize = Arch.XstateSizeUntraced(Arch.HostXcr0);
            BitConverter.TryWriteBytes(to.AsSpan(OffsetSwReserved), 0x46505853u);
            BitConverter.TryWriteBytes(to.AsSpan(OffsetSwReserved + 4), xstateSize + 4);
            BitConverter.TryWriteBytes(to.AsSpan(OffsetSwReserved + 8), Arch.HostXcr0);
            BitConverter.TryWriteBytes(to.AsSpan(OffsetSwReserved + 16), xstateSize);
            BitConverter.TryWriteBytes(to.AsSpan(OffsetHeader), bv);
        }

        for (int i = 2; i < 63; i++)
        {
            (int offset, int length) = Arch.XstateComponent(i);
            if ((bv >> i & 1) != 0 && length != 0)
                from.Slice(offset, length).CopyTo(to.AsSpan(offset));
        }

        return new UserPtr<byte>(arg).Write(to) ? 0 : -EFAULT;
    }

    /// <summary>fpu_copy_uabi_to_guest_fpstate: -EINVAL for unsupported components, a compacted format, reserved bits of the header or of MXCSR.</summary>
    internal KvmResult IoctlSetXsave(ulong arg)
    {
        if (Vm.Host.Faults.ShouldFail("memdup_user", "kvm_xsave"))
            return -ENOMEM;
        var user = new byte[FpuUabiSize];
        if (!new UserPtr<byte>(arg).Read(user.AsSpan()))
            return -EFAULT;
        ReadOnlySpan<byte> from = user;
        Span<byte> to = FpuState;
        uint mxcsr = BitConverter.ToUInt32(from[OffsetMxcsr..]);
        if (!Arch.HostX86.BootCpuHas(X86Feature.XSAVE))
        {
            if ((mxcsr & ~MxcsrFeatureMask) != 0)
                return -EINVAL;
            from[..OffsetHeader].CopyTo(to);
            return 0;
        }

        ulong bv = BitConverter.ToUInt64(from[OffsetHeader..]);
        if ((bv & ~Arch.KvmCaps.SupportedXcr0) != 0)
            return -EINVAL;
        if (from.Slice(OffsetHeader + 8, 56).ContainsAnyExcept((byte)0))
            return -EINVAL;
        if ((bv & (XFEATURE_MASK_FPSSE | XFEATURE_MASK_YMM)) != 0)
        {
            if ((mxcsr & ~MxcsrFeatureMask) != 0)
                return -EINVAL;
            if ((bv & XFEATURE_MASK_FP) == 0)
                from.Slice(OffsetMxcsr, 8).CopyTo(to[OffsetMxcsr..]);
        }

        if ((bv & XFEATURE_MASK_FP) != 0)
            from[..OffsetXmm].CopyTo(to);
        if ((bv & XFEATURE_MASK_SSE) != 0)
            from.Slice(OffsetXmm, 256).CopyTo(to[OffsetXmm..]);
        for (int i = 2; i < 63; i++)
        {
            (int offset, int length) = Arch.XstateComponent(i);
            if ((bv >> i & 1) != 0 && length != 0)
                from.Slice(offset, length).CopyTo(to[offset..]);
        }

        BitConverter.TryWriteBytes(to[OffsetHeader..], bv);
        return 0;
    }
}

using System.Runtime.InteropServices;
using Kvm.Abi;
using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Arch.X86.Errnos;
using static Kvm.Arch.X86.FpuGuest;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86;

/// <remarks>The guest's FPU state as userspace reads and writes it, and where it is loaded for the guest.</remarks>
public unsafe partial class X86Vcpu
{

    /// <summary>vcpu->arch.guest_fpu.</summary>
    public FpuGuest GuestFpu { get; private set; } = null!;

    /// <summary>fpu_alloc_guest_fpstate: false when memory is short.</summary>
    private bool AllocGuestFpstate()
    {
        using var _ = FunctionTrace.Enter("fpu_alloc_guest_fpstate");
        using (FunctionTrace.Enter("vzalloc"))
        {
            if (Vm.Host.Faults.ShouldFail("vzalloc", "guest_fpstate"))
                return false;
        }

        GuestFpu = new FpuGuest(Arch.HostX86.Xstate);
        return true;
    }

    /// <summary>mxcsr_feature_mask.</summary>
    private uint MxcsrFeatureMask => Arch.HostX86.MxcsrFeatureMask;

    /// <summary>KVM_GET_FPU; MXCSR is not part of the answer. The legacy area is read as it lies there, whatever XSTATE_BV says.</summary>
    internal void GetFpu(ref kvm_fpu fpu)
    {
        ReadOnlySpan<byte> x = GuestFpu.Read();
        x.Slice(OffsetSt, 128).CopyTo(MemoryMarshal.AsBytes(MemoryMarshal.CreateSpan(ref fpu.fpr, 1)));
        fpu.fcw = BitConverter.ToUInt16(x);
        fpu.fsw = BitConverter.ToUInt16(x[2..]);
        fpu.ftwx = x[4];
        fpu.last_opcode = BitConverter.ToUInt16(x[6..]);
        fpu.last_ip = BitConverter.ToUInt64(x[8..]);
        fpu.last_dp = BitConverter.ToUInt64(x[16..]);
        x.Slice(OffsetXmm, 256).CopyTo(MemoryMarshal.AsBytes(MemoryMarshal.CreateSpan(ref fpu.xmm, 1)));
    }

    /// <summary>KVM_SET_FPU: XSTATE_BV stays, so a component in its initial state is loaded as that all the same.</summary>
    internal void SetFpu(kvm_fpu fpu)
    {
        Span<byte> x = GuestFpu.Modify();
        MemoryMarshal.AsBytes(MemoryMarshal.CreateSpan(ref fpu.fpr, 1)).CopyTo(x[OffsetSt..]);
        BitConverter.TryWriteBytes(x, fpu.fcw);
        BitConverter.TryWriteBytes(x[2..], fpu.fsw);
        BitConverter.TryWriteBytes(x[4..], (ushort)fpu.ftwx);
        BitConverter.TryWriteBytes(x[6..], fpu.last_opcode);
        BitConverter.TryWriteBytes(x[8..], fpu.last_ip);
        BitConverter.TryWriteBytes(x[16..], fpu.last_dp);
        MemoryMarshal.AsBytes(MemoryMarshal.CreateSpan(ref fpu.xmm, 1)).CopyTo(x[OffsetXmm..]);
    }

    /// <summary>KVM_GET_XSAVE and, with the guest's size, KVM_GET_XSAVE2.</summary>
    internal KvmResult IoctlGetXsave(ulong arg, int size)
    {
        if (size < GuestFpu.UabiSize)
            return -EINVAL;
        if (Vm.Host.Faults.ShouldFail("kzalloc", "kvm_xsave"))
            return -ENOMEM;
        var to = new byte[size];
        CopyToUabi(to);
        return new UserPtr<byte>(arg).Write(to) ? 0 : -EFAULT;
    }

    /// <summary>fpu_copy_guest_fpstate_to_uabi: the standard format; components in their initial state read as initial values, PKRU is the vCPU's own.</summary>
    private void CopyToUabi(Span<byte> to)
    {
        XstateLayout layout = Arch.HostX86.Xstate;
        ReadOnlySpan<byte> from = GuestFpu.Read();
        if (!layout.HasXsave)
        {
            from[..OffsetHeader].CopyTo(to);
            BitConverter.TryWriteBytes(to[OffsetHeader..], XFEATURE_MASK_FPSSE);
            return;
        }

        ulong bv = BitConverter.ToUInt64(from[OffsetHeader..]) & (GuestSupportedXcr0 | XFEATURE_MASK_FPSSE);
        BitConverter.TryWriteBytes(to, (ushort)0x37f);
        BitConverter.TryWriteBytes(to[OffsetMxcsr..], MxcsrDefault);
        BitConverter.TryWriteBytes(to[(OffsetMxcsr + 4)..], MxcsrFeatureMask);
        if ((bv & XFEATURE_MASK_FP) != 0)
        {
            from[..OffsetMxcsr].CopyTo(to);
            from[OffsetSt..OffsetXmm].CopyTo(to[OffsetSt..]);
        }

        if ((bv & (XFEATURE_MASK_SSE | XFEATURE_MASK_YMM)) != 0)
            from.Slice(OffsetMxcsr, 8).CopyTo(to[OffsetMxcsr..]);
        if ((bv & XFEATURE_MASK_SSE) != 0)
            from.Slice(OffsetXmm, 256).CopyTo(to[OffsetXmm..]);
        BitConverter.TryWriteBytes(to[OffsetSwReserved..], layout.Features); // xstate_fx_sw_bytes
        BitConverter.TryWriteBytes(to[OffsetHeader..], bv);
        for (int i = 2; i < 63; i++)
        {
            (int length, int standard, int kernel) = layout.Component(i);
            if ((bv >> i & 1) == 0 || length == 0)
                continue;
            if (1ul << i == XFEATURE_MASK_PKRU)
                BitConverter.TryWriteBytes(to[standard..], Pkru);
            else
                from.Slice(kernel, length).CopyTo(to[standard..]);
        }
    }

    /// <summary>KVM_SET_XSAVE.</summary>
    internal KvmResult IoctlSetXsave(ulong arg)
    {
        if (Vm.Host.Faults.ShouldFail("memdup_user", "kvm_xsave"))
            return -ENOMEM;
        var user = new byte[GuestFpu.UabiSize];
        return new UserPtr<byte>(arg).Read(user.AsSpan()) ? CopyFromUabi(user) : -EFAULT;
    }

    /// <summary>
    /// fpu_copy_uabi_to_guest_fpstate: -EINVAL for unsupported components, a compacted format, reserved bits of the header or of MXCSR. Components that are not in
    /// XSTATE_BV become initial, but their bytes stay; PKRU stays.
    /// </summary>
    private KvmResult CopyFromUabi(ReadOnlySpan<byte> from)
    {
        XstateLayout layout = Arch.HostX86.Xstate;
        uint mxcsr = BitConverter.ToUInt32(from[OffsetMxcsr..]);
        ulong bv = BitConverter.ToUInt64(from[OffsetHeader..]);
        if (!layout.HasXsave)
        {
            if ((bv & ~XFEATURE_MASK_FPSSE) != 0 || (mxcsr & ~MxcsrFeatureMask) != 0)
                return -EINVAL;
            from[..OffsetHeader].CopyTo(GuestFpu.Modify());
            return 0;
        }

        if ((bv & ~Arch.KvmCaps.SupportedXcr0) != 0)
            return -EINVAL;
        if (from.Slice(OffsetHeader + 8, 56).ContainsAnyExcept((byte)0))
            return -EINVAL;
        bool withMxcsr = (bv & (XFEATURE_MASK_FPSSE | XFEATURE_MASK_YMM)) != 0;
        if (withMxcsr && (mxcsr & ~MxcsrFeatureMask) != 0)
            return -EINVAL;

        Span<byte> to = GuestFpu.Modify();
        if (withMxcsr && (bv & XFEATURE_MASK_FP) == 0)
            from.Slice(OffsetMxcsr, 8).CopyTo(to[OffsetMxcsr..]);
        if ((bv & XFEATURE_MASK_FP) != 0)
            from[..OffsetXmm].CopyTo(to);
        if ((bv & XFEATURE_MASK_SSE) != 0)
            from.Slice(OffsetXmm, 256).CopyTo(to[OffsetXmm..]);
        for (int i = 2; i < 63; i++)
        {
            (int length, int standard, int kernel) = layout.Component(i);
            if ((bv >> i & 1) != 0 && length != 0)
                from.Slice(standard, length).CopyTo(to[kernel..]);
        }

        if ((bv & XFEATURE_MASK_PKRU) != 0)
            Pkru = BitConverter.ToUInt32(from[layout.Component(9).Standard..]);
        BitConverter.TryWriteBytes(to[OffsetHeader..], bv);
        return 0;
    }

    /// <summary>
    /// The guest's state into this processor's registers before the loop. After it nothing is to be done: threads have no state of their own that would have
    /// to come back (<see cref="FpuGuest"/>).
    /// </summary>
    [KernelFunction("fpu_swap_kvm_fpstate", File = "arch/x86/kernel/fpu/core.c")]
    private void SwapFpstate(bool enterGuest)
    {
        using var _ = FunctionTrace.Enter("fpu_swap_kvm_fpstate");
        if (enterGuest)
            GuestFpu.Load(LoadedCpu);
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_fpu", enterGuest ? "load" : "unload");
    }
}

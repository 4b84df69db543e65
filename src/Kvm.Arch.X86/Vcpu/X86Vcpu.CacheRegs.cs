using System.Runtime.CompilerServices;
using Kvm.Core.Tracing;
using static Kvm.Arch.X86.KvmReg;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86;

/// <remarks>Register cache: kvm_cache_regs.h and x86.h. avail 0: in the VMCS/VMCB; avail 1: here; dirty 1: here and to be written back before the next entry.</remarks>
public unsafe partial class X86Vcpu
{
    public ulong Rax { get => Regs[0]; set => Regs[0] = value; }
    public ulong Rcx { get => Regs[1]; set => Regs[1] = value; }
    public ulong Rdx { get => Regs[2]; set => Regs[2] = value; }
    public ulong Rbx { get => Regs[3]; set => Regs[3] = value; }
    public ulong Rbp { get => Regs[5]; set => Regs[5] = value; }
    public ulong Rsi { get => Regs[6]; set => Regs[6] = value; }
    public ulong Rdi { get => Regs[7]; set => Regs[7] = value; }

    /// <summary>kvm_rsp_read/write.</summary>
    public ulong Rsp { get => RegisterReadRaw(VCPU_REGS_RSP); set => RegisterWriteRaw(VCPU_REGS_RSP, value); }

    /// <summary>kvm_rip_read/write.</summary>
    public ulong Rip { get => RegisterReadRaw(VCPU_REGS_RIP); set => RegisterWriteRaw(VCPU_REGS_RIP, value); }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public bool RegisterIsAvailable(KvmReg reg) => (RegsAvail & (1u << (int)reg)) != 0;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public bool RegisterIsDirty(KvmReg reg) => (RegsDirty & (1u << (int)reg)) != 0;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public void RegisterMarkAvailable(KvmReg reg) => RegsAvail |= 1u << (int)reg;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public void RegisterMarkDirty(KvmReg reg)
    {
        RegsAvail |= 1u << (int)reg;
        RegsDirty |= 1u << (int)reg;
    }

    /// <summary>Marks the register available; true if it was already (kvm_register_test_and_mark_available).</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public bool RegisterTestAndMarkAvailable(KvmReg reg)
    {
        bool was = RegisterIsAvailable(reg);
        RegisterMarkAvailable(reg);
        return was;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public ulong RegisterReadRaw(KvmReg reg)
    {
        if (!RegisterIsAvailable(reg))
            Ops.CacheReg(this, reg);
        return Regs[(int)reg];
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public void RegisterWriteRaw(KvmReg reg, ulong value)
    {
        Regs[(int)reg] = value;
        RegisterMarkDirty(reg);
    }

    /// <summary>A general register as the current mode sees it: 32 bits outside 64-bit code.</summary>
    public ulong RegisterRead(int reg)
    {
        ulong value = RegisterReadRaw((KvmReg)reg);
        return Is64BitMode ? value : (uint)value;
    }

    public void RegisterWrite(int reg, ulong value) => RegisterWriteRaw((KvmReg)reg, Is64BitMode ? value : (uint)value);

    public ulong PdptrRead(int index)
    {
        if (!RegisterIsAvailable(VCPU_EXREG_PDPTR))
            Ops.CacheReg(this, VCPU_EXREG_PDPTR);
        return WalkMmu.Pdptrs[index];
    }

    public void PdptrWrite(int index, ulong value) => WalkMmu.Pdptrs[index] = value;

    /// <summary>kvm_read_cr0_bits.</summary>
    public ulong ReadCr0Bits(ulong mask)
    {
        if ((mask & KVM_POSSIBLE_CR0_GUEST_BITS & Cr0GuestOwnedBits) != 0 && !RegisterIsAvailable(VCPU_EXREG_CR0))
            Ops.CacheReg(this, VCPU_EXREG_CR0);
        return Cr0 & mask;
    }

    public ulong ReadCr0() => ReadCr0Bits(~0ul);

    /// <summary>kvm_read_cr4_bits.</summary>
    public ulong ReadCr4Bits(ulong mask)
    {
        if ((mask & KVM_POSSIBLE_CR4_GUEST_BITS & Cr4GuestOwnedBits) != 0 && !RegisterIsAvailable(VCPU_EXREG_CR4))
            Ops.CacheReg(this, VCPU_EXREG_CR4);
        return Cr4 & mask;
    }

    public ulong ReadCr4() => ReadCr4Bits(~0ul);

    public ulong ReadCr3()
    {
        if (!RegisterIsAvailable(VCPU_EXREG_CR3))
            Ops.CacheReg(this, VCPU_EXREG_CR3);
        return Cr3;
    }

    /// <summary>kvm_read_edx_eax.</summary>
    public ulong ReadEdxEax() => (uint)Rax | ((ulong)(uint)Rdx << 32);

    public bool IsGuestMode => (Hflags & HF_GUEST_MASK) != 0;

    public bool IsSmm => (Hflags & HF_SMM_MASK) != 0;

    public bool IsProtmode => ReadCr0Bits(X86_CR0_PE) != 0;

    public bool IsLongMode => (Efer & EFER_LMA) != 0;

    public bool IsPae => ReadCr4Bits(X86_CR4_PAE) != 0;

    public bool IsPse => ReadCr4Bits(X86_CR4_PSE) != 0;

    public bool IsPaging => ReadCr0Bits(X86_CR0_PG) != 0;

    public bool IsPaePaging => !IsLongMode && IsPae && IsPaging;

    /// <summary>is_64_bit_mode: long mode and CS.L.</summary>
    public bool Is64BitMode
    {
        get
        {
            if (!IsLongMode)
                return false;
            Ops.GetCsDbLBits(this, out _, out bool l);
            return l;
        }
    }

    /// <summary>is_64_bit_hypercall.</summary>
    public bool Is64BitHypercall => GuestStateProtected || Is64BitMode;

    public byte VcpuVirtAddrBits => ReadCr4Bits(X86_CR4_LA57) != 0 ? (byte)57 : (byte)48;

    public bool IsNoncanonicalAddress(ulong la) => X86Bits.IsNoncanonical(la, VcpuVirtAddrBits);

    /// <summary>kvm_get_rflags: RFLAGS without the TF that KVM set for single-stepping.</summary>
    [KernelFunction("kvm_get_rflags", File = "arch/x86/kvm/x86.c")]
    public ulong GetRflags()
    {
        using var _ = FunctionTrace.Enter("kvm_get_rflags");
        return ReadRflags();
    }

    /// <summary>As <see cref="GetRflags"/>, for the common part itself.</summary>
    internal ulong ReadRflags()
    {
        ulong rflags = Ops.GetRflags(this);
        if ((GuestDebug & Abi.Uapi.KVM_GUESTDBG_SINGLESTEP) != 0)
            rflags &= ~X86_EFLAGS_TF;
        return rflags;
    }

    public ulong GetLinearRip()
    {
        using var _ = Core.Tracing.FunctionTrace.Enter("kvm_get_linear_rip");

        // The segment base does not matter in long mode, and userspace may have left garbage there.
        if (Is64BitMode)
            return Rip;
        return (uint)(Ops.GetSegmentBase(this, VcpuSreg.VCPU_SREG_CS) + Rip);
    }

    public bool IsLinearRip(ulong linearRip) => GetLinearRip() == linearRip;

    /// <summary>kvm_read_tr_base and friends are the host's; this is the CPL of the guest, 0 when real mode.</summary>
    public int Cpl => Ops.GetCpl(this);
}

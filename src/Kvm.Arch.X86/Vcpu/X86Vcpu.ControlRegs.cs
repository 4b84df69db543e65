using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.KvmReg;
using static Kvm.Arch.X86.X86Const;
using static Kvm.Arch.X86.X86Request;

namespace Kvm.Arch.X86;

/// <remarks>Guest writes to CR0, CR3, CR4, CR8 and XCR0: 0, or 1 when the instruction faults.</remarks>
public partial class X86Vcpu
{
    private const ulong KVM_ASYNC_PF_ENABLED_BIT = 1;
    private const ulong KVM_ASYNC_PF_DELIVERY_AS_INT_BIT = 1 << 3;

    private bool PvAsyncPfEnabled
    {
        get
        {
            const ulong mask = KVM_ASYNC_PF_ENABLED_BIT | KVM_ASYNC_PF_DELIVERY_AS_INT_BIT;
            return (ApfMsrEnVal & mask) == mask;
        }
    }

    /// <summary>Reads the four PAE page-directory-pointer entries that <paramref name="cr3"/> points at; false when one is invalid or unreadable.</summary>
    [KernelFunction("load_pdptrs", File = "arch/x86/kvm/x86.c")]
    public bool LoadPdptrs(ulong cr3)
    {
        using var _ = FunctionTrace.Enter("load_pdptrs");
        Span<ulong> pdpte = stackalloc ulong[4];
        Span<byte> bytes = System.Runtime.InteropServices.MemoryMarshal.AsBytes(pdpte);
        if (ReadGuestPage(cr3 >> 12, bytes, (int)(cr3 & 0xfe0)) < 0)
            return false;

        ulong reserved = ReservedGpaBits | X86Bits.RsvdBits(5, 8) | X86Bits.RsvdBits(1, 2);
        foreach (ulong entry in pdpte)
        {
            if ((entry & 1) != 0 && (entry & reserved) != 0)
                return false;
        }

        // The four roots stand for these entries.
        if (!Arch.TdpEnabled && !pdpte.SequenceEqual(WalkMmu.Pdptrs))
            Vm.Shadow.FreeRoots(Mmu, ShadowMmu.RootCurrent);
        pdpte.CopyTo(WalkMmu.Pdptrs);
        RegisterMarkDirty(VCPU_EXREG_PDPTR);
        MakeRequest(KVM_REQ_LOAD_MMU_PGD);
        PdptrsFromUserspace = false;
        return true;
    }

    private bool IsValidCr0(ulong cr0)
    {
        if (cr0 >> 32 != 0)
            return false;
        if ((cr0 & X86_CR0_NW) != 0 && (cr0 & X86_CR0_CD) == 0)
            return false;
        if ((cr0 & X86_CR0_PG) != 0 && (cr0 & X86_CR0_PE) == 0)
            return false;
        return Ops.IsValidCr0(this, cr0);
    }

    [KernelFunction("kvm_post_set_cr0", File = "arch/x86/kvm/x86.c")]
    public void PostSetCr0(ulong oldCr0, ulong cr0)
    {
        using var _ = FunctionTrace.Enter("kvm_post_set_cr0");

        // With nested paging CR0.WP changes how guest tables are walked, not the tables that the processor walks for the guest.
        if ((cr0 ^ oldCr0) == X86_CR0_WP && (Arch.TdpEnabled || (cr0 & X86_CR0_PG) == 0))
        {
            if ((cr0 & X86_CR0_PG) != 0)
                InitMmu();
            return;
        }

        if (((cr0 ^ oldCr0) & X86_CR0_PG) != 0)
        {
            if ((cr0 & X86_CR0_PG) == 0)
                MakeRequest(KVM_REQ_TLB_FLUSH_GUEST);
            else if (PvAsyncPfEnabled)
                MakeRequest(KVM_REQ_APF_READY);
        }

        if (((cr0 ^ oldCr0) & KVM_MMU_CR0_ROLE_BITS) != 0)
            MmuResetContext();
    }

    [KernelFunction("kvm_set_cr0", File = "arch/x86/kvm/x86.c")]
    public int SetCr0(ulong cr0)
    {
        using var _ = FunctionTrace.Enter("kvm_set_cr0");
        ulong oldCr0 = ReadCr0();
        if (!IsValidCr0(cr0))
            return 1;

        cr0 |= X86_CR0_ET;
        cr0 &= ~CR0_RESERVED_BITS;

        bool lme = (Efer & EFER_LME) != 0;
        bool pg = (cr0 & X86_CR0_PG) != 0;
        if (lme && !IsPaging && pg)
        {
            if (!IsPae)
                return 1;
            Ops.GetCsDbLBits(this, out bool _, out bool csL);
            if (csL)
                return 1;
        }

        if (!lme && pg && IsPae && ((cr0 ^ oldCr0) & X86_CR0_PDPTR_BITS) != 0 && !LoadPdptrs(ReadCr3()))
            return 1;
        if (!pg && (Is64BitMode || ReadCr4Bits(X86_CR4_PCIDE) != 0))
            return 1;

        Ops.SetCr0(this, cr0);
        PostSetCr0(oldCr0, cr0);
        return 0;
    }

    [KernelFunction("kvm_lmsw", File = "arch/x86/kvm/x86.c")]
    public void Lmsw(ulong msw) => SetCr0(ReadCr0Bits(~0x0eul) | (msw & 0x0f));

    /// <summary>__kvm_is_valid_cr4: the bits that KVM and the guest's CPUID allow.</summary>
    public bool IsValidCr4Common(ulong cr4) => (cr4 & Arch.Cr4ReservedBits) == 0 && (cr4 & Cr4GuestRsvdBits) == 0;

    private bool IsValidCr4(ulong cr4) => IsValidCr4Common(cr4) && Ops.IsValidCr4(this, cr4);

    [KernelFunction("kvm_post_set_cr4", File = "arch/x86/kvm/x86.c")]
    public void PostSetCr4(ulong oldCr4, ulong cr4)
    {
        ulong changed = cr4 ^ oldCr4;
        if ((changed & KVM_MMU_CR4_ROLE_BITS) != 0)
            MmuResetContext();

        // Remembered roots have no PCID: they would be taken for those of PCID 0.
        if (!Arch.TdpEnabled && (cr4 & X86_CR4_PCIDE) != 0 && (oldCr4 & X86_CR4_PCIDE) == 0)
            MmuUnload();

        // Toggling PGE or clearing PCIDE drops the entries of every PCID; toggling PAE or setting SMEP those of the current one.
        if ((changed & X86_CR4_PGE) != 0 || ((cr4 & X86_CR4_PCIDE) == 0 && (oldCr4 & X86_CR4_PCIDE) != 0))
            MakeRequest(KVM_REQ_TLB_FLUSH_GUEST);
        else if ((changed & X86_CR4_PAE) != 0 || ((cr4 & X86_CR4_SMEP) != 0 && (oldCr4 & X86_CR4_SMEP) == 0))
            MakeRequest(KVM_REQ_TLB_FLUSH_CURRENT);
    }

    [KernelFunction("kvm_set_cr4", File = "arch/x86/kvm/x86.c")]
    public int SetCr4(ulong cr4)
    {
        using var _ = FunctionTrace.Enter("kvm_set_cr4");
        ulong oldCr4 = ReadCr4();
        if (!IsValidCr4(cr4))
            return 1;

        if (IsLongMode)
        {
            if ((cr4 & X86_CR4_PAE) == 0)
                return 1;
            if (((cr4 ^ oldCr4) & X86_CR4_LA57) != 0)
                return 1;
        }
        else if (IsPaging && (cr4 & X86_CR4_PAE) != 0 && ((cr4 ^ oldCr4) & X86_CR4_PDPTR_BITS) != 0 && !LoadPdptrs(ReadCr3()))
        {
            return 1;
        }

        if ((cr4 & X86_CR4_PCIDE) != 0 && (oldCr4 & X86_CR4_PCIDE) == 0)
        {
            if (!GuestCpuidHas(X86Feature.PCID))
                return 1;
            if ((ReadCr3() & X86_CR3_PCID_MASK) != 0 || !IsLongMode)
                return 1;
        }

        Ops.SetCr4(this, cr4);
        PostSetCr4(oldCr4, cr4);
        return 0;
    }

    [KernelFunction("kvm_set_cr3", File = "arch/x86/kvm/x86.c")]
    public int SetCr3(ulong cr3)
    {
        using var _ = FunctionTrace.Enter("kvm_set_cr3");
        bool skipTlbFlush = false;
        ulong pcid = 0;
        if (ReadCr4Bits(X86_CR4_PCIDE) != 0)
        {
            skipTlbFlush = (cr3 & X86_CR3_PCID_NOFLUSH) != 0;
            cr3 &= ~X86_CR3_PCID_NOFLUSH;
            pcid = cr3 & X86_CR3_PCID_MASK;
        }

        // The PDPTEs are reloaded by every MOV CR3 with PAE paging, an equal value included.
        if (cr3 != ReadCr3() || IsPaePaging)
        {
            if (IsIllegalGpa(cr3))
                return 1;
            if (IsPaePaging && !LoadPdptrs(cr3))
                return 1;
            if (cr3 != ReadCr3())
                MmuNewPgd(cr3);
            Cr3 = cr3;
            RegisterMarkDirty(VCPU_EXREG_CR3);
        }

        if (!skipTlbFlush)
            InvalidatePcid(pcid);
        return 0;
    }

    [KernelFunction("kvm_set_cr8", File = "arch/x86/kvm/x86.c")]
    public int SetCr8(ulong cr8)
    {
        using var _ = FunctionTrace.Enter("kvm_set_cr8");
        if ((cr8 & CR8_RESERVED_BITS) != 0)
            return 1;
        if (Apic is { } apic)
            apic.SetTpr(cr8);
        else
            Cr8 = cr8;
        return 0;
    }

    [KernelFunction("kvm_get_cr8", File = "arch/x86/kvm/x86.c")]
    public ulong GetCr8()
    {
        using var _ = FunctionTrace.Enter("kvm_get_cr8");
        return Apic?.GetCr8() ?? Cr8;
    }

    /// <summary>kvm_vcpu_is_illegal_gpa.</summary>
    public bool IsIllegalGpa(ulong gpa) => (gpa & ReservedGpaBits) != 0;

    public bool IsLegalGpa(ulong gpa) => !IsIllegalGpa(gpa);

    /// <summary>update_cr8_intercept: the guest's lowering of TPR must be seen while that would let an interrupt through.</summary>
    [KernelFunction("update_cr8_intercept", File = "arch/x86/kvm/x86.c")]
    internal void UpdateCr8Intercept()
    {
        using var _ = FunctionTrace.Enter("update_cr8_intercept");
        if (Apic is not { ApicvActive: false } apic)
            return;
        int maxIrr = apic.VapicAddr == 0 ? apic.LapicFindHighestIrr() : -1;
        if (maxIrr != -1)
            maxIrr >>= 4;
        Ops.UpdateCr8Intercept(this, (int)apic.GetCr8(), maxIrr);
    }

    [KernelFunction("__kvm_set_xcr", File = "arch/x86/kvm/x86.c")]
    internal int SetXcr(uint index, ulong xcr0)
    {
        if (index != 0)
            return 1;
        if ((xcr0 & XFEATURE_MASK_FP) == 0)
            return 1;
        if ((xcr0 & XFEATURE_MASK_YMM) != 0 && (xcr0 & XFEATURE_MASK_SSE) == 0)
            return 1;
        if ((xcr0 & ~(GuestSupportedXcr0 | XFEATURE_MASK_FP)) != 0)
            return 1;
        if (((xcr0 & XFEATURE_MASK_BNDREGS) == 0) != ((xcr0 & XFEATURE_MASK_BNDCSR) == 0))
            return 1;
        if ((xcr0 & XFEATURE_MASK_AVX512) != 0)
        {
            if ((xcr0 & XFEATURE_MASK_YMM) == 0)
                return 1;
            if ((xcr0 & XFEATURE_MASK_AVX512) != XFEATURE_MASK_AVX512)
                return 1;
        }

        if ((xcr0 & XFEATURE_MASK_XTILE) != 0 && (xcr0 & XFEATURE_MASK_XTILE) != XFEATURE_MASK_XTILE)
            return 1;

        ulong old = Xcr0;
        Xcr0 = xcr0;
        if (((xcr0 ^ old) & ~XFEATURE_MASK_FPSSE & ~(1ul << 63)) != 0)
            UpdateCpuidRuntime();
        return 0;
    }

    /// <summary>Exit handler of XSETBV.</summary>
    [KernelFunction("kvm_emulate_xsetbv", File = "arch/x86/kvm/x86.c")]
    public int EmulateXsetbv()
    {
        using var _ = FunctionTrace.Enter("kvm_emulate_xsetbv");
        if (Ops.GetCpl(this) != 0 || SetXcr((uint)Rcx, ReadEdxEax()) != 0)
        {
            InjectGp(0);
            return 1;
        }

        return SkipEmulatedInstruction();
    }

    /// <summary>Gives the processor the guest's XCR0, XSS and PKRU; just before the entry, interrupts off.</summary>
    [KernelFunction("kvm_load_guest_xsave_state", File = "arch/x86/kvm/x86.c")]
    public void LoadGuestXsaveState()
    {
        using var _ = FunctionTrace.Enter("kvm_load_guest_xsave_state");
        if (GuestStateProtected)
            return;
        if (ReadCr4Bits(X86_CR4_OSXSAVE) != 0)
        {
            HostX86Cpu cpu = Arch.HostX86.ThisCpu;
            if (Xcr0 != Arch.HostXcr0)
                cpu.Xsetbv(0, Xcr0);
            if (XsavesEnabled && Ia32Xss != Arch.HostXss)
                cpu.Wrmsr(MsrIndex.MSR_IA32_XSS, Ia32Xss);
        }

        if (UsesPkru && Pkru != HostPkru)
            Arch.HostX86.ThisCpu.WritePkru(Pkru);
    }

    /// <summary>The reverse of <see cref="LoadGuestXsaveState"/>, just after the exit.</summary>
    [KernelFunction("kvm_load_host_xsave_state", File = "arch/x86/kvm/x86.c")]
    public void LoadHostXsaveState()
    {
        using var _ = FunctionTrace.Enter("kvm_load_host_xsave_state");
        if (GuestStateProtected)
            return;
        if (UsesPkru)
        {
            HostX86Cpu cpu = Arch.HostX86.ThisCpu;
            Pkru = cpu.ReadPkru();
            if (Pkru != HostPkru)
                cpu.WritePkru(HostPkru);
        }

        if (ReadCr4Bits(X86_CR4_OSXSAVE) != 0)
        {
            HostX86Cpu cpu = Arch.HostX86.ThisCpu;
            if (Xcr0 != Arch.HostXcr0)
                cpu.Xsetbv(0, Arch.HostXcr0);
            if (XsavesEnabled && Ia32Xss != Arch.HostXss)
                cpu.Wrmsr(MsrIndex.MSR_IA32_XSS, Arch.HostXss);
        }
    }

    /// <summary>The guest can read and write PKRU.</summary>
    private bool UsesPkru => Arch.HostX86.HasPku && ((Xcr0 & XFEATURE_MASK_PKRU) != 0 || ReadCr4Bits(X86_CR4_PKE) != 0);
}

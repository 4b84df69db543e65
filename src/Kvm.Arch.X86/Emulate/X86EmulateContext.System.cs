using Iced.Intel;
using Kvm.Abi;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.VcpuSreg;
using static Kvm.Arch.X86.X86Const;
using Kind = Kvm.Arch.X86.EmulOperand.Kind;

namespace Kvm.Arch.X86;

/// <remarks>System instructions.</remarks>
public sealed unsafe partial class X86EmulateContext
{
    private int SystemInstruction(Mnemonic op)
    {
        switch (op)
        {
            case Mnemonic.Hlt:
                vcpu.HaltRequest = 1;
                return Continue;
            case Mnemonic.Clts:
                vcpu.SetCr(0, vcpu.GetCr(0) & ~X86_CR0_TS);
                return Continue;
            case Mnemonic.Lmsw: return Lmsw();
            case Mnemonic.Smsw: return StoreSystem(vcpu.GetCr(0));
            case Mnemonic.Sldt: return StoreSystem(Selector(VCPU_SREG_LDTR));
            case Mnemonic.Str: return StoreSystem(Selector(VCPU_SREG_TR));
            case Mnemonic.Lldt or Mnemonic.Ltr:
                int rc = FetchOperand(ref dst);
                return rc != Continue ? rc : LoadSegment((ushort)dst.Val, op == Mnemonic.Lldt ? VCPU_SREG_LDTR : VCPU_SREG_TR);
            case Mnemonic.Lgdt or Mnemonic.Lidt: return LoadTable(op == Mnemonic.Lgdt);
            case Mnemonic.Sgdt or Mnemonic.Sidt: return StoreTable(op == Mnemonic.Sgdt);
            case Mnemonic.Invlpg: return Invlpg();
            case Mnemonic.Rdmsr: return Rdmsr();
            case Mnemonic.Wrmsr: return Wrmsr();
            case Mnemonic.Rdtsc: return Rdtsc();
            case Mnemonic.Rdpmc: return Rdpmc();
            case Mnemonic.Rdpid: return Rdpid();
            case Mnemonic.Cpuid: return Cpuid();
            case Mnemonic.Xsetbv: return Xsetbv();
            case Mnemonic.Vmcall or Mnemonic.Vmmcall: return FixHypercall();
            case Mnemonic.Rsm: return Rsm();
            case Mnemonic.Fxsave or Mnemonic.Fxsave64: return Fxsave();
            case Mnemonic.Fxrstor or Mnemonic.Fxrstor64: return Fxrstor();
            case Mnemonic.Fninit or Mnemonic.Fnstcw or Mnemonic.Fnstsw: return Fpu(op);
            default: return Unhandleable;
        }
    }

    private bool CrAccessAllowed(int cr, ulong value, bool write, out int fault)
    {
        fault = Continue;
        if (cr is not (0 or 2 or 3 or 4 or 8))
            fault = Ud();
        return fault == Continue;
    }

    /// <summary>check_dr_read and check_dr_write: DR4 and DR5 with CR4.DE, upper halves of DR6 and DR7, general detect.</summary>
    private bool DrAccessAllowed(int dr, bool write, ulong value, out int fault)
    {
        fault = Continue;
        if (write && dr is 6 or 7 && value >> 32 != 0)
        {
            fault = Gp(0);
            return false;
        }

        if (dr > 7 || ((vcpu.ReadCr4() & X86_CR4_DE) != 0 && dr is 4 or 5))
        {
            fault = Ud();
            return false;
        }

        if ((vcpu.GetDr(7) & DR7_GD) == 0)
            return true;
        vcpu.SetDr(6, (vcpu.GetDr(6) & ~DR_TRAP_BITS) | DR6_BD | DR6_ACTIVE_LOW);
        fault = Db();
        return false;
    }

    private ulong Selector(int seg)
    {
        ops.GetSegment(vcpu, out kvm_segment segment, seg);
        return segment.selector;
    }

    private bool UmipBlocks => (vcpu.ReadCr4() & X86_CR4_UMIP) != 0 && ops.GetCpl(vcpu) > 0;

    private int StoreSystem(ulong value)
    {
        if (UmipBlocks)
            return Gp(0);
        if (dst.Type == Kind.Mem)
            dst.Bytes = 2;
        return StoreOperand(ref dst, value);
    }

    private int Lmsw()
    {
        int rc = FetchOperand(ref dst);
        if (rc != Continue)
            return rc;
        vcpu.SetCr(0, (vcpu.GetCr(0) & ~0x0eul) | (dst.Val & 0x0f));
        return RecalculateMode();
    }

    private int LoadTable(bool gdt)
    {
        int bytes = Mode == EmulMode.Prot64 ? 8 : opBytes;
        byte* raw = stackalloc byte[10];
        *(ulong*)(raw + 2) = 0;
        int rc = SegmentedRead(dst.Seg, dst.Ea, raw, 2 + (bytes == 2 ? 4 : bytes));
        if (rc != Continue)
            return rc;
        var table = new DescPtr { Size = *(ushort*)raw, Address = bytes switch { 2 => *(uint*)(raw + 2) & 0xffffff, 4 => *(uint*)(raw + 2), _ => *(ulong*)(raw + 2) } };
        if (Mode == EmulMode.Prot64 && vcpu.IsNoncanonicalAddress(table.Address))
            return Gp(0);
        if (gdt)
            ops.SetGdt(vcpu, table);
        else
            ops.SetIdt(vcpu, table);
        return Continue;
    }

    private int StoreTable(bool gdt)
    {
        if (UmipBlocks)
            return Gp(0);
        DescPtr table;
        if (gdt)
            ops.GetGdt(vcpu, out table);
        else
            ops.GetIdt(vcpu, out table);
        int bytes = Mode == EmulMode.Prot64 ? 8 : 4;
        if (opBytes == 2 && Mode != EmulMode.Prot64)
            table.Address &= 0xffffff;
        byte* raw = memRead + MemReadBytes - 16;
        *(ushort*)raw = table.Size;
        *(ulong*)(raw + 2) = table.Address;
        return SegmentedWrite(dst.Seg, dst.Ea, raw, 2 + bytes);
    }

    private int Invlpg()
    {
        if (Linearize(dst.Seg, dst.Ea, 1, false, out ulong linear) == Continue)
            vcpu.MmuInvlpg(linear);
        return Continue;
    }

    private int Rdmsr()
    {
        int r = vcpu.EmulatorGetMsr((uint)RegRead(RCX), out ulong data);
        if (r == IoNeeded)
            return IoNeeded;
        if (r != Continue)
            return Gp(0);
        RegWrite(RAX, (uint)data);
        RegWrite(RDX, data >> 32);
        return Continue;
    }

    private int Wrmsr()
    {
        uint index = (uint)RegRead(RCX);
        ulong data = (uint)RegRead(RAX) | (RegRead(RDX) << 32);
        int r = vcpu.EmulatorSetMsr(index, data);
        return r == Continue || r == IoNeeded ? r : Gp(0);
    }

    private int Rdtsc()
    {
        if ((vcpu.ReadCr4() & X86_CR4_TSD) != 0 && ops.GetCpl(vcpu) != 0)
            return Gp(0);
        ulong tsc = GetMsr(MsrIndex.MSR_IA32_TSC);
        RegWrite(RAX, (uint)tsc);
        RegWrite(RDX, tsc >> 32);
        return Continue;
    }

    private int Rdpmc()
    {
        if ((vcpu.ReadCr4() & X86_CR4_PCE) == 0 && ops.GetCpl(vcpu) != 0)
            return Gp(0);
        if (!vcpu.ReadPmc((uint)RegRead(RCX), out ulong data))
            return Gp(0);
        RegWrite(RAX, (uint)data);
        RegWrite(RDX, data >> 32);
        return Continue;
    }

    private int Rdpid()
    {
        if (!vcpu.GuestCpuidHas(X86Feature.RDPID))
            return Ud();
        RegWrite(dst.Reg, GetMsr(MsrIndex.MSR_TSC_AUX));
        return Continue;
    }

    private int Cpuid()
    {
        uint eax = (uint)RegRead(RAX);
        uint ecx = (uint)RegRead(RCX);
        if ((vcpu.MsrMiscFeaturesEnables & MsrBits.MSR_MISC_FEATURES_ENABLES_CPUID_FAULT) != 0 && ops.GetCpl(vcpu) != 0)
            return Gp(0);
        vcpu.Cpuid(ref eax, out uint ebx, ref ecx, out uint edx, exactOnly: false);
        RegWrite(RAX, eax);
        RegWrite(RBX, ebx);
        RegWrite(RCX, ecx);
        RegWrite(RDX, edx);
        return Continue;
    }

    private int Xsetbv()
    {
        if ((vcpu.ReadCr4() & X86_CR4_OSXSAVE) == 0)
            return Ud();
        ulong value = (uint)RegRead(RAX) | (RegRead(RDX) << 32);
        return vcpu.SetXcr((uint)RegRead(RCX), value) != 0 ? Gp(0) : Continue;
    }

    /// <summary>emulator_fix_hypercall: replaces the other vendor's hypercall instruction by this one's, then the guest executes it.</summary>
    private int FixHypercall()
    {
        int rc = vcpu.FixHypercall(this);
        NextEip = Eip;
        return rc;
    }

    // ---- FXSAVE, FXRSTOR ----
    private const int FxHeadBytes = 160;
    private const int FxImageBytes = 512;

    /// <summary>check_fxsr: 64-bit code is left to the processor.</summary>
    private int CheckFxsr()
    {
        if (!vcpu.GuestCpuidHas(X86Feature.FXSR))
            return Ud();
        if ((vcpu.ReadCr0() & (X86_CR0_TS | X86_CR0_EM)) != 0)
            return Nm();
        return Mode == EmulMode.Prot64 ? Unhandleable : Continue;
    }

    /// <summary>__fxstate_size: the XMM registers that the guest's code has.</summary>
    private int FxBytes => FxHeadBytes + ((vcpu.ReadCr4() & X86_CR4_OSFXSR) != 0 ? 8 * 16 : 0);

    /// <summary>What FXSAVE and FXRSTOR begin with: the registers' image, and where in the guest's memory how much of it goes or comes from.</summary>
    private int BeginFx(byte* image, bool write, out int size, out ulong linear)
    {
        (size, linear) = (0, 0);
        int rc = CheckFxsr();
        if (rc != Continue)
            return rc;
        vcpu.FpuFxsave(image);
        size = FxBytes;
        return Linearize(dst.Seg, modrmEa, (uint)size, write, out linear);
    }

    /// <summary>em_fxsave.</summary>
    private int Fxsave()
    {
        byte* image = stackalloc byte[FxImageBytes];
        int rc = BeginFx(image, write: true, out int size, out ulong linear);
        if (rc != Continue)
            return rc;
        rc = vcpu.WriteGuestVirt(linear, new ReadOnlySpan<byte>(image, size), out X86Exception fault);
        if (rc == PropagateFault)
            Exception = fault;
        return rc;
    }

    /// <summary>em_fxrstor: what the guest's image does not have stays as it is in the registers.</summary>
    private int Fxrstor()
    {
        byte* image = stackalloc byte[FxImageBytes];
        int rc = BeginFx(image, write: false, out int size, out ulong linear);
        if (rc != Continue)
            return rc;
        rc = vcpu.ReadGuestVirt(linear, new Span<byte>(image, size), out X86Exception fault);
        if (rc == PropagateFault)
            Exception = fault;
        if (rc != Continue)
            return rc;
        if (*(uint*)(image + 24) >> 16 != 0)
            return Gp(0);
        return vcpu.FpuFxrstor(image) ? Continue : Unhandleable;
    }

    private int Fpu(Mnemonic op)
    {
        if ((vcpu.ReadCr0() & (X86_CR0_TS | X86_CR0_EM)) != 0)
            return Nm();
        switch (op)
        {
            case Mnemonic.Fninit:
                vcpu.FpuInit();
                return Continue;
            case Mnemonic.Fnstcw:
                return StoreOperand(ref dst, vcpu.FpuControlWord);
            default:
                return StoreOperand(ref dst, vcpu.FpuStatusWord);
        }
    }
}

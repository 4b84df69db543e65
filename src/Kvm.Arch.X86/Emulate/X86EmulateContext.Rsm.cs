using System.Buffers.Binary;
using Kvm.Abi;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.VcpuSreg;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86;

/// <remarks>RSM: back from system-management mode through the state-save area.</remarks>
public sealed unsafe partial class X86EmulateContext
{
    internal const int SmramSize = 512;

    internal static uint Smm32(ReadOnlySpan<byte> area, int offset) => BinaryPrimitives.ReadUInt32LittleEndian(area[(offset - 0x7e00)..]);

    internal static ulong Smm64(ReadOnlySpan<byte> area, int offset) => BinaryPrimitives.ReadUInt64LittleEndian(area[(offset - 0x7e00)..]);

    internal static ushort Smm16(ReadOnlySpan<byte> area, int offset) => BinaryPrimitives.ReadUInt16LittleEndian(area[(offset - 0x7e00)..]);

    private bool HasLongMode => vcpu.GuestCpuidHas(X86Feature.LM);

    private int Rsm()
    {
        if (!vcpu.IsSmm)
            return Ud();
        Span<byte> area = stackalloc byte[SmramSize];
        if (vcpu.ReadGuest(vcpu.Smbase + 0xfe00, area) < 0)
            return Unhandleable;
        if ((vcpu.Hflags & HF_SMM_INSIDE_NMI_MASK) == 0)
            ops.SetNmiMask(vcpu, false);
        vcpu.SmmChanged(false);
        LeaveProtectedMode();
        if (ops.LeaveSmm(vcpu, area) != 0 || (HasLongMode ? LoadState64(area) : LoadState32(area)) != Continue)
        {
            vcpu.MakeRequest(X86Request.KVM_REQ_TRIPLE_FAULT);
            return Continue;
        }

        return RecalculateMode();
    }

    /// <summary>A state in which CR0, CR3, CR4 and EFER can be loaded in any combination.</summary>
    private void LeaveProtectedMode()
    {
        if (HasLongMode)
        {
            ulong cr4 = vcpu.GetCr(4);
            if ((cr4 & X86_CR4_PCIDE) != 0)
                vcpu.SetCr(4, cr4 & ~X86_CR4_PCIDE);
            ops.SetSegment(vcpu, new kvm_segment { type = 0xb, s = 1, g = 1, present = 1 }, VCPU_SREG_CS);
        }

        ulong cr0 = vcpu.GetCr(0);
        if ((cr0 & X86_CR0_PE) != 0)
            vcpu.SetCr(0, cr0 & ~(X86_CR0_PG | X86_CR0_PE));
        if (!HasLongMode)
            return;
        ulong pae = vcpu.GetCr(4);
        if ((pae & X86_CR4_PAE) != 0)
            vcpu.SetCr(4, pae & ~X86_CR4_PAE);
        vcpu.SetMsr(MsrIndex.MSR_EFER, 0);
    }

    private static kvm_segment WithFlags(uint flags, ushort selector, ulong @base, uint limit) => new()
    {
        selector = selector,
        @base = @base,
        limit = limit,
        g = (byte)((flags >> 23) & 1),
        db = (byte)((flags >> 22) & 1),
        l = (byte)((flags >> 21) & 1),
        avl = (byte)((flags >> 20) & 1),
        present = (byte)((flags >> 15) & 1),
        dpl = (byte)((flags >> 13) & 3),
        s = (byte)((flags >> 12) & 1),
        type = (byte)((flags >> 8) & 15),
        unusable = (flags & 0x8000) == 0 ? (byte)1 : (byte)0,
    };

    private void LoadSegment32(ReadOnlySpan<byte> area, int seg, int offset, int selectorOffset) =>
        ops.SetSegment(vcpu, WithFlags(Smm32(area, offset), (ushort)Smm32(area, selectorOffset), Smm32(area, offset + 8), Smm32(area, offset + 4)), seg);

    private void LoadSegment64(ReadOnlySpan<byte> area, int seg, int offset) =>
        ops.SetSegment(vcpu, WithFlags((uint)Smm16(area, offset + 2) << 8, Smm16(area, offset), Smm64(area, offset + 8), Smm32(area, offset + 4)), seg);

    private int EnterProtectedMode(ulong cr0, ulong cr3, ulong cr4)
    {
        ulong pcid = 0;
        if ((cr4 & X86_CR4_PCIDE) != 0)
        {
            pcid = cr3 & 0xfff;
            cr3 &= ~0xffful;
        }

        if (vcpu.SetCr(3, cr3) != 0 || vcpu.SetCr(4, cr4 & ~X86_CR4_PCIDE) != 0 || vcpu.SetCr(0, cr0) != 0)
            return Unhandleable;
        if ((cr4 & X86_CR4_PCIDE) == 0)
            return Continue;
        return vcpu.SetCr(4, cr4) != 0 || (pcid != 0 && vcpu.SetCr(3, cr3 | pcid) != 0) ? Unhandleable : Continue;
    }

    private int LoadState32(ReadOnlySpan<byte> area)
    {
        Eflags = Smm32(area, 0x7ff4) | X86_EFLAGS_FIXED;
        NextEip = Smm32(area, 0x7ff0);
        for (int i = 0; i < 8; i++)
            RegWrite(i, Smm32(area, 0x7fd0 + (i * 4)));
        if (vcpu.SetDr(6, Smm32(area, 0x7fcc)) != 0 || vcpu.SetDr(7, Smm32(area, 0x7fc8)) != 0)
            return Unhandleable;
        LoadSegment32(area, VCPU_SREG_TR, 0x7f5c, 0x7fc4);
        LoadSegment32(area, VCPU_SREG_LDTR, 0x7f78, 0x7fc0);
        ops.SetGdt(vcpu, new DescPtr { Address = Smm32(area, 0x7f74), Size = (ushort)Smm32(area, 0x7f70) });
        ops.SetIdt(vcpu, new DescPtr { Address = Smm32(area, 0x7f58), Size = (ushort)Smm32(area, 0x7f54) });
        for (int i = 0; i < 6; i++)
            LoadSegment32(area, i, i < 3 ? 0x7f84 + (i * 12) : 0x7f2c + ((i - 3) * 12), 0x7fa8 + (i * 4));
        vcpu.Smbase = Smm32(area, 0x7ef8);
        return EnterProtectedMode(Smm32(area, 0x7ffc), Smm32(area, 0x7ff8), Smm32(area, 0x7f14));
    }

    private int LoadState64(ReadOnlySpan<byte> area)
    {
        for (int i = 0; i < 16; i++)
            RegWrite(i, Smm64(area, 0x7ff8 - (i * 8)));
        NextEip = Smm64(area, 0x7f78);
        Eflags = Smm32(area, 0x7f70) | X86_EFLAGS_FIXED;
        if (vcpu.SetDr(6, Smm64(area, 0x7f68)) != 0 || vcpu.SetDr(7, Smm64(area, 0x7f60)) != 0)
            return Unhandleable;
        vcpu.Smbase = Smm32(area, 0x7f00);
        if (vcpu.SetMsr(MsrIndex.MSR_EFER, Smm64(area, 0x7ed0) & ~EFER_LMA) != 0)
            return Unhandleable;
        LoadSegment64(area, VCPU_SREG_TR, 0x7e90);
        ops.SetIdt(vcpu, new DescPtr { Size = (ushort)Smm32(area, 0x7e84), Address = Smm64(area, 0x7e88) });
        LoadSegment64(area, VCPU_SREG_LDTR, 0x7e70);
        ops.SetGdt(vcpu, new DescPtr { Size = (ushort)Smm32(area, 0x7e64), Address = Smm64(area, 0x7e68) });
        int rc = EnterProtectedMode(Smm64(area, 0x7f58), Smm64(area, 0x7f50), Smm64(area, 0x7f48));
        if (rc != Continue)
            return rc;
        for (int i = 0; i < 6; i++)
            LoadSegment64(area, i, 0x7e00 + (i * 16));
        return Continue;
    }
}

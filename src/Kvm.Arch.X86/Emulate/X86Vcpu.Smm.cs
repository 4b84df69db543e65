using System.Buffers.Binary;
using Kvm.Abi;
using Kvm.Core.Tracing;
using static Kvm.Arch.X86.VcpuSreg;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86;

/// <remarks>System-management mode: the state-save area of an AMD processor, in its 32- or 64-bit format by the guest's CPUID.</remarks>
public unsafe partial class X86Vcpu
{
    /// <summary>kvm_smm_changed.</summary>
    [KernelFunction("kvm_smm_changed", File = "arch/x86/kvm/x86.c")]
    public void SmmChanged(bool entering)
    {
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_smm_transition", $"vcpu {VcpuId}: {(entering ? "entering" : "leaving")} SMM, smbase 0x{Smbase:x}");
        if (entering)
        {
            Hflags |= HF_SMM_MASK;
        }
        else
        {
            Hflags &= ~(HF_SMM_MASK | HF_SMM_INSIDE_NMI_MASK);

            // An INIT or SMI that had to wait.
            MakeRequest(X86Request.KVM_REQ_EVENT);
            PdptrsFromUserspace = false;
        }

        MmuResetContext();
    }

    private static void Put16(Span<byte> area, int offset, uint value) => BinaryPrimitives.WriteUInt16LittleEndian(area[(offset - 0x7e00)..], (ushort)value);

    private static void Put32(Span<byte> area, int offset, ulong value) => BinaryPrimitives.WriteUInt32LittleEndian(area[(offset - 0x7e00)..], (uint)value);

    private static void Put64(Span<byte> area, int offset, ulong value) => BinaryPrimitives.WriteUInt64LittleEndian(area[(offset - 0x7e00)..], value);

    private static uint SegmentFlags(in kvm_segment s) =>
        ((uint)s.g << 23) | ((uint)s.db << 22) | ((uint)s.l << 21) | ((uint)s.avl << 20) | ((uint)s.present << 15) | ((uint)s.dpl << 13) | ((uint)s.s << 12)
        | ((uint)s.type << 8);

    private void SaveSegment32(Span<byte> area, int seg, int offset, int selectorOffset)
    {
        Ops.GetSegment(this, out kvm_segment s, seg);
        Put32(area, selectorOffset, s.selector);
        Put32(area, offset + 8, s.@base);
        Put32(area, offset + 4, s.limit);
        Put32(area, offset, SegmentFlags(s));
    }

    private void SaveSegment64(Span<byte> area, int seg, int offset)
    {
        Ops.GetSegment(this, out kvm_segment s, seg);
        Put16(area, offset, s.selector);
        Put16(area, offset + 2, SegmentFlags(s) >> 8);
        Put32(area, offset + 4, s.limit);
        Put64(area, offset + 8, s.@base);
    }

    private void SaveSmmState32(Span<byte> area)
    {
        Put32(area, 0x7ffc, ReadCr0());
        Put32(area, 0x7ff8, ReadCr3());
        Put32(area, 0x7ff4, ReadRflags());
        Put32(area, 0x7ff0, Rip);
        for (int i = 0; i < 8; i++)
            Put32(area, 0x7fd0 + (i * 4), RegisterReadRaw((KvmReg)i));
        Put32(area, 0x7fcc, GetDr(6));
        Put32(area, 0x7fc8, GetDr(7));
        SaveSegment32(area, VCPU_SREG_TR, 0x7f5c, 0x7fc4);
        SaveSegment32(area, VCPU_SREG_LDTR, 0x7f78, 0x7fc0);
        Ops.GetGdt(this, out DescPtr gdt);
        Put32(area, 0x7f74, gdt.Address);
        Put32(area, 0x7f70, gdt.Size);
        Ops.GetIdt(this, out DescPtr idt);
        Put32(area, 0x7f58, idt.Address);
        Put32(area, 0x7f54, idt.Size);
        for (int i = 0; i < 6; i++)
            SaveSegment32(area, i, i < 3 ? 0x7f84 + (i * 12) : 0x7f2c + ((i - 3) * 12), 0x7fa8 + (i * 4));
        Put32(area, 0x7f14, ReadCr4());
        Put32(area, 0x7efc, 0x00020000);
        Put32(area, 0x7ef8, Smbase);
    }

    private void SaveSmmState64(Span<byte> area)
    {
        for (int i = 0; i < 16; i++)
            Put64(area, 0x7ff8 - (i * 8), RegisterReadRaw((KvmReg)i));
        Put64(area, 0x7f78, Rip);
        Put32(area, 0x7f70, ReadRflags());
        Put64(area, 0x7f68, GetDr(6));
        Put64(area, 0x7f60, GetDr(7));
        Put64(area, 0x7f58, ReadCr0());
        Put64(area, 0x7f50, ReadCr3());
        Put64(area, 0x7f48, ReadCr4());
        Put32(area, 0x7f00, Smbase);
        Put32(area, 0x7efc, 0x00020064);
        Put64(area, 0x7ed0, Efer);
        SaveSegment64(area, VCPU_SREG_TR, 0x7e90);
        Ops.GetIdt(this, out DescPtr idt);
        Put32(area, 0x7e84, idt.Size);
        Put64(area, 0x7e88, idt.Address);
        SaveSegment64(area, VCPU_SREG_LDTR, 0x7e70);
        Ops.GetGdt(this, out DescPtr gdt);
        Put32(area, 0x7e64, gdt.Size);
        Put64(area, 0x7e68, gdt.Address);
        for (int i = 0; i < 6; i++)
            SaveSegment64(area, i, 0x7e00 + (i * 16));
    }

    [KernelFunction("enter_smm", File = "arch/x86/kvm/x86.c")]
    private void EnterSmm()
    {
        using var _ = FunctionTrace.Enter("enter_smm");
        Span<byte> area = stackalloc byte[X86EmulateContext.SmramSize];
        area.Clear();
        bool longMode = GuestCpuidHas(X86Feature.LM);
        if (longMode)
            SaveSmmState64(area);
        else
            SaveSmmState32(area);

        // The vendor may leave guest mode here, after the state was saved.
        Ops.EnterSmm(this, area);
        SmmChanged(true);
        WriteGuest(Smbase + 0xfe00, area);
        if (Ops.GetNmiMask(this))
            Hflags |= HF_SMM_INSIDE_NMI_MASK;
        else
            Ops.SetNmiMask(this, true);

        SetRflags(X86_EFLAGS_FIXED);
        Rip = 0x8000;
        ulong cr0 = Cr0 & ~(X86_CR0_PE | X86_CR0_EM | X86_CR0_TS | X86_CR0_PG);
        Ops.SetCr0(this, cr0);
        Cr0 = cr0;
        Ops.SetCr4(this, 0);
        Ops.SetIdt(this, default);
        SetDr(7, DR7_FIXED_1);

        var data = new kvm_segment { limit = 0xffffffff, type = 3, s = 1, g = 1, present = 1 };
        kvm_segment code = data;
        code.selector = (ushort)(Smbase >> 4);
        code.@base = Smbase;
        Ops.SetSegment(this, code, VCPU_SREG_CS);
        Ops.SetSegment(this, data, VCPU_SREG_DS);
        Ops.SetSegment(this, data, VCPU_SREG_ES);
        Ops.SetSegment(this, data, VCPU_SREG_FS);
        Ops.SetSegment(this, data, VCPU_SREG_GS);
        Ops.SetSegment(this, data, VCPU_SREG_SS);
        if (longMode)
            Ops.SetEfer(this, 0);
        UpdateCpuidRuntime();
        MmuResetContext();
    }
}

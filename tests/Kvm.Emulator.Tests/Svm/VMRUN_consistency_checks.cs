using Kvm.Emulator.Svm;

namespace Kvm.Emulator.Tests.Svm;

/// <summary>Every check of APM vol 2, "Canonicalization and Consistency Checks": the state that breaks it exits with VMEXIT_INVALID, its neighbour enters.</summary>
public sealed unsafe class VMRUN_consistency_checks : IDisposable
{
    private readonly SvmMachine m = new();

    public VMRUN_consistency_checks() => m.Code16(a => a.hlt());

    public void Dispose() => m.Dispose();

    private void Rejects(string rulePart)
    {
        m.RunTo(SvmExitCode.Invalid);
        m.Cpu.Svm.FailedRule.Should().Contain(rulePart);
        m.Cpu.NonRoot.Should().BeNull();
        m.Cpu.Gif.Should().BeFalse("#VMEXIT clears GIF");
        m.Control->ExitInfo1.Should().Be(0);
    }

    private void Accepts() => m.RunTo(SvmExitCode.Hlt);

    [Fact]
    public void Efer_svme_must_be_set()
    {
        m.Save->Efer = 0;
        Rejects("Efer.SVME");
        m.Save->Efer = Efer.SVME;
        Accepts();
    }

    [Fact]
    public void Cr0_nw_needs_cd()
    {
        m.Save->Cr0 = Cr0.ET | Cr0.NW;
        Rejects("Cr0.NW");
        m.Save->Cr0 = Cr0.ET | Cr0.NW | Cr0.CD;
        Accepts();
    }

    [Theory]
    [InlineData(32)]
    [InlineData(63)]
    public void Cr0_upper_half_is_zero(int bit)
    {
        m.Save->Cr0 |= 1UL << bit;
        Rejects("cr0 >> 32");
    }

    [Fact]
    public void Cr3_reserved_bits_count_in_long_mode_only()
    {
        m.Save->Cr3 = 1UL << 55;
        Accepts();
        m.Code64(a => a.hlt());
        m.Save->Rip = SvmMachine.CodeGpa;
        m.Save->Cr3 |= 1UL << 55;
        Rejects("cr3");
        m.Save->Cr3 &= ~(1UL << 55);
        Accepts();
    }

    [Theory]
    [InlineData(13)] // VMXE does not exist here
    [InlineData(15)]
    [InlineData(31)]
    [InlineData(32)]
    [InlineData(63)]
    public void Cr4_reserved_bits_are_zero(int bit)
    {
        m.Save->Cr4 = 1UL << bit;
        Rejects("cr4");
    }

    [Theory]
    [InlineData(32)]
    [InlineData(63)]
    public void Dr6_and_dr7_upper_halves_are_zero(int bit)
    {
        m.Save->Dr6 |= 1UL << bit;
        Rejects("Dr6");
        m.Save->Dr6 = 0xffff_0ff0;
        m.Save->Dr7 |= 1UL << bit;
        Rejects("Dr7");
        m.Save->Dr7 = 0x400;
        Accepts();
    }

    [Theory]
    [InlineData(1)]
    [InlineData(9)]
    [InlineData(16)]
    [InlineData(63)]
    public void Efer_reserved_bits_are_zero(int bit)
    {
        m.Save->Efer |= 1UL << bit;
        Rejects("eferReserved");
    }

    [Fact]
    public void Long_mode_bits_need_a_processor_with_long_mode()
    {
        CpuModel without = CpuModel.AmdZen.WithCpuid(0x80000001, 0, default, new CpuidLeaf(0, 0, 0, 1u << 29));
        using var machine = new SvmMachineWithoutLongMode(without);
        machine.Save->Efer = Efer.SVME | Efer.LME;
        machine.Run().Should().Be(SvmExitCode.Invalid);
        machine.FailedRule.Should().Contain("HasLongMode");
    }

    [Fact]
    public void Long_mode_needs_pae()
    {
        m.Code64(a => a.hlt());
        m.Save->Cr4 = 0;
        Rejects("Cr4.PAE");
        m.Save->Cr4 = Cr4.PAE;
        Accepts();
    }

    [Fact]
    public void Long_mode_needs_protection()
    {
        m.Code64(a => a.hlt());
        m.Save->Cr0 &= ~Cr0.PE;
        Rejects("Cr0.PE");
    }

    [Fact]
    public void A_64_bit_code_segment_has_no_d_bit()
    {
        m.Code64(a => a.hlt());
        m.Save->Cs.Attributes |= 1 << 10;
        Rejects("csDb");
        m.Save->Cs.Attributes &= unchecked((ushort)~(1 << 10));
        Accepts();
    }

    [Fact]
    public void The_vmrun_intercept_is_mandatory()
    {
        m.Control->Intercepts4 &= ~SvmIntercepts4.Vmrun;
        Rejects("SvmIntercepts4.Vmrun");
    }

    [Fact]
    public void Permission_maps_lie_in_the_physical_address_space()
    {
        ulong limit = 1UL << m.Cpu.Model.PhysicalAddressBits;
        m.Control->IopmBasePa = limit - 0x2000;
        Rejects("Iopm");
        m.Control->IopmBasePa = limit - 0x3000 + 0xfff; // the low 12 bits are ignored
        Accepts();
        m.Control->MsrpmBasePa = limit - 0x1000;
        Rejects("Msrpm");
        m.Control->MsrpmBasePa = limit - 0x2000;
        m.Save->Rip = SvmMachine.CodeGpa;
        Accepts();
    }

    [Theory]
    [InlineData(1u, 0x20u, false)]
    [InlineData(5u, 0x20u, false)]
    [InlineData(6u, 0x20u, false)]
    [InlineData(7u, 0x20u, false)]
    [InlineData(3u, 2u, false)]
    [InlineData(3u, 32u, false)]
    [InlineData(3u, 31u, true)]
    [InlineData(0u, 0xffu, true)]
    [InlineData(2u, 2u, true)]
    [InlineData(4u, 0x80u, true)]
    public void An_injected_event_has_a_type_and_a_fitting_vector(uint type, uint vector, bool legal)
    {
        // Every vector of the IVT leads to the HLT.
        for (int i = 0; i < 256; i++)
            ((uint*)m.Guest)[i] = (uint)SvmMachine.CodeGpa;
        m.Control->EventInj = SvmEvent.Valid | (type << 8) | vector;
        if (legal)
            Accepts();
        else
            Rejects("IllegalEvent");
    }

    [Fact]
    public void Asid_zero_is_the_hosts()
    {
        m.Control->Asid = 0;
        Rejects("Asid");
        m.Control->Asid = 1;
        Accepts();
    }

    [Fact]
    public void The_nested_root_lies_in_the_physical_address_space()
    {
        m.Control->NestedCr3 = m.NptPa | 1UL << m.Cpu.Model.PhysicalAddressBits;
        Rejects("NestedCr3");
    }

    [Theory]
    [InlineData(0x0007_0406_0007_0406UL, true)]
    [InlineData(0x0007_0406_0007_0402UL, false)]
    [InlineData(0x0307_0406_0007_0406UL, false)]
    [InlineData(0x0007_0406_0008_0406UL, false)]
    [InlineData(0x0504_0100_0706_0504UL, true)]
    public void The_guest_pat_holds_memory_types(ulong pat, bool legal)
    {
        m.Save->GPat = pat;
        if (legal)
            Accepts();
        else
            Rejects("IllegalPat");
    }

    [Fact]
    public void Nested_rules_do_not_apply_without_nested_paging()
    {
        using var flat = new SvmMachine(nestedPaging: false);
        flat.Save->GPat = 0x0202020202020202;
        flat.Control->NestedCr3 = ulong.MaxValue;
        flat.Save->Cs.Base = 0;
        // Without nested paging guest-physical is host-physical, and there is nothing to run there: the checks pass, and the open bus reads as an undefined opcode.
        flat.Control->InterceptExceptions = ~0u;
        flat.Run().Should().NotBe(SvmExitCode.Invalid);
    }

    [Fact]
    public void A_failed_vmrun_leaves_guest_state_in_the_vmcb_alone()
    {
        m.Save->Rax = 0x1122334455667788;
        m.Save->Dr7 = 1UL << 40;
        VmcbSaveArea before = *m.Save;
        Rejects("Dr7");
        VmcbSaveArea after = *m.Save;
        new Span<byte>(&after, sizeof(VmcbSaveArea)).SequenceEqual(new Span<byte>(&before, sizeof(VmcbSaveArea))).Should().BeTrue();
    }

    /// <summary>Root code without long mode: 32-bit protected mode is enough for VMRUN.</summary>
    private sealed class SvmMachineWithoutLongMode : IDisposable
    {
        private readonly Machine machine;
        private readonly Processor cpu;
        private readonly ulong vmcb;

        public SvmMachineWithoutLongMode(CpuModel model)
        {
            machine = new Machine(model);
            cpu = machine.Processors[0];
            vmcb = machine.Memory.Allocate(0x10000);
            cpu.State->Cr0 |= Cr0.PE;
            cpu.State->Efer |= Efer.SVME;
            var v = (Vmcb*)vmcb;
            v->Control.Asid = 1;
            v->Control.Intercepts4 = SvmIntercepts4.Vmrun;
            v->Save.Efer = Efer.SVME;
            v->Save.Dr7 = 0x400;
        }

        public VmcbSaveArea* Save => &((Vmcb*)vmcb)->Save;
        public string? FailedRule => cpu.Svm.FailedRule;

        public SvmExitCode Run()
        {
            cpu.Vmrun(vmcb).Ok.Should().BeTrue();
            return (SvmExitCode)((Vmcb*)vmcb)->Control.ExitCode;
        }

        public void Dispose() => machine.Dispose();
    }
}

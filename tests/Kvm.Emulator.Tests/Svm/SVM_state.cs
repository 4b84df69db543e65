using Iced.Intel;
using Kvm.Emulator.Svm;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Emulator.Tests.Svm;

/// <summary>What VMRUN, #VMEXIT, VMLOAD and VMSAVE move; MSRs; faults; the observer; clean bits.</summary>
public sealed unsafe class SVM_state : IDisposable
{
    private readonly SvmMachine m = new();

    public void Dispose() => m.Dispose();

    [Fact]
    public void Vmexit_restores_the_host()
    {
        CpuState* s = m.Cpu.State;
        s->Gpr[0] = 0xaaaa;
        s->Gpr[4] = 0xbbbb0;
        m.Cpu.Rflags = Flags.Fixed1 | Flags.IF | Flags.CF;
        (ulong cr0, ulong cr3, ulong cr4, ulong efer, ulong rip, ushort cs) = (s->Cr0, s->Cr3, s->Cr4, s->Efer, s->Rip, s->Segs[1].Selector);
        var gdtr = s->Gdtr;
        m.Code16(a => { a.mov(ax, 0x1234); a.hlt(); });
        m.RunTo(SvmExitCode.Hlt);
        (s->Cr0, s->Cr3, s->Cr4, s->Efer, s->Rip, s->Segs[1].Selector).Should().Be((cr0, cr3, cr4, efer, rip, cs));
        s->Gpr[0].Should().Be(0xaaaa);
        s->Gpr[4].Should().Be(0xbbbb0);
        m.Cpu.Rflags.Should().Be(Flags.Fixed1 | Flags.IF | Flags.CF);
        s->Gdtr.Base.Should().Be(gdtr.Base);
        s->Dr[7].Should().Be(0x400);
        s->Cpl.Should().Be(0);
        m.Save->Rax.Should().Be(0x1234);
        m.Cpu.Gif.Should().BeFalse();
    }

    [Fact]
    public void General_registers_other_than_rax_and_rsp_are_the_processors()
    {
        m.Cpu.State->Gpr[3] = 7;
        m.Code16(a => { a.inc(ebx); a.hlt(); });
        m.RunTo(SvmExitCode.Hlt);
        m.Cpu.State->Gpr[3].Should().Be(8);
    }

    [Fact]
    public void Vmload_and_vmsave_move_the_rest()
    {
        m.Save->Fs = new VmcbSegment { Selector = 0x33, Attributes = 0x8f3, Limit = 0x12345, Base = 0x1111_2222_3333 };
        m.Save->Gs.Base = 0x4444;
        m.Save->Tr = new VmcbSegment { Selector = 0x40, Attributes = 0x8b, Limit = 0x67, Base = 0x5555 };
        m.Save->Ldtr = new VmcbSegment { Selector = 0x50, Attributes = 0x82, Limit = 0xff, Base = 0x6666 };
        (m.Save->KernelGsBase, m.Save->Star, m.Save->Lstar, m.Save->Cstar, m.Save->Sfmask) = (1, 2, 3, 4, 5);
        (m.Save->SysenterCs, m.Save->SysenterEsp, m.Save->SysenterEip) = (6, 7, 8);
        m.Cpu.Vmload(m.VmcbPa).Ok.Should().BeTrue();
        CpuState* s = m.Cpu.State;
        SegmentCache fs = s->Segs[(int)Seg.FS];
        (fs.Selector, fs.Limit, fs.Base, fs.AccessRights).Should().Be(((ushort)0x33, 0x12345u, 0x1111_2222_3333UL, 0x80f3u));
        (s->KernelGsBase, s->Star, s->Lstar, s->Cstar, s->Sfmask, s->SysenterCs, s->SysenterEsp, s->SysenterEip).Should().Be((1UL, 2UL, 3UL, 4UL, 5UL, 6UL, 7UL, 8UL));
        var copy = (Vmcb*)(m.HostRam + 0x40000);
        m.Cpu.Vmsave((ulong)copy).Ok.Should().BeTrue();
        copy->Save.Fs.Should().Be(m.Save->Fs);
        copy->Save.Gs.Should().Be(m.Save->Gs);
        copy->Save.Tr.Should().Be(m.Save->Tr);
        copy->Save.Ldtr.Should().Be(m.Save->Ldtr);
        copy->Save.SysenterEip.Should().Be(8);
        copy->Save.Rip.Should().Be(0, "VMSAVE stores nothing else");
    }

    // What was converted before is compared with what lies in the VMCB now: any byte that software changes between two runs counts.
    [Theory]
    [InlineData(Seg.ES)]
    [InlineData(Seg.CS)]
    [InlineData(Seg.SS)]
    [InlineData(Seg.DS)]
    public void A_segment_that_changes_between_two_runs_is_loaded_anew(Seg seg)
    {
        m.Code16(a => { a.mov(ax, cs); a.mov(bx, ds); a.mov(cx, es); a.mov(dx, ss); a.hlt(); });
        m.RunTo(SvmExitCode.Hlt);
        m.Save->Rip = SvmMachine.CodeGpa;
        m.RunTo(SvmExitCode.Hlt);
        VmcbSegment* segments = &m.Save->Es;
        segments[(int)seg].Selector = 0x20;
        m.Save->Rip = SvmMachine.CodeGpa;
        m.RunTo(SvmExitCode.Hlt);
        ushort[] selectors = [(ushort)m.Cpu.State->Gpr[1], (ushort)m.Save->Rax, (ushort)m.Cpu.State->Gpr[2], (ushort)m.Cpu.State->Gpr[3]];
        selectors.Should().Equal(Enumerable.Range(0, 4).Select(i => (ushort)(i == (int)seg ? 0x20 : 0)));
        segments[(int)seg].Selector.Should().Be(0x20);
    }

    [Fact]
    public void A_segment_that_the_guest_loads_is_stored_and_the_host_has_its_own_again()
    {
        ushort host = m.Cpu.State->Segs[(int)Seg.ES].Selector;
        m.Code16(a => { a.hlt(); a.mov(ax, 0x30); a.mov(es, ax); a.hlt(); a.mov(bx, es); a.hlt(); });
        foreach (ushort es in new ushort[] { 0, 0x30, 0x30 })
        {
            m.RunTo(SvmExitCode.Hlt);
            m.Save->Rip++;
            (m.Save->Es.Selector, m.Save->Es.Base).Should().Be((es, (ulong)es << 4));
            m.Cpu.State->Segs[(int)Seg.ES].Selector.Should().Be(host);
        }
        m.Cpu.State->Gpr[3].Should().Be(0x30);
    }

    // Bits 15:12 of the attributes mean nothing to the processor, and what it stores has them clear.
    [Fact]
    public void Attribute_bits_that_do_not_exist_are_not_stored()
    {
        m.Code16(a => a.hlt());
        foreach (int _ in Enumerable.Range(0, 3))
        {
            m.Save->Ds.Attributes = 0xf093;
            m.Save->Fs.Attributes = 0xf093;
            m.Cpu.Vmload(m.VmcbPa).Ok.Should().BeTrue();
            m.RunTo(SvmExitCode.Hlt);
            m.Cpu.Vmsave(m.VmcbPa).Ok.Should().BeTrue();
            (m.Save->Ds.Attributes, m.Save->Fs.Attributes).Should().Be(((ushort)0x93, (ushort)0x93));
        }
    }

    [Theory]
    [InlineData(Seg.FS)]
    [InlineData(Seg.GS)]
    [InlineData(Seg.LDTR)]
    [InlineData(Seg.TR)]
    public void Vmload_sees_what_changed_since_the_last_one(Seg seg)
    {
        m.Cpu.Vmload(m.VmcbPa).Ok.Should().BeTrue();
        m.Cpu.Vmload(m.VmcbPa).Ok.Should().BeTrue();
        VmcbSegment* segment = seg switch { Seg.FS => &m.Save->Fs, Seg.GS => &m.Save->Gs, Seg.LDTR => &m.Save->Ldtr, _ => &m.Save->Tr };
        segment->Limit = 0x123;
        m.Cpu.Vmload(m.VmcbPa).Ok.Should().BeTrue();
        m.Cpu.State->Segs[(int)seg].Limit.Should().Be(0x123);
        m.Cpu.State->Segs[(int)seg].Limit = 0x456;
        m.Cpu.Vmsave(m.VmcbPa).Ok.Should().BeTrue();
        segment->Limit.Should().Be(0x456);
    }

    // The MSRs that VMLOAD and VMSAVE move are copied as one.
    [Fact]
    public void The_state_block_has_the_syscall_and_sysenter_msrs_in_the_order_of_the_vmcb()
    {
        CpuState* s = m.Cpu.State;
        VmcbSaveArea* v = m.Save;
        nint Of(ulong* p) => (nint)((byte*)p - (byte*)&s->Star);
        nint In(ulong* p) => (nint)((byte*)p - (byte*)&v->Star);
        new[] { Of(&s->Lstar), Of(&s->Cstar), Of(&s->Sfmask), Of(&s->KernelGsBase), Of(&s->SysenterCs), Of(&s->SysenterEsp), Of(&s->SysenterEip) }
            .Should().Equal(In(&v->Lstar), In(&v->Cstar), In(&v->Sfmask), In(&v->KernelGsBase), In(&v->SysenterCs), In(&v->SysenterEsp), In(&v->SysenterEip));
    }

    // Controls that did not change are neither checked nor converted again; each of these did.
    [Fact]
    public void Controls_that_change_between_two_runs_count()
    {
        m.Code16(a => { a.cpuid(); a.pause(); a.@out(0x10, al); a.hlt(); });
        void Again(SvmExitCode code)
        {
            m.Save->Rip = SvmMachine.CodeGpa;
            m.RunTo(code);
        }
        Again(SvmExitCode.Hlt);
        Again(SvmExitCode.Hlt);
        m.Control->Intercepts3 |= SvmIntercepts3.Ioio;
        ((byte*)m.IopmPa)[2] = 1;
        Again(SvmExitCode.Ioio);
        ((byte*)m.IopmPa)[2] = 0;
        Again(SvmExitCode.Hlt);
        ((byte*)m.HostRam)[0x30002] = 1;
        m.Control->IopmBasePa = m.HostRam + 0x30000;
        Again(SvmExitCode.Ioio);
        m.Control->Intercepts3 |= SvmIntercepts3.Pause;
        Again(SvmExitCode.Pause);
        m.Control->PauseFilterCount = 5;
        Again(SvmExitCode.Ioio);
        m.Control->Intercepts3 |= SvmIntercepts3.Cpuid;
        Again(SvmExitCode.Cpuid);
        m.Control->Asid = 0;
        Again(SvmExitCode.Invalid);
        m.Control->Asid = 2;
        Again(SvmExitCode.Cpuid);
        m.Control->NestedCr3 = ~0xfffUL;
        Again(SvmExitCode.Invalid);
        m.Control->NestedCr3 = m.NptPa;
        m.Save->GPat = 2;
        Again(SvmExitCode.Invalid);
        m.Save->GPat = 6;
        Again(SvmExitCode.Cpuid);
        m.Control->EventInj = SvmEvent.Valid | SvmEvent.TypeException | 2;
        Again(SvmExitCode.Invalid);
    }

    [Theory]
    [InlineData(0x001UL)]
    [InlineData(0x800UL)]
    public void A_vmcb_must_be_page_aligned(ulong offset)
    {
        m.Cpu.Vmrun(m.VmcbPa + offset).Fault.Should().Be(Fault.Gp());
        m.Cpu.Vmload(m.VmcbPa + offset).Fault.Should().Be(Fault.Gp());
        m.Cpu.Vmsave(m.VmcbPa + offset).Fault.Should().Be(Fault.Gp());
        m.Cpu.Vmrun(1UL << m.Cpu.Model.PhysicalAddressBits).Fault.Should().Be(Fault.Gp());
    }

    [Fact]
    public void Without_efer_svme_everything_but_stgi_is_undefined()
    {
        m.Cpu.WriteMsr(Msr.IA32_EFER, m.Cpu.State->Efer & ~Efer.SVME).Ok.Should().BeTrue();
        foreach (InstructionResult result in new[] { m.Cpu.Vmrun(m.VmcbPa), m.Cpu.Vmload(m.VmcbPa), m.Cpu.Vmsave(m.VmcbPa), m.Cpu.Clgi(), m.Cpu.Invlpga(0, 1) })
            result.Fault.Should().Be(Fault.Ud);
        m.Cpu.Stgi().Ok.Should().BeTrue("the processor announces SVM lock");
    }

    [Fact]
    public void Skinit_is_undefined() => m.Cpu.Skinit(0x1000).Fault.Should().Be(Fault.Ud);

    [Fact]
    public void Hsave_pa_takes_page_addresses_below_the_physical_limit()
    {
        m.Cpu.WriteMsr(Msr.AMD_VM_HSAVE_PA, 0x1001).Fault.Should().Be(Fault.Gp());
        m.Cpu.WriteMsr(Msr.AMD_VM_HSAVE_PA, 1UL << m.Cpu.Model.PhysicalAddressBits).Fault.Should().Be(Fault.Gp());
        m.Cpu.WriteMsr(Msr.AMD_VM_HSAVE_PA, 0).Ok.Should().BeTrue();
    }

    [Fact]
    public void The_host_state_is_in_the_host_save_area()
    {
        m.Code16(a => a.hlt());
        m.RunTo(SvmExitCode.Hlt);
        var saved = (Vmcb*)m.HsavePa;
        saved->Save.Cr3.Should().Be(m.Cpu.State->Cr3);
        saved->Save.Cs.Selector.Should().Be(0x10);
    }

    [Fact]
    public void Vm_cr_lock_freezes_svmdis()
    {
        m.Cpu.WriteMsr(Msr.AMD_VM_CR, Msr.VmCrSvmDisable).Fault.Should().Be(Fault.Gp(), "SVM is on");
        m.Cpu.WriteMsr(Msr.IA32_EFER, m.Cpu.State->Efer & ~Efer.SVME);
        m.Cpu.WriteMsr(Msr.AMD_VM_CR, Msr.VmCrSvmDisable | Msr.VmCrLock).Ok.Should().BeTrue();
        m.Cpu.WriteMsr(Msr.IA32_EFER, m.Cpu.State->Efer | Efer.SVME).Fault.Should().Be(Fault.Gp(), "SVMDIS makes SVME reserved");
        m.Cpu.WriteMsr(Msr.AMD_VM_CR, 0).Ok.Should().BeTrue();
        m.Cpu.ReadMsr(Msr.AMD_VM_CR, out ulong value);
        value.Should().Be(Msr.VmCrSvmDisable | Msr.VmCrLock);
        m.Cpu.WriteMsr(Msr.AMD_VM_CR, 0x20).Fault.Should().Be(Fault.Gp());
    }

    [Fact]
    public void The_svm_key_unlocks_only_a_lock_it_was_set_for()
    {
        m.Cpu.WriteMsr(Msr.IA32_EFER, m.Cpu.State->Efer & ~Efer.SVME);
        m.Cpu.WriteMsr(Msr.AMD_SVM_LOCK_KEY, 0x1234);
        m.Cpu.WriteMsr(Msr.AMD_VM_CR, Msr.VmCrSvmDisable | Msr.VmCrLock);
        m.Cpu.WriteMsr(Msr.AMD_SVM_LOCK_KEY, 0x9999);
        m.Cpu.ReadMsr(Msr.AMD_VM_CR, out ulong locked);
        locked.Should().Be(Msr.VmCrSvmDisable | Msr.VmCrLock);
        m.Cpu.WriteMsr(Msr.AMD_SVM_LOCK_KEY, 0x1234);
        m.Cpu.WriteMsr(Msr.AMD_VM_CR, 0);
        m.Cpu.ReadMsr(Msr.AMD_VM_CR, out ulong unlocked);
        unlocked.Should().Be(0);
    }

    [Fact]
    public void Tsc_ratio_has_40_bits()
    {
        m.Cpu.ReadMsr(Msr.AMD_TSC_RATIO, out ulong initial);
        initial.Should().Be(1UL << 32);
        m.Cpu.WriteMsr(Msr.AMD_TSC_RATIO, 1UL << 40).Fault.Should().Be(Fault.Gp());
        m.Cpu.WriteMsr(Msr.AMD_TSC_RATIO, (1UL << 40) - 1).Ok.Should().BeTrue();
    }

    [Fact]
    public void Instructions_can_be_told_to_fail()
    {
        m.Code16(a => a.hlt());
        m.Cpu.InstructionFaults.Add("VMRUN", InstructionResult.Faulted(Fault.Gp()), skip: 1);
        m.RunTo(SvmExitCode.Hlt);
        m.Save->Rip = SvmMachine.CodeGpa;
        m.Cpu.Vmrun(m.VmcbPa).Fault.Should().Be(Fault.Gp());
        m.Cpu.NonRoot.Should().BeNull();
        m.RunTo(SvmExitCode.Hlt);
        m.Cpu.InstructionFaults.Add("CLGI", InstructionResult.Faulted(Fault.Ud));
        m.Cpu.Clgi().Fault.Should().Be(Fault.Ud);
    }

    [Fact]
    public void The_observer_sees_instructions_exits_and_broken_rules()
    {
        var log = new HardwareLog();
        m.Cpu.Observer = log;
        m.Code16(a => a.hlt());
        m.Cpu.Clgi();
        m.Cpu.Vmload(m.VmcbPa);
        m.RunTo(SvmExitCode.Hlt);
        m.Cpu.Vmsave(m.VmcbPa);
        m.Cpu.Stgi();
        m.Control->Asid = 0;
        m.Run();
        log.Lines.Should().Equal("CLGI", "VMLOAD", "VMRUN", "exit 78", "VMSAVE", "STGI", "VMRUN", "rule control->Asid == 0", "exit ffffffffffffffff");
    }

    [Fact]
    public void A_run_allocates_nothing()
    {
        m.Code16(a => { a.@out(0x80, al); a.hlt(); });
        m.Control->Intercepts3 |= SvmIntercepts3.Ioio;
        new Span<byte>((byte*)m.IopmPa, 0x3000).Fill(0xff);
        for (int i = 0; i < 100; i++)
            Once();
        long before = GC.GetAllocatedBytesForCurrentThread();
        for (int i = 0; i < 100; i++)
            Once();
        (GC.GetAllocatedBytesForCurrentThread() - before).Should().Be(0);

        void Once()
        {
            m.Save->Rip = SvmMachine.CodeGpa;
            m.Cpu.Vmrun(m.VmcbPa);
            if (m.Control->ExitCode != (ulong)SvmExitCode.Ioio)
                throw new InvalidOperationException();
        }
    }

    // In the strict mode a group whose clean bit is set comes from the processor's copy, as it may on silicon.
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Clean_bits_decide_in_strict_mode(bool strict)
    {
        m.Cpu.Svm.StrictCleanBits = strict;
        m.Control->Intercepts3 |= SvmIntercepts3.Cpuid;
        m.Code16(a => { a.cpuid(); a.hlt(); });
        m.RunTo(SvmExitCode.Cpuid);
        m.Control->Intercepts3 &= ~SvmIntercepts3.Cpuid;
        m.Control->Clean = VmcbClean.Intercepts;
        m.RunTo(strict ? SvmExitCode.Cpuid : SvmExitCode.Hlt);
        m.Save->Rip = SvmMachine.CodeGpa;
        m.Control->Clean = VmcbClean.None;
        m.RunTo(SvmExitCode.Hlt);
        m.Save->Rip = SvmMachine.CodeGpa;
        m.Save->Cr2 = 0x1000;
        m.Control->Clean = VmcbClean.Hardware & ~VmcbClean.Cr2;
        m.RunTo(SvmExitCode.Hlt);
        m.Save->Cr2.Should().Be(0x1000);
    }

    [Fact]
    public void Lbr_virtualization_swaps_the_branch_records()
    {
        m.Control->VirtualExtensions = SvmVirtualExtensions.LbrVirtualization;
        m.Save->DebugCtl = 0;
        m.Save->BrFrom = 0x111;
        m.Cpu.ReadMsr(0x1db, out ulong host);
        m.Code16(a => { a.mov(ecx, 0x1db); a.rdmsr(); a.hlt(); });
        m.RunTo(SvmExitCode.Hlt);
        m.Save->Rax.Should().Be(0x111);
        m.Cpu.ReadMsr(0x1db, out ulong after);
        after.Should().Be(host);
    }

    [Fact]
    public void Virtual_vmload_uses_guest_physical_addresses()
    {
        m.Control->VirtualExtensions = SvmVirtualExtensions.VirtualVmloadVmsave;
        m.Code64(a => { a.mov(eax, 0x30000); a.vmload(); a.mov(eax, 0x31000); a.vmsave(); a.hlt(); });
        ((Vmcb*)(m.Guest + 0x30000))->Save.Lstar = 0xabcdef;
        m.RunTo(SvmExitCode.Hlt);
        ((Vmcb*)(m.Guest + 0x31000))->Save.Lstar.Should().Be(0xabcdef);
        m.Cpu.State->Lstar.Should().Be(0xabcdef);
        *m.NestedPte(0x31000) &= ~2UL;
        m.Control->TlbControl = TlbControl.FlushAll;
        m.Save->Rip = SvmMachine.CodeGpa;
        m.RunTo(SvmExitCode.Npf);
        m.Control->ExitInfo2.Should().Be(0x31000);
    }

    private sealed class HardwareLog : IHardwareObserver
    {
        public List<string> Lines { get; } = [];
        public void Msr(Processor cpu, bool write, uint index, ulong value, bool faulted) { }
        public void ControlRegister(Processor cpu, int register, ulong oldValue, ulong newValue) { }
        public void Virtualization(Processor cpu, string mnemonic, ulong operand, ulong value, InstructionResult result) => Lines.Add(mnemonic);
        public void EntryCheckFailed(Processor cpu, string rule) => Lines.Add("rule " + rule);
        public void VmExit(Processor cpu, ulong reason, ulong qualification) => Lines.Add($"exit {reason:x}");
    }
}

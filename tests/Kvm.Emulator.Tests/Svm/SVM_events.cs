using Iced.Intel;
using Kvm.Emulator.Svm;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Emulator.Tests.Svm;

/// <summary>Event injection, physical and virtual interrupts, GIF, exceptions, shutdown.</summary>
public sealed unsafe class SVM_events : IDisposable
{
    private const ushort HandlerIp = 0x2000;
    private readonly SvmMachine m = new();

    public SVM_events()
    {
        // IVT: every vector n leads to HLT at 0x2000 + n.
        for (int i = 0; i < 256; i++)
        {
            ((uint*)m.Guest)[i] = (uint)(HandlerIp + i);
            m.Guest[HandlerIp + i] = 0xf4;
        }
    }

    public void Dispose() => m.Dispose();

    private ushort Pushed(int word) => ((ushort*)(m.Guest + m.Save->Rsp))[word];

    [Theory]
    [InlineData(SvmEvent.TypeExternal, 0x21u)]
    [InlineData(SvmEvent.TypeNmi, 2u)]
    [InlineData(SvmEvent.TypeException, 13u)]
    public void An_injected_event_is_delivered_before_the_first_instruction(uint type, uint vector)
    {
        m.Code16(a => a.cpuid());
        m.Control->EventInj = SvmEvent.Valid | type | vector;
        m.RunTo(SvmExitCode.Hlt);
        m.Save->Rip.Should().Be(HandlerIp + vector);
        Pushed(0).Should().Be((ushort)SvmMachine.CodeGpa);
        m.Control->EventInj.Should().Be(0, "the field is cleared, the error code is not");
        m.Control->ExitIntInfo.Should().Be(0);
    }

    [Fact]
    public void An_injected_NMI_has_vector_2_whatever_the_field_says()
    {
        m.Code16(a => a.cpuid());
        m.Control->EventInj = SvmEvent.Valid | SvmEvent.TypeNmi;
        m.RunTo(SvmExitCode.Hlt);
        m.Save->Rip.Should().Be(HandlerIp + 2u);
        m.Cpu.State->NmiBlocked.Should().Be(0, "an injected NMI blocks none");
    }

    // INT n and INT3/INTO return behind the instruction: to NRIP where the processor saves it, else to RIP.
    [Theory]
    [InlineData(SvmEvent.TypeSoftware, 0x80u)]
    [InlineData(SvmEvent.TypeException, 3u)]
    [InlineData(SvmEvent.TypeException, 4u)]
    public void Software_events_return_to_next_rip(uint type, uint vector)
    {
        m.Code16(a => a.nop());
        m.Control->EventInj = SvmEvent.Valid | type | vector;
        m.Control->NextRip = SvmMachine.CodeGpa + 2;
        m.RunTo(SvmExitCode.Hlt);
        Pushed(0).Should().Be((ushort)(SvmMachine.CodeGpa + 2));

        using var old = new SvmMachine(CpuModel.AmdZen.WithCpuid(0x8000000a, 0, default, new CpuidLeaf(0, 0, 0, (uint)SvmFeatures.NripSave)));
        ((uint*)old.Guest)[vector] = HandlerIp;
        old.Guest[HandlerIp] = 0xf4;
        old.Control->EventInj = SvmEvent.Valid | type | vector;
        old.Control->NextRip = SvmMachine.CodeGpa + 2;
        old.RunTo(SvmExitCode.Hlt);
        ((ushort*)(old.Guest + old.Save->Rsp))[0].Should().Be((ushort)SvmMachine.CodeGpa);
    }

    [Fact]
    public void An_exit_during_injection_reports_the_event()
    {
        m.Code16(a => a.nop());
        *m.NestedPte(0x7000) = 0; // the stack page
        m.Control->EventInj = SvmEvent.Valid | SvmEvent.TypeExternal | 0x21;
        m.RunTo(SvmExitCode.Npf);
        m.Control->ExitIntInfo.Should().Be(SvmEvent.Valid | SvmEvent.TypeExternal | 0x21);
        m.Save->Rip.Should().Be(SvmMachine.CodeGpa);
        m.Save->Rsp.Should().Be(0x8000);
    }

    [Fact]
    public void The_error_code_of_an_injected_exception_is_in_exit_int_info_too()
    {
        m.Code64(a => a.nop());
        m.Save->Idtr = new VmcbSegment { Limit = 0xfff, Base = 0x300000 }; // beyond the guest's memory: a page fault while delivering
        m.Control->InterceptExceptions = 1u << Fault.PF;
        m.Control->EventInj = SvmEvent.Valid | SvmEvent.TypeException | SvmEvent.ErrorCodeValid | Fault.GP;
        m.Control->EventInjError = 0x1234;
        m.RunTo(SvmExitCode.Exception + Fault.PF);
        m.Control->ExitInfo2.Should().Be(0x300000 + (Fault.GP * 16));
        m.Control->ExitIntInfo.Should().Be(SvmEvent.Valid | SvmEvent.TypeException | SvmEvent.ErrorCodeValid | Fault.GP);
        m.Control->ExitIntInfoError.Should().Be(0x1234);
    }

    [Fact]
    public void A_physical_interrupt_exits_and_stays_pending()
    {
        m.Code16(a => { Label l = a.CreateLabel(); a.Label(ref l); a.jmp(l); });
        m.Cpu.Rflags |= Flags.IF;
        m.Cpu.RaiseInterrupt(0x55);
        m.RunTo(SvmExitCode.Intr);
        m.Cpu.InterruptPending.Should().BeTrue();
        m.Cpu.AcknowledgeInterrupt().Should().Be(0x55);
        (m.Save->Rflags & Flags.IF).Should().Be(0, "the guest's own IF does not matter with V_INTR_MASKING");
    }

    [Fact]
    public void With_masking_the_hosts_if_gates_physical_interrupts()
    {
        m.Code16(a => { a.sti(); a.nop(); a.nop(); a.hlt(); });
        m.Cpu.Rflags &= ~Flags.IF;
        m.Cpu.RaiseInterrupt(0x55);
        m.RunTo(SvmExitCode.Hlt);
        m.Cpu.InterruptPending.Should().BeTrue();
        m.Save->Rip = SvmMachine.CodeGpa;
        m.Cpu.Rflags |= Flags.IF;
        m.RunTo(SvmExitCode.Intr);
    }

    [Fact]
    public void Without_masking_the_guests_if_gates_them()
    {
        m.Control->IntControl = SvmIntControl.None;
        m.Code16(a => { a.cli(); a.nop(); a.cpuid(); a.sti(); a.nop(); a.nop(); a.hlt(); });
        m.Cpu.Rflags |= Flags.IF;
        m.Control->Intercepts3 |= SvmIntercepts3.Cpuid;
        m.Cpu.RaiseInterrupt(0x55);
        m.RunTo(SvmExitCode.Cpuid);
        m.Save->Rip = m.Control->NextRip;
        m.RunTo(SvmExitCode.Intr);
        m.Save->Rip.Should().Be(SvmMachine.CodeGpa + 5, "the shadow of STI delays delivery, not an exit");
        m.Control->IntState.Should().Be(SvmIntState.InterruptShadow);
    }

    [Fact]
    public void An_nmi_exits_and_stays_pending_until_gif_is_set()
    {
        m.Code16(a => { Label l = a.CreateLabel(); a.Label(ref l); a.jmp(l); });
        m.Cpu.RaiseNmi();
        m.RunTo(SvmExitCode.Nmi);
        m.Cpu.NmiPending.Should().BeTrue();
        m.Cpu.Gif.Should().BeFalse();
        m.Cpu.Stgi().Ok.Should().BeTrue();
        m.Cpu.AcknowledgeNmi().Should().BeTrue();
    }

    [Fact]
    public void V_irq_is_delivered_when_the_guest_sets_if()
    {
        m.Control->IntControl = SvmIntControl.VIntrMasking | SvmIntControl.VIrq | (SvmIntControl)(5u << 16);
        m.Control->IntVector = 0x51;
        m.Code16(a => { a.nop(); a.sti(); a.nop(); a.hlt(); });
        m.RunTo(SvmExitCode.Hlt);
        m.Save->Rip.Should().Be(HandlerIp + 0x51);
        Pushed(0).Should().Be((ushort)(SvmMachine.CodeGpa + 3), "the shadow of STI covers one instruction");
        (m.Control->IntControl & SvmIntControl.VIrq).Should().Be(SvmIntControl.None);
    }

    [Fact]
    public void The_vintr_intercept_exits_before_delivery_and_keeps_v_irq()
    {
        m.Control->Intercepts3 |= SvmIntercepts3.Vintr;
        m.Control->IntControl = SvmIntControl.VIntrMasking | SvmIntControl.VIrq | SvmIntControl.PriorityMask;
        m.Code16(a => { a.nop(); a.sti(); a.nop(); a.hlt(); });
        m.RunTo(SvmExitCode.Vintr);
        m.Save->Rip.Should().Be(SvmMachine.CodeGpa + 3);
        (m.Control->IntControl & SvmIntControl.VIrq).Should().Be(SvmIntControl.VIrq);
        m.Control->IntState.Should().Be(SvmIntState.None);
    }

    // V_INTR_PRIO must be above V_TPR, which CR8 writes set; V_IGN_TPR lifts the rule.
    [Theory]
    [InlineData(4, 5, false, false)]
    [InlineData(5, 5, false, false)]
    [InlineData(6, 5, false, true)]
    [InlineData(4, 5, true, true)]
    public void The_task_priority_holds_back_virtual_interrupts(uint priority, uint tpr, bool ignore, bool delivered)
    {
        m.Control->IntControl = SvmIntControl.VIntrMasking | SvmIntControl.VIrq | (SvmIntControl)(priority << 16 | tpr) | (ignore ? SvmIntControl.IgnoreTpr : 0);
        m.Control->IntVector = 0x51;
        m.Save->Rflags |= Flags.IF;
        m.Code16(a => { a.nop(); a.hlt(); });
        m.RunTo(SvmExitCode.Hlt);
        m.Save->Rip.Should().Be(delivered ? HandlerIp + 0x51u : SvmMachine.CodeGpa + 1);
        ((uint)m.Control->IntControl & 0xff).Should().Be(tpr);
    }

    [Fact]
    public void Cr8_is_v_tpr_with_masking()
    {
        m.Cpu.State->Cr8 = 3;
        m.Control->IntControl = SvmIntControl.VIntrMasking | (SvmIntControl)9;
        m.Code64(a => { a.mov(rbx, cr8); a.mov(eax, 4); a.mov(cr8, rax); a.hlt(); });
        m.RunTo(SvmExitCode.Hlt);
        m.Cpu.State->Gpr[3].Should().Be(9);
        ((uint)m.Control->IntControl & 0xff).Should().Be(4);
        m.Cpu.State->Cr8.Should().Be(3, "the physical TPR is the host's");
    }

    [Fact]
    public void Virtual_gif_holds_back_virtual_interrupts_only()
    {
        m.Control->IntControl = SvmIntControl.VIntrMasking | SvmIntControl.VIrq | SvmIntControl.VGifEnable | (SvmIntControl)(5u << 16);
        m.Control->IntVector = 0x51;
        m.Code64(a => { a.sti(); a.nop(); a.nop(); a.cpuid(); a.stgi(); a.nop(); a.hlt(); });
        m.Save->Idtr = new VmcbSegment { Limit = 0xfff, Base = 0x4000 };
        ulong* gate = (ulong*)(m.Guest + 0x4000 + (0x51 * 16));
        gate[0] = HandlerIp | 8UL << 16 | 0x8e00UL << 32;
        ulong* gdt = (ulong*)(m.Guest + 0x6000);
        gdt[1] = 0x00af9b000000ffff;
        gdt[2] = 0x00cf93000000ffff;
        m.Save->Gdtr = new VmcbSegment { Limit = 0x17, Base = 0x6000 };
        m.Control->Intercepts3 |= SvmIntercepts3.Cpuid;
        m.RunTo(SvmExitCode.Cpuid);
        (m.Control->IntControl & SvmIntControl.VGif).Should().Be(SvmIntControl.None);
        m.Cpu.Gif.Should().BeFalse();
        m.Save->Rip = m.Control->NextRip;
        m.RunTo(SvmExitCode.Hlt);
        m.Save->Rip.Should().Be(HandlerIp);
        (m.Control->IntControl & (SvmIntControl.VGif | SvmIntControl.VIrq)).Should().Be(SvmIntControl.VGif);
    }

    [Fact]
    public void The_interrupt_shadow_goes_in_and_out_with_the_vmcb()
    {
        m.Code16(a => { a.sti(); a.hlt(); });
        m.RunTo(SvmExitCode.Hlt);
        m.Control->IntState.Should().Be(SvmIntState.InterruptShadow);
        m.Code16(a => { a.nop(); a.hlt(); });
        m.Save->Rip = SvmMachine.CodeGpa;
        m.RunTo(SvmExitCode.Hlt);
        m.Control->IntState.Should().Be(SvmIntState.None, "one instruction ends the shadow");
    }

    [Theory]
    [InlineData(Fault.UD, "ud2")]
    [InlineData(Fault.DE, "div")]
    [InlineData(Fault.BP, "int3")]
    public void Exceptions_exit_with_their_vector(byte vector, string instruction)
    {
        m.Control->InterceptExceptions = 1u << vector;
        m.Code16(a =>
        {
            switch (instruction)
            {
                case "ud2": a.ud2(); break;
                case "div": a.div(bh); break;
                default: a.int3(); break;
            }
        });
        m.Cpu.State->Gpr[3] = 0;
        m.RunTo(SvmExitCode.Exception + vector);
        m.Save->Rip.Should().Be(SvmMachine.CodeGpa);
        m.Control->NextRip.Should().Be(vector == Fault.BP ? SvmMachine.CodeGpa + 1 : 0);
        m.Control->InterceptExceptions = 0;
        m.RunTo(SvmExitCode.Hlt);
        m.Save->Rip.Should().Be(HandlerIp + (uint)vector);
    }

    [Fact]
    public void A_single_step_trap_shows_in_dr6()
    {
        m.Control->InterceptExceptions = 1u << Fault.DB;
        m.Save->Rflags |= Flags.TF;
        m.Code16(a => { a.nop(); a.hlt(); });
        m.RunTo(SvmExitCode.Exception + Fault.DB);
        m.Save->Rip.Should().Be(SvmMachine.CodeGpa + 1);
        m.Save->Dr6.Should().Be(0xffff_4ff0);
    }

    // DR7 comes from the VMCB, the addresses stay in DR0-DR3; #VMEXIT switches the host's breakpoints off.
    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Breakpoints_of_the_guest_are_armed_by_vmrun(bool data)
    {
        m.Control->InterceptExceptions = 1u << Fault.DB;
        m.Code16(a => { a.nop(); a.mov(__byte_ptr[0x5000], al); a.nop(); a.hlt(); });
        m.Cpu.WriteDr(0, data ? 0x5000 : SvmMachine.CodeGpa + 1).Ok.Should().BeTrue();
        m.Save->Dr7 = 0x401 | (data ? 1UL << 16 : 0);
        m.RunTo(SvmExitCode.Exception + Fault.DB);
        m.Save->Rip.Should().Be(data ? SvmMachine.CodeGpa + 4 : SvmMachine.CodeGpa + 1);
        m.Save->Dr6.Should().Be(0xffff_0ff1);
        m.Cpu.State->Dr[7].Should().Be(0x400);
        m.Save->Dr7 = 0x400;
        m.RunTo(SvmExitCode.Hlt);
    }

    // The processor keeps a guest's translation context over exits to kernel code; whatever changes in the VMCB must still count.
    [Fact]
    public void Changes_between_runs_take_effect()
    {
        m.Code16(a => { a.mov(al, __byte_ptr[0x5000]); a.cpuid(); a.hlt(); });
        m.Control->Intercepts3 |= SvmIntercepts3.Cpuid;
        m.Load(0x5000, 1);
        m.Load(0x15000, 2);
        m.RunTo(SvmExitCode.Cpuid);
        ((byte)m.Save->Rax).Should().Be(1);
        m.Save->Rip = SvmMachine.CodeGpa;
        m.Save->Ds.Base = 0x10000;
        m.RunTo(SvmExitCode.Cpuid);
        ((byte)m.Save->Rax).Should().Be(2);

        m.Code64(a => { a.mov(eax, 0x5000); a.mov(al, __byte_ptr[rax]); a.cpuid(); });
        m.Save->Rip = SvmMachine.CodeGpa;
        m.RunTo(SvmExitCode.Cpuid);
        ((byte)m.Save->Rax).Should().Be(1);
        m.Cpu.WriteCr(3, m.Cpu.State->Cr3).Ok.Should().BeTrue();
        m.Save->Rip = SvmMachine.CodeGpa;
        m.RunTo(SvmExitCode.Cpuid);
        ((byte)m.Save->Rax).Should().Be(1);
    }

    [Fact]
    public void A_triple_fault_exits_with_shutdown()
    {
        m.Save->Idtr.Limit = 0;
        m.Code16(a => a.ud2());
        m.RunTo(SvmExitCode.Shutdown);
    }

    [Fact]
    public void A_pending_init_exits()
    {
        m.Control->Intercepts3 |= SvmIntercepts3.Init;
        m.Code16(a => { Label l = a.CreateLabel(); a.Label(ref l); a.jmp(l); });
        m.Cpu.RaiseInit();
        m.RunTo(SvmExitCode.Init);
    }

    [Fact]
    public void A_task_switch_exits_with_selector_and_source()
    {
        m.Control->Intercepts3 |= SvmIntercepts3.TaskSwitch;
        // 32-bit protected mode, GDT at 0x6000 with an available TSS at 0x18.
        ulong* gdt = (ulong*)(m.Guest + 0x6000);
        gdt[1] = 0x00cf9b000000ffff;
        gdt[2] = 0x00cf93000000ffff;
        gdt[3] = 0x0000890070000067;
        m.Save->Cr0 = Cr0.PE | Cr0.ET;
        m.Save->Gdtr = new VmcbSegment { Limit = 0x1f, Base = 0x6000 };
        m.Save->Cs = new VmcbSegment { Selector = 8, Attributes = 0xc9b, Limit = uint.MaxValue };
        m.Save->Ss = m.Save->Ds = m.Save->Es = new VmcbSegment { Selector = 16, Attributes = 0xc93, Limit = uint.MaxValue };
        m.Save->Tr = new VmcbSegment { Selector = 0x20, Attributes = 0x8b, Limit = 0x67, Base = 0x9000 };
        m.Cpu.Vmload(m.VmcbPa).Ok.Should().BeTrue();
        m.Load(SvmMachine.CodeGpa, 0xea, 0, 0, 0, 0, 0x18, 0); // jmp 0x18:0
        m.RunTo(SvmExitCode.TaskSwitch);
        m.Control->ExitInfo1.Should().Be(0x18);
        m.Control->ExitInfo2.Should().Be(1UL << 38);
        m.Save->Rip.Should().Be(SvmMachine.CodeGpa);
        m.Load(SvmMachine.CodeGpa, 0x9a, 0, 0, 0, 0, 0x18, 0); // call
        m.RunTo(SvmExitCode.TaskSwitch);
        m.Control->ExitInfo2.Should().Be(0);
    }
}

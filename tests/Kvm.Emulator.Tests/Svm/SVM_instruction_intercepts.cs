using Iced.Intel;
using Kvm.Emulator.Svm;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Emulator.Tests.Svm;

/// <summary>Each instruction intercept: with the bit the instruction exits before it does anything, without it the guest gets past it to HLT.</summary>
public sealed unsafe class SVM_instruction_intercepts : IDisposable
{
    private readonly SvmMachine m = new();

    public void Dispose() => m.Dispose();

    /// <summary>One instruction and what intercepts it; preparation runs before it at the same privilege.</summary>
    public sealed record Row(string Name, int Word, int Bit, ulong Code, Action<Assembler> Instruction)
    {
        public ulong Info1 { get; init; }
        /// <summary>Not executable without the intercept in this guest.</summary>
        public bool OnlyIntercepted { get; init; }
        public override string ToString() => Name;
    }

    private static readonly Row[] rows =
    [
        new("MOV RAX,CR0", 0, 0, 0x00, a => a.mov(rax, cr0)) { Info1 = 1UL << 63 },
        new("MOV RCX,CR2", 0, 2, 0x02, a => a.mov(rcx, cr2)) { Info1 = 1UL << 63 | 1 },
        new("MOV R15,CR3", 0, 3, 0x03, a => a.mov(r15, cr3)) { Info1 = 1UL << 63 | 15 },
        new("MOV RBX,CR4", 0, 4, 0x04, a => a.mov(rbx, cr4)) { Info1 = 1UL << 63 | 3 },
        new("MOV RDX,CR8", 0, 8, 0x08, a => a.mov(rdx, cr8)) { Info1 = 1UL << 63 | 2 },
        new("MOV CR0,RBP", 0, 16, 0x10, a => a.mov(cr0, rbp)) { Info1 = 1UL << 63 | 5, OnlyIntercepted = true },
        new("MOV CR2,RSI", 0, 18, 0x12, a => a.mov(cr2, rsi)) { Info1 = 1UL << 63 | 6 },
        new("MOV CR3,RDI", 0, 19, 0x13, a => a.mov(cr3, rdi)) { Info1 = 1UL << 63 | 7, OnlyIntercepted = true },
        new("MOV CR4,R8", 0, 20, 0x14, a => a.mov(cr4, r8)) { Info1 = 1UL << 63 | 8, OnlyIntercepted = true },
        new("MOV CR8,RAX", 0, 24, 0x18, a => a.mov(cr8, rax)) { Info1 = 1UL << 63 },
        new("CLTS", 0, 16, 0x10, a => a.clts()),
        new("LMSW", 0, 16, 0x10, a => a.lmsw(cx)) { OnlyIntercepted = true },
        new("SMSW", 0, 0, 0x00, a => a.smsw(ecx)),
        new("MOV RAX,DR0", 1, 0, 0x20, a => a.mov(rax, dr0)),
        new("MOV R9,DR7", 1, 7, 0x27, a => a.mov(r9, dr7)) { Info1 = 9 },
        new("MOV DR3,RCX", 1, 19, 0x33, a => a.mov(dr3, rcx)) { Info1 = 1 },
        new("MOV DR6,RDX", 1, 22, 0x36, a => a.mov(dr6, rdx)) { Info1 = 2 },
        new("SIDT", 3, 6, 0x66, a => a.sidt(__[0x3000])),
        new("SGDT", 3, 7, 0x67, a => a.sgdt(__[0x3000])),
        new("SLDT", 3, 8, 0x68, a => a.sldt(eax)),
        new("STR", 3, 9, 0x69, a => a.str(eax)),
        new("LIDT", 3, 10, 0x6a, a => a.lidt(__[0x3000])),
        new("LGDT", 3, 11, 0x6b, a => a.lgdt(__[0x3000])),
        new("LLDT", 3, 12, 0x6c, a => a.lldt(r14w)),
        new("LTR", 3, 13, 0x6d, a => a.ltr(r14w)) { OnlyIntercepted = true },
        new("RDTSC", 3, 14, 0x6e, a => a.rdtsc()),
        new("PUSHF", 3, 16, 0x70, a => a.pushfq()),
        new("POPF", 3, 17, 0x71, a => a.popfq()),
        new("CPUID", 3, 18, 0x72, a => a.cpuid()),
        new("RSM", 3, 19, 0x73, a => a.rsm()) { OnlyIntercepted = true },
        new("IRET", 3, 20, 0x74, a => a.iretq()) { OnlyIntercepted = true },
        new("INT 80h", 3, 21, 0x75, a => a.@int(0x80)) { Info1 = 0x80, OnlyIntercepted = true },
        new("INVD", 3, 22, 0x76, a => a.invd()),
        new("PAUSE", 3, 23, 0x77, a => a.pause()),
        new("HLT", 3, 24, 0x78, a => a.hlt()) { OnlyIntercepted = true },
        new("INVLPG", 3, 25, 0x79, a => a.invlpg(__[0x5678])) { Info1 = 0x5678 },
        new("INVLPGA", 3, 26, 0x7a, a => a.invlpga()),
        new("VMRUN", 4, 0, 0x80, a => a.vmrun()) { OnlyIntercepted = true },
        new("VMMCALL", 4, 1, 0x81, a => a.vmmcall()) { OnlyIntercepted = true },
        new("VMLOAD", 4, 2, 0x82, a => a.vmload()) { OnlyIntercepted = true },
        new("VMSAVE", 4, 3, 0x83, a => a.vmsave()) { OnlyIntercepted = true },
        new("STGI", 4, 4, 0x84, a => a.stgi()),
        new("CLGI", 4, 5, 0x85, a => a.clgi()),
        new("SKINIT", 4, 6, 0x86, a => a.skinit()) { OnlyIntercepted = true },
        new("RDTSCP", 4, 7, 0x87, a => a.rdtscp()),
        new("INT1", 4, 8, 0x88, a => a.int1()) { OnlyIntercepted = true },
        new("WBINVD", 4, 9, 0x89, a => a.wbinvd()),
        new("MONITOR", 4, 10, 0x8a, a => { a.monitor(); }),
    ];

    public static TheoryData<string> Names => [.. rows.Select(r => r.Name)];

    [Theory]
    [MemberData(nameof(Names))]
    public void Exits_with_its_code_and_information(string name)
    {
        Row row = rows.Single(r => r.Name == name);
        byte[] instruction = SvmMachine.Assemble(64, SvmMachine.CodeGpa + 1, row.Instruction);
        Prepare(row, intercept: true);
        m.RunTo((SvmExitCode)row.Code);
        m.Save->Rip.Should().Be(SvmMachine.CodeGpa + 1, "the intercept comes before the instruction");
        m.Control->NextRip.Should().Be(SvmMachine.CodeGpa + 1 + (uint)instruction.Length);
        m.Control->ExitInfo1.Should().Be(row.Info1);
        m.Control->ExitIntInfo.Should().Be(0);
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void Runs_without_its_intercept(string name)
    {
        Row row = rows.Single(r => r.Name == name);
        if (row.OnlyIntercepted)
            return;
        Prepare(row, intercept: false);
        m.RunTo(SvmExitCode.Hlt);
        m.Control->NextRip.Should().Be(m.Save->Rip + 1);
    }

    private void Prepare(Row row, bool intercept)
    {
        m.Code64(a =>
        {
            a.nop();
            row.Instruction(a);
            a.hlt();
        });
        m.Load(0x3000, 0xff, 0x0f, 0, 0x30, 0, 0, 0, 0, 0, 0);
        m.Save->Rsp = 0x7000;
        m.Load(0x7000, 2, 0, 0, 0, 0, 0, 0, 0);
        m.Cpu.State->Gpr[1] = 0;
        m.Cpu.State->Gpr[2] = 0;
        m.Cpu.State->Gpr[6] = 0;
        m.Cpu.State->Gpr[14] = 0;
        uint* word = (uint*)m.Control + row.Word;
        if (intercept)
            *word |= 1u << row.Bit;
        else
            *word &= ~(1u << row.Bit);
    }

    [Fact]
    public void Xsetbv_exits_where_the_processor_has_it()
    {
        using var machine = new SvmMachine(CpuModel.AmdZen.WithCpuid(1, 0, new CpuidLeaf(0, 0, 1u << 26, 0)));
        machine.Code64(a => { a.xsetbv(); a.hlt(); });
        machine.Save->Cr4 |= Cr4.OSXSAVE;
        machine.Control->Intercepts4 |= SvmIntercepts4.Xsetbv;
        machine.RunTo(SvmExitCode.Xsetbv);
        machine.Control->NextRip.Should().Be(SvmMachine.CodeGpa + 3);
    }

    [Fact]
    public void Without_decode_assists_and_nrip_the_information_is_zero()
    {
        CpuidLeaf clear = new(0, 0, 0, (uint)(SvmFeatures.DecodeAssists | SvmFeatures.NripSave));
        using var old = new SvmMachine(CpuModel.AmdZen.WithCpuid(0x8000000a, 0, default, clear));
        old.Code64(a => { a.mov(cr3, rdi); a.hlt(); });
        old.Control->InterceptCrWrite = 1 << 3;
        old.RunTo(SvmExitCode.Cr0Write + 3);
        old.Control->ExitInfo1.Should().Be(0);
        old.Control->NextRip.Should().Be(0);
    }

    // CR0 writes that change only TS and MP pass the selective intercept; LMSW never does.
    [Fact]
    public void The_selective_cr0_intercept_ignores_ts_and_mp()
    {
        m.Control->Intercepts3 |= SvmIntercepts3.Cr0SelectiveWrite;
        m.Code64(a =>
        {
            a.mov(rax, cr0);
            a.xor(rax, 0xa);
            a.mov(cr0, rax);
            a.clts();
            a.xor(rax, 1 << 16);
            a.mov(cr0, rax);
            a.hlt();
        });
        m.RunTo(SvmExitCode.Cr0SelectiveWrite);
        m.Control->ExitInfo1.Should().Be(1UL << 63);
        (m.Save->Cr0 & 0xa).Should().Be(2, "MP was set and TS cleared again before the exit");
        (m.Save->Cr0 & Cr0.WP).Should().Be(Cr0.WP, "the write that exits has not happened");
    }

    [Fact]
    public void Lmsw_is_a_selective_write_whatever_it_loads()
    {
        m.Control->Intercepts3 |= SvmIntercepts3.Cr0SelectiveWrite;
        m.Code64(a => { a.smsw(ecx); a.lmsw(cx); a.hlt(); });
        m.RunTo(SvmExitCode.Cr0SelectiveWrite);
        m.Control->ExitInfo1.Should().Be(0);
    }

    [Fact]
    public void Mwait_has_an_unconditional_intercept_and_one_for_an_armed_monitor()
    {
        m.Control->Intercepts4 |= SvmIntercepts4.Mwait | SvmIntercepts4.MwaitArmed;
        m.Code64(a => { a.xor(ecx, ecx); a.xor(edx, edx); a.lea(rax, __[0x3000]); a.monitor(); a.xor(eax, eax); a.mwait(); a.hlt(); });
        m.RunTo(SvmExitCode.Mwait);
        m.Control->Intercepts4 &= ~SvmIntercepts4.Mwait;
        m.Save->Rip = SvmMachine.CodeGpa;
        m.RunTo(SvmExitCode.MwaitConditional);
    }

    // With a filter count only the underflow exits; a threshold reloads the count when PAUSEs are far apart.
    [Fact]
    public void Pause_filter_counts_down()
    {
        m.Control->Intercepts3 |= SvmIntercepts3.Pause;
        m.Control->PauseFilterCount = 5;
        m.Code64(a =>
        {
            Label loop = a.CreateLabel();
            a.xor(ecx, ecx);
            a.Label(ref loop);
            a.inc(ecx);
            a.pause();
            a.jmp(loop);
        });
        m.RunTo(SvmExitCode.Pause);
        m.Cpu.State->Gpr[1].Should().Be(6);
        m.Control->PauseFilterCount.Should().Be(5, "the count in the VMCB does not change");
    }

    [Fact]
    public void Privilege_is_checked_before_the_intercept()
    {
        m.Control->InterceptExceptions = 1u << Fault.GP;
        m.Control->Intercepts3 |= SvmIntercepts3.Invd;
        m.Code64(a => a.invd());
        m.Save->Cpl = 3;
        m.Save->Cs.Attributes |= 0x60;
        m.Save->Ss.Attributes |= 0x60;
        m.RunTo(SvmExitCode.Exception + Fault.GP);
        m.Control->ExitInfo1.Should().Be(0);
    }

    [Fact]
    public void Svm_instructions_at_cpl_3_fault_before_their_intercept_but_vmmcall_exits()
    {
        m.Control->InterceptExceptions = 1u << Fault.GP;
        m.Control->Intercepts4 |= SvmIntercepts4.Vmload;
        m.Code64(a => a.vmload());
        m.Save->Cpl = 3;
        m.Save->Cs.Attributes |= 0x60;
        m.Save->Ss.Attributes |= 0x60;
        m.RunTo(SvmExitCode.Exception + Fault.GP);
        m.Load(SvmMachine.CodeGpa, 0x0f, 0x01, 0xd9);
        m.RunTo(SvmExitCode.Vmmcall);
    }

    [Fact]
    public void Svm_instructions_in_real_mode_are_undefined()
    {
        m.Control->InterceptExceptions = 1u << Fault.UD;
        m.Code16(a => a.vmload());
        m.RunTo(SvmExitCode.Exception + Fault.UD);
    }
}

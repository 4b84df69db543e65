using Iced.Intel;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Emulator.Tests.Vmx;

/// <summary>
/// The routine vmx_operation_enter of the origin document, as machine code in its 64-bit and its 32-bit build: it checks the cached CPUID bit with BT, sets CR4.VMXE
/// with BTS, initializes the VMXON region, executes VMXON through the PCB's pointer and decides by CF and ZF.
/// </summary>
public unsafe class VmxOperationEnterTests
{
    private const ulong Pcb = 0x20_0000, VmxonRegion = 0x20_1000, Routine = 0xb000, Init = 0xb800;

    // PCB fields.
    private const int Base = 0, ProcessorStatus = 8, FeatureEcx = 12, InstructionStatus = 16, VmxonPhysicalPointer = 24;
    private const uint StatusVmxon = 1, StatusVmx = 2, StatusUnsuccess = 0xc000_0001;

    public enum Build { Bits64, Bits32 }

    private static BareMachine Create(Build build, uint featureEcx = 1 << 5)
    {
        var m = new BareMachine();
        if (build == Build.Bits64)
        {
            m.Long();
        }
        else
        {
            m.Protected();
            // VMXON needs paging: 4 MiB pages, one to one.
            for (uint i = 0; i < 4; i++)
                ((uint*)m.At(BareMachine.Tables))[i] = i << 22 | 0x87;
            m.State->Cr3 = BareMachine.Tables;
            m.State->Cr4 = Cr4.PSE;
            m.State->Cr0 |= Cr0.PG;
        }
        m.Cpu.Segment(Seg.GS).Base = Pcb;
        m.Cpu.UpdateMode();
        *m.Qword(Pcb + Base) = Pcb;
        *(uint*)m.At(Pcb + FeatureEcx) = featureEcx;
        *m.Qword(Pcb + VmxonPhysicalPointer) = VmxonRegion;
        int bits = build == Build.Bits64 ? 64 : 32;
        m.Assemble(Routine, a => Enter(a, bits), bits);
        m.Assemble(Init, InitializeRegion, bits);
        m.Assemble(BareMachine.Code, a => { a.call(Routine); a.hlt(); }, bits);
        return m;
    }

    private static void Enter(Assembler a, int bits)
    {
        Label done = a.CreateLabel();
        bool wide = bits == 64;
        if (wide) { a.push(rcx); a.push(rdx); a.push(rbp); }
        else { a.push(ecx); a.push(edx); a.push(ebp); }
        if (wide) a.mov(rbp, __qword_ptr.gs[Base]);
        else a.mov(ebp, __dword_ptr.gs[Base]);
        AssemblerMemoryOperand Field(int offset) => wide ? __dword_ptr[rbp + offset] : __dword_ptr[ebp + offset];
        a.xor(eax, eax);
        a.test(Field(ProcessorStatus), StatusVmxon);
        a.jne(done);
        a.bt(Field(FeatureEcx), 5);
        a.mov(eax, StatusUnsuccess);
        a.jae(done);
        if (wide) { a.mov(rax, cr4); a.bts(rax, 13); a.mov(cr4, rax); }
        else { a.mov(eax, cr4); a.bts(eax, 13); a.mov(cr4, eax); }
        a.or(Field(InstructionStatus), StatusVmx);
        a.call(Init);
        a.test(eax, eax);
        a.jne(done);
        a.vmxon(wide ? __qword_ptr[rbp + VmxonPhysicalPointer] : __qword_ptr[ebp + VmxonPhysicalPointer]);
        a.mov(eax, StatusUnsuccess);
        a.jb(done);
        a.je(done);
        a.or(Field(ProcessorStatus), StatusVmxon);
        a.xor(eax, eax);
        a.Label(ref done);
        if (wide) { a.pop(rbp); a.pop(rdx); a.pop(rcx); }
        else { a.pop(ebp); a.pop(edx); a.pop(ecx); }
        a.ret();
    }

    /// <summary>ESI = region: revision identifier from IA32_VMX_BASIC[30:0] into the first dword; fails for a region that is not page-aligned.</summary>
    private static void InitializeRegion(Assembler a)
    {
        Label bad = a.CreateLabel();
        a.test(esi, 0xfff);
        a.jne(bad);
        a.mov(ecx, Msr.IA32_VMX_BASIC);
        a.rdmsr();
        a.and(eax, 0x7fff_ffff);
        if (a.Bitness == 64) a.mov(__dword_ptr[rsi], eax);
        else a.mov(__dword_ptr[esi], eax);
        a.xor(eax, eax);
        a.ret();
        a.Label(ref bad);
        a.mov(eax, 0xc000_000d);
        a.ret();
    }

    private static uint Call(BareMachine m, ulong region = VmxonRegion)
    {
        m.State->Rip = BareMachine.Code;
        m.State->Activity = ActivityState.Active;
        m.State->Gpr[6] = region;
        m.State->Gpr[1] = 0x1111;
        m.State->Gpr[2] = 0x2222;
        m.State->Gpr[5] = 0x3333;
        ulong stack = m.State->Gpr[4];
        m.Run().Should().Be(StopReason.Halted);
        (m.State->Gpr[1], m.State->Gpr[2], m.State->Gpr[5]).Should().Be((0x1111UL, 0x2222UL, 0x3333UL), "the routine saves ECX, EDX, EBP");
        m.State->Gpr[4].Should().Be(stack);
        return (uint)m.State->Gpr[0];
    }

    private static uint Status(BareMachine m) => *(uint*)m.At(Pcb + ProcessorStatus);

    [Theory]
    [InlineData(Build.Bits64), InlineData(Build.Bits32)]
    [Trait("Seed", "S3-1"), Trait("Seed", "S3-2"), Trait("Seed", "S3-3"), Trait("Seed", "S3-4"), Trait("Seed", "S3-10"), Trait("Seed", "S3-12"), Trait("Seed", "S3-15"), Trait("Seed", "S3-19"), Trait("Seed", "S3-22")]
    public void Enters_VMX_root_operation(Build build)
    {
        using BareMachine m = Create(build);
        Call(m).Should().Be(0);
        m.Cpu.InVmxOperation.Should().BeTrue();
        m.Cpu.NonRoot.Should().BeNull();
        (m.State->Cr4 & Cr4.VMXE).Should().NotBe(0);
        Status(m).Should().Be(StatusVmxon);
        (*(uint*)m.At(Pcb + InstructionStatus)).Should().Be(StatusVmx);
        (*(uint*)m.At(VmxonRegion) >> 31).Should().Be(0);
    }

    [Theory]
    [InlineData(Build.Bits64), InlineData(Build.Bits32)]
    [Trait("Seed", "S3-5"), Trait("Seed", "S3-6")]
    public void A_second_call_does_nothing(Build build)
    {
        using BareMachine m = Create(build);
        Call(m).Should().Be(0);
        var log = new VmxonCounter();
        m.Cpu.Observer = log;
        Call(m).Should().Be(0);
        log.Count.Should().Be(0);
    }

    [Theory]
    [InlineData(Build.Bits64), InlineData(Build.Bits32)]
    [Trait("Seed", "S3-7"), Trait("Seed", "S3-8"), Trait("Seed", "S3-9")]
    public void Without_the_CPUID_bit_it_gives_up_before_CR4(Build build)
    {
        using BareMachine m = Create(build, featureEcx: ~(1u << 5));
        Call(m).Should().Be(StatusUnsuccess);
        (m.State->Cr4 & Cr4.VMXE).Should().Be(0);
        Status(m).Should().Be(0);
    }

    [Theory]
    [InlineData(Build.Bits64), InlineData(Build.Bits32)]
    [Trait("Seed", "S3-13"), Trait("Seed", "S3-21")]
    public void A_failing_region_leaves_CR4_VMXE_set(Build build)
    {
        using BareMachine m = Create(build);
        Call(m, VmxonRegion + 8).Should().Be(0xc000_000d);
        (m.State->Cr4 & Cr4.VMXE).Should().NotBe(0);
        (*(uint*)m.At(Pcb + InstructionStatus)).Should().Be(StatusVmx);
        Status(m).Should().Be(0);
        m.Cpu.InVmxOperation.Should().BeFalse();
    }

    [Theory]
    [InlineData(Build.Bits64), InlineData(Build.Bits32)]
    [Trait("Seed", "S3-17"), Trait("Seed", "S3-18"), Trait("Seed", "S3-21")]
    public void VMXON_that_fails_by_flags_is_unsuccessful(Build build)
    {
        using BareMachine m = Create(build);
        // The pointer names another page than the one that was initialized: its revision identifier is 0.
        *m.Qword(Pcb + VmxonPhysicalPointer) = VmxonRegion + 0x1000;
        Call(m).Should().Be(StatusUnsuccess);
        m.Cpu.InVmxOperation.Should().BeFalse();
        Status(m).Should().Be(0);
    }

    private sealed class VmxonCounter : IHardwareObserver
    {
        public int Count { get; private set; }
        public void Msr(Processor cpu, bool write, uint index, ulong value, bool faulted) { }
        public void ControlRegister(Processor cpu, int register, ulong oldValue, ulong newValue) { }
        public void Virtualization(Processor cpu, string mnemonic, ulong operand, ulong value, InstructionResult result) => Count++;
        public void EntryCheckFailed(Processor cpu, string rule) { }
        public void VmExit(Processor cpu, ulong reason, ulong qualification) { }
    }
}

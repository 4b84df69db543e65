using Kvm.Emulator;
using Kvm.Emulator.Vmx;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.Vmx.VmxControls;
using static Kvm.Emulator.Vmx.VmcsField;

namespace Kvm.Arch.X86.Vmx.Tests;

/// <summary>What init_vmcs writes when a vCPU is created: the fields, their order and their values.</summary>
/// <remarks>The numbers in the names are those of the list that the origin documents give; later kernels dropped or added fields where noted.</remarks>
public sealed class InitVmcs
{
    private static readonly VmcsField[] order =
    [
        MSR_BITMAP, VMCS_LINK_POINTER, PIN_BASED_VM_EXEC_CONTROL, CPU_BASED_VM_EXEC_CONTROL, SECONDARY_VM_EXEC_CONTROL, PLE_GAP, PAGE_FAULT_ERROR_CODE_MASK,
        PAGE_FAULT_ERROR_CODE_MATCH, CR3_TARGET_COUNT, HOST_FS_SELECTOR, HOST_GS_SELECTOR, HOST_CR0, HOST_CR3, HOST_CR4, HOST_CS_SELECTOR, HOST_DS_SELECTOR,
        HOST_ES_SELECTOR, HOST_SS_SELECTOR, HOST_TR_SELECTOR, HOST_IDTR_BASE, HOST_RIP, HOST_IA32_SYSENTER_CS, HOST_IA32_SYSENTER_EIP, HOST_IA32_PAT, HOST_IA32_EFER,
        HOST_FS_BASE, HOST_GS_BASE, VM_FUNCTION_CONTROL, VM_EXIT_MSR_STORE_COUNT, VM_EXIT_MSR_LOAD_COUNT, VM_EXIT_MSR_LOAD_ADDR, VM_ENTRY_MSR_LOAD_COUNT,
        VM_ENTRY_MSR_LOAD_ADDR, GUEST_IA32_PAT, VM_EXIT_CONTROLS, VM_ENTRY_CONTROLS, CR0_GUEST_HOST_MASK, CR4_GUEST_HOST_MASK, VIRTUAL_PROCESSOR_ID, XSS_EXIT_BITMAP,
        PML_ADDRESS, GUEST_PML_INDEX, GUEST_SYSENTER_CS, GUEST_SYSENTER_ESP, GUEST_SYSENTER_EIP, GUEST_IA32_DEBUGCTL, VIRTUAL_APIC_PAGE_ADDR, TPR_THRESHOLD,
    ];

    private sealed class Created : IDisposable
    {
        public Created(string parameters = "")
        {
            Host = IntelHost.Loaded(parameters);
            Vm = Host.CreateVm();
            Log = InstructionLog.On(Host);
            Host.CreateVcpu(Vm);
            All = Log.Take();
            Writes = [.. All.Where(static i => i.Mnemonic == "VMWRITE")];
        }

        public IntelHost Host { get; }
        public int Vm { get; }
        public InstructionLog Log { get; }
        public List<Instruction> All { get; }
        public List<Instruction> Writes { get; }
        public VcpuVmx Vcpu => Host.Vcpu();
        public ulong this[VmcsField field] => Writes.First(w => w.Field == field).Value;
        public bool Has(VmcsField field) => Writes.Exists(w => w.Field == field);
        public void Dispose() => Host.Dispose();
    }

    [Fact]
    [Trait("Seed", "S4-79")]
    [Trait("Seed", "S4-106")]
    public void Creation_writes_the_fields_in_this_order_and_cannot_fail()
    {
        using var created = new Created();
        int first = created.Writes.FindIndex(static w => w.Field == MSR_BITMAP);
        created.Writes.Skip(first).Take(order.Length).Select(static w => w.Field).Should().Equal(order);
    }

    [Fact]
    [Trait("Seed", "S4-80")]
    [Trait("Seed", "S4-81")]
    public void N01_N02_io_bitmaps_are_not_used_every_port_access_exits()
    {
        using var created = new Created();
        created.Has(IO_BITMAP_A).Should().BeFalse();
        created.Has(IO_BITMAP_B).Should().BeFalse();
        (created[CPU_BASED_VM_EXEC_CONTROL] & CPU_BASED_UNCOND_IO_EXITING).Should().NotBe(0);
        (created[CPU_BASED_VM_EXEC_CONTROL] & CPU_BASED_USE_IO_BITMAPS).Should().Be(0);
    }

    [Theory]
    [Trait("Seed", "S4-82")]
    [Trait("Seed", "S4-83")]
    [InlineData("nested=1", true)]
    [InlineData("nested=1 enable_shadow_vmcs=0", false)]
    [InlineData("", false)]
    public void N03_N04_shadow_vmcs_bitmaps(string parameters, bool written)
    {
        using var created = new Created(parameters);
        created.Has(VMREAD_BITMAP).Should().Be(written);
        created.Has(VMWRITE_BITMAP).Should().Be(written);
        if (written)
            created.Writes.Select(static w => w.Field).Should().ContainInOrder(VMREAD_BITMAP, VMWRITE_BITMAP, MSR_BITMAP);
    }

    [Fact]
    [Trait("Seed", "S4-84")]
    public void N05_msr_bitmap_of_this_vmcs()
    {
        using var created = new Created();
        created[MSR_BITMAP].Should().Be(created.Vcpu.Vmcs01.MsrBitmap);
        created.Host.CreateVcpu(created.Vm, 1);
        created.Host.Vcpu(1).Vmcs01.MsrBitmap.Should().NotBe(created.Vcpu.Vmcs01.MsrBitmap);
    }

    [Fact]
    [Trait("Seed", "S4-85")]
    public void N06_link_pointer_is_all_ones()
    {
        using var created = new Created();
        created[VMCS_LINK_POINTER].Should().Be(ulong.MaxValue);
    }

    [Fact]
    [Trait("Seed", "S4-86")]
    [Trait("Seed", "S4-87")]
    [Trait("Seed", "S4-88")]
    public void N07_N08_N09_execution_controls_as_recorded()
    {
        using var created = new Created("nested=1");
        created[PIN_BASED_VM_EXEC_CONTROL].Should().Be(0x7f);
        created[CPU_BASED_VM_EXEC_CONTROL].Should().Be(0xb5986dfa);
        created[SECONDARY_VM_EXEC_CONTROL].Should().Be(0x2012ce2);
    }

    [Fact]
    [Trait("Seed", "S4-89")]
    [Trait("Seed", "S4-90")]
    [Trait("Seed", "S4-91")]
    [Trait("Seed", "S4-92")]
    public void N10_to_N13_are_written_only_with_an_active_virtual_APIC()
    {
        using var created = new Created();
        created.Vcpu.ApicvActive.Should().BeFalse("there is no in-kernel APIC");
        foreach (VmcsField field in (VmcsField[])[EOI_EXIT_BITMAP0, EOI_EXIT_BITMAP3, GUEST_INTR_STATUS, POSTED_INTR_NV, POSTED_INTR_DESC_ADDR])
            created.Has(field).Should().BeFalse(field.ToString());
        // The 16-bit field takes the low 16 bits of whatever is written.
        created.Host.OnCpu(created.Vcpu.LoadedVmcs.Cpu, () =>
        {
            Processor cpu = created.Host.HostX86.ThisCpu.Processor;
            cpu.Vmptrld(created.Vcpu.LoadedVmcs.Vmcs).Ok.Should().BeTrue();
            cpu.Vmwrite((uint)POSTED_INTR_NV, 0x1234_00f2).Ok.Should().BeTrue();
            cpu.Vmread((uint)POSTED_INTR_NV, out ulong value);
            value.Should().Be(0xf2);
        });
    }

    [Fact]
    [Trait("Seed", "S4-93")]
    [Trait("Seed", "S4-94")]
    public void N14_ple_gap_now_ple_window_at_the_first_run()
    {
        using var created = new Created();
        created[PLE_GAP].Should().Be(128);
        created.Has(PLE_WINDOW).Should().BeFalse();
        created.Vcpu.PleWindow.Should().Be(4096);
        created.Vcpu.PleWindowDirty.Should().BeTrue();
        using var off = new Created("ple_gap=0");
        off.Has(PLE_GAP).Should().BeFalse();
    }

    [Fact]
    [Trait("Seed", "S4-95")]
    [Trait("Seed", "S4-96")]
    public void N15_to_N19_are_zero()
    {
        using var created = new Created();
        foreach (VmcsField field in (VmcsField[])[PAGE_FAULT_ERROR_CODE_MASK, PAGE_FAULT_ERROR_CODE_MATCH, CR3_TARGET_COUNT, HOST_FS_SELECTOR, HOST_GS_SELECTOR])
            created[field].Should().Be(0, field.ToString());
    }

    [Fact]
    [Trait("Seed", "S4-97")]
    public void N20_host_state_that_never_changes()
    {
        using var created = new Created();
        created[HOST_CS_SELECTOR].Should().Be(0x10);
        created[HOST_DS_SELECTOR].Should().Be(0);
        created[HOST_ES_SELECTOR].Should().Be(0);
        created[HOST_SS_SELECTOR].Should().Be(0x18);
        created[HOST_TR_SELECTOR].Should().Be(0x40);
        created[HOST_IA32_SYSENTER_CS].Should().Be(0x10);
        Processor cpu = created.Host.Machine.Processors[created.Vcpu.LoadedVmcs.Cpu];
        created[HOST_CR0].Should().Be(cpu.ReadCr(0) & ~8ul);
        created[HOST_CR3].Should().Be(cpu.ReadCr(3));
        created[HOST_CR4].Should().Be(cpu.ReadCr(4));
        cpu.ReadMsr(0x277, out ulong pat);
        created[HOST_IA32_PAT].Should().Be(pat);
        created[HOST_IA32_EFER].Should().Be(0xd01);
        created[HOST_RIP].Should().NotBe(0);
    }

    [Fact]
    [Trait("Seed", "S4-98")]
    public void N21_N22_host_fs_and_gs_bases_are_zero_until_the_vcpu_runs()
    {
        using var created = new Created();
        created[HOST_FS_BASE].Should().Be(0);
        created[HOST_GS_BASE].Should().Be(0);
    }

    [Fact]
    [Trait("Seed", "S4-99")]
    public void N23_to_N27_msr_lists_are_empty_and_at_home_in_the_vcpu()
    {
        using var created = new Created();
        created[VM_FUNCTION_CONTROL].Should().Be(0);
        created[VM_EXIT_MSR_STORE_COUNT].Should().Be(0);
        created[VM_EXIT_MSR_LOAD_COUNT].Should().Be(0);
        created[VM_ENTRY_MSR_LOAD_COUNT].Should().Be(0);
        unsafe
        {
            created[VM_EXIT_MSR_LOAD_ADDR].Should().Be((ulong)created.Vcpu.MsrAutoloadHost.Values);
            created[VM_ENTRY_MSR_LOAD_ADDR].Should().Be((ulong)created.Vcpu.MsrAutoloadGuest.Values);
        }
    }

    [Fact]
    [Trait("Seed", "S4-100")]
    public void N28_guest_PAT_is_the_reset_value()
    {
        using var created = new Created();
        created[GUEST_IA32_PAT].Should().Be(0x0007040600070406);
        created.Vcpu.Pat.Should().Be(0x0007040600070406);
    }

    [Fact]
    [Trait("Seed", "S4-101")]
    [Trait("Seed", "S4-118")]
    public void N29_guest_MSRs_are_probed_once_when_the_module_loads()
    {
        using var host = new IntelHost();
        InstructionLog log = InstructionLog.On(host);
        host.Load();
        log.Take().Where(static i => i.Mnemonic == "WRMSR").Select(static i => (uint)i.Operand).Should().Equal(0xc0000084, 0xc0000082, 0xc0000083, 0xc0000080, 0xc0000103, 0xc0000081, 0x122);
        host.Arch.UserReturn.Count.Should().Be(7, "SYSCALL_MASK, LSTAR, CSTAR, EFER, TSC_AUX, STAR, TSX_CTRL");

        using var without = new IntelHost(CpuModel.Load("bochs-skylake-x").With(msrs: new Dictionary<uint, ulong?> { [0x122] = null }));
        without.Load();
        without.Arch.UserReturn.Count.Should().Be(6);
    }

    [Fact]
    [Trait("Seed", "S4-102")]
    [Trait("Seed", "S4-103")]
    public void N30_N31_exit_and_entry_controls()
    {
        using var created = new Created("nested=1");
        created[VM_EXIT_CONTROLS].Should().Be(0xbefff);
        created[VM_ENTRY_CONTROLS].Should().Be(0x51ff);
        (created[VM_EXIT_CONTROLS] & (VM_EXIT_LOAD_IA32_EFER | VM_EXIT_LOAD_IA32_PERF_GLOBAL_CTRL)).Should().Be(0);
        (created[VM_ENTRY_CONTROLS] & (VM_ENTRY_LOAD_IA32_EFER | VM_ENTRY_LOAD_IA32_PERF_GLOBAL_CTRL | VM_ENTRY_IA32E_MODE)).Should().Be(0);
    }

    [Fact]
    [Trait("Seed", "S4-104")]
    public void N32_the_guest_owns_CR0_TS_and_with_EPT_also_WP()
    {
        using var created = new Created();
        (~created[CR0_GUEST_HOST_MASK]).Should().Be(1ul << 3 | 1ul << 16);
        using var shadow = new Created("ept=0");
        (~shadow[CR0_GUEST_HOST_MASK]).Should().Be(1ul << 3);
    }

    [Fact]
    [Trait("Seed", "S4-105")]
    public void N33_CR4_bits_of_the_guest()
    {
        using var created = new Created();
        created[CR4_GUEST_HOST_MASK].Should().Be(0xfffffffffffef871);
    }

    [Fact]
    [Trait("Seed", "S4-107")]
    public void What_later_kernels_add()
    {
        using var created = new Created();
        created[VIRTUAL_PROCESSOR_ID].Should().Be(1);
        created[XSS_EXIT_BITMAP].Should().Be(0);
        created[PML_ADDRESS].Should().Be(created.Vcpu.PmlPage);
        created[GUEST_PML_INDEX].Should().Be(511);
        foreach (VmcsField field in (VmcsField[])[GUEST_SYSENTER_CS, GUEST_SYSENTER_ESP, GUEST_SYSENTER_EIP, GUEST_IA32_DEBUGCTL, VIRTUAL_APIC_PAGE_ADDR, TPR_THRESHOLD])
            created[field].Should().Be(0, field.ToString());
        using var noVpid = new Created("vpid=0");
        noVpid.Has(VIRTUAL_PROCESSOR_ID).Should().BeFalse();
    }
}

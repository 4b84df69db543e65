using Kvm.Abi;
using Kvm.Core;
using Kvm.Core.Tracing;
using Kvm.Emulator;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.Vmx.VmxControls;
using static Kvm.Emulator.Vmx.VmcsField;

namespace Kvm.Arch.X86.Vmx.Tests;

/// <summary>vmx_vcpu_create and vmx_vcpu_free: what a vCPU consists of, and that a failure at any step leaves nothing behind.</summary>
public sealed unsafe class VcpuCreation
{
    [Fact]
    [Trait("Seed", "S4-41")]
    public void An_error_of_the_vendor_module_reaches_userspace_unchanged()
    {
        using IntelHost host = IntelHost.Loaded();
        int vm = host.CreateVm();
        host.Host.Faults.Fail("alloc_page:alloc_vmcs_cpu");
        host.Process.Ioctl(vm, KVM_CREATE_VCPU, 0).Should().Be((KvmResult)Errno.ENOMEM);
    }

    [Fact]
    [Trait("Seed", "S4-40")]
    public void Several_vcpus_on_a_host_with_an_unstable_TSC_are_warned_about_once()
    {
        const string text = "kvm: SMP vm created on host with unstable TSC; guest TSC will not be reliable";
        using IntelHost host = IntelHost.Loaded();
        int vm = host.CreateVm();
        host.CreateVcpu(vm, 0);
        host.HostX86.TscUnstable = true;
        host.Dmesg.Should().NotContain(static l => l.EndsWith(text, StringComparison.Ordinal));
        host.CreateVcpu(vm, 1);
        host.CreateVcpu(vm, 2);
        host.Dmesg.Count(static l => l.EndsWith(text, StringComparison.Ordinal)).Should().Be(1);
    }

    [Fact]
    [Trait("Seed", "S4-42")]
    public void After_the_vendor_module_the_vcpu_is_loaded_reset_and_put()
    {
        using IntelHost host = IntelHost.Loaded();
        int vm = host.CreateVm();
        using FunctionTraceSession trace = FunctionTrace.Start(host.Host);
        host.CreateVcpu(vm);
        trace.Flatten().Select(static f => f.Name).Should().ContainInOrder("kvm_arch_vcpu_create", "vmx_vcpu_create", "vcpu_load", "kvm_vcpu_reset", "vmx_vcpu_reset", "init_vmcs", "kvm_init_mmu", "vcpu_put");
    }

    [Fact]
    [Trait("Seed", "S4-43")]
    public void A_new_vcpu_is_at_reset()
    {
        using IntelHost host = IntelHost.Loaded();
        int vcpu = host.CreateVcpu(host.CreateVm());
        kvm_sregs sregs = default;
        host.Process.Ioctl(vcpu, KVM_GET_SREGS, ref sregs).Should().Be((KvmResult)0);
        kvm_regs regs = default;
        host.Process.Ioctl(vcpu, KVM_GET_REGS, ref regs).Should().Be((KvmResult)0);
        (sregs.cs.selector, sregs.cs.@base, sregs.cs.limit, sregs.cs.type).Should().Be(((ushort)0xf000, 0xffff0000ul, 0xffffu, (byte)11));
        (regs.rip, regs.rflags, regs.rdx, sregs.cr0, sregs.cr4, sregs.efer).Should().Be((0xfff0ul, 2ul, 0x600ul, 0x60000010ul, 0ul, 0ul));
        (sregs.tr.type, sregs.ldt.type, sregs.gdt.limit, sregs.idt.limit).Should().Be(((byte)11, (byte)2, (ushort)0xffff, (ushort)0xffff));
    }

    [Fact]
    [Trait("Seed", "S4-45")]
    public void Without_memory_for_the_vcpu_itself_ENOMEM()
    {
        using IntelHost host = IntelHost.Loaded();
        int vm = host.CreateVm();
        host.Host.Faults.Fail("kmem_cache_zalloc:kvm_vcpu");
        host.Process.Ioctl(vm, KVM_CREATE_VCPU, 0).Should().Be((KvmResult)Errno.ENOMEM);
    }

    [Fact]
    [Trait("Seed", "S4-46")]
    [Trait("Seed", "S4-117")]
    public void VPIDs_count_from_1_are_reused_and_0_is_what_remains_when_they_are_used_up()
    {
        using IntelHost host = IntelHost.Loaded();
        int vm = host.CreateVm();
        host.CreateVcpu(vm, 0);
        host.CreateVcpu(vm, 1);
        host.Vcpu(0).Vpid.Should().Be(1);
        host.Vcpu(1).Vpid.Should().Be(2);
        host.Vmx.FreeVpid(1);
        host.Vmx.AllocateVpid().Should().Be(1);
        for (int i = 3; i < 65536; i++)
            host.Vmx.AllocateVpid().Should().Be(i);
        host.Vmx.AllocateVpid().Should().Be(0);

        using IntelHost off = IntelHost.Loaded("vpid=0");
        off.CreateVcpu(off.CreateVm());
        off.Vcpu().Vpid.Should().Be(0);
    }

    [Fact]
    [Trait("Seed", "S4-47")]
    public void When_the_common_part_fails_the_vendor_module_is_not_asked()
    {
        using IntelHost host = IntelHost.Loaded();
        int vm = host.CreateVm();
        host.Host.Faults.Fail("alloc_page:kvm_run");
        using FunctionTraceSession trace = FunctionTrace.Start(host.Host);
        host.Process.Ioctl(vm, KVM_CREATE_VCPU, 0).Should().Be((KvmResult)Errno.ENOMEM);
        trace.Flatten().Should().NotContain(static f => f.Name == "vmx_vcpu_create");
        host.Vmx.VpidsInUse.Should().Be(0);
    }

    [Fact]
    [Trait("Seed", "S4-48")]
    public void User_return_MSRs_live_in_the_vcpu()
    {
        sizeof(VmxUretMsrArray).Should().Be(7 * sizeof(VmxUretMsr));
    }

    [Fact]
    [Trait("Seed", "S4-49")]
    [Trait("Seed", "S4-61")]
    public void The_loaded_VMCS_is_the_vcpus_own()
    {
        using IntelHost host = IntelHost.Loaded();
        host.CreateVcpu(host.CreateVm());
        host.Vcpu().LoadedVmcs.Should().BeSameAs(host.Vcpu().Vmcs01);
        host.Kvm.VmList[0].GetVcpu(0).Should().BeSameAs(host.Vcpu());
    }

    [Fact]
    [Trait("Seed", "S4-50")]
    [Trait("Seed", "S4-51")]
    [Trait("Seed", "S4-52")]
    public void A_VMCS_is_a_page_with_revision_and_abort_indicator()
    {
        using IntelHost host = IntelHost.Loaded();
        host.CreateVcpu(host.CreateVm());
        uint* vmcs = (uint*)host.Vcpu().Vmcs01.Vmcs;
        ((ulong)vmcs & 0xfff).Should().Be(0);
        vmcs[0].Should().Be(host.Vmx.VmcsConfig.RevisionId, "and bit 31, shadow VMCS, is clear");
        vmcs[1].Should().Be(0);
    }

    [Fact]
    [Trait("Seed", "S4-53")]
    public void Creating_a_vcpu_neither_enters_nor_leaves_VMX_operation()
    {
        using IntelHost host = IntelHost.Loaded();
        int vm = host.CreateVm();
        InstructionLog log = InstructionLog.On(host);
        host.CreateVcpu(vm);
        log.Take().Should().NotContain(static i => i.Mnemonic == "VMXON" || i.Mnemonic == "VMXOFF");
    }

    [Fact]
    [Trait("Seed", "S4-54")]
    [Trait("Seed", "S4-55")]
    public void VMCLEAR_then_VMPTRLD_then_the_writes_all_on_one_processor()
    {
        using IntelHost host = IntelHost.Loaded();
        int vm = host.CreateVm();
        host.Process.Task.SetAffinity(1);
        InstructionLog log = InstructionLog.On(host);
        host.CreateVcpu(vm);
        List<Instruction> vmx = [.. log.Take().Where(static i => i.Mnemonic.StartsWith('V'))];
        vmx.Should().OnlyContain(static i => i.Cpu == 1);
        vmx.Take(3).Select(static i => i.Mnemonic).Should().Equal("VMCLEAR", "VMPTRLD", "VMWRITE");
        vmx[0].Operand.Should().Be(host.Vcpu().Vmcs01.Vmcs);
        host.Vcpu().LoadedVmcs.Launched.Should().BeFalse();
        host.Vcpu().LoadedVmcs.ShadowVmcs.Should().Be(0);
        byte* bitmap = (byte*)host.Vcpu().LoadedVmcs.MsrBitmap;
        bitmap[0x100].Should().Be(0xff, "every MSR is intercepted");
        (bitmap[0x10 / 8] & 1).Should().Be(0, "but not reads of the time-stamp counter");
        (bitmap[0x800 + 0x10 / 8] & 1).Should().Be(1);
    }

    [Fact]
    [Trait("Seed", "S4-56")]
    public void Without_an_in_kernel_APIC_its_accesses_are_not_virtualized()
    {
        using IntelHost host = IntelHost.Loaded();
        int vm = host.CreateVm();
        InstructionLog log = InstructionLog.On(host);
        host.CreateVcpu(vm);
        List<Instruction> writes = [.. log.Writes()];
        writes.Should().NotContain(static w => w.Field == APIC_ACCESS_ADDR);
        (writes.Last(static w => w.Field == SECONDARY_VM_EXEC_CONTROL).Value & SECONDARY_EXEC_VIRTUALIZE_APIC_ACCESSES).Should().Be(0);
    }

    [Fact]
    [Trait("Seed", "S4-57")]
    public void Identity_page_table_only_without_unrestricted_guest()
    {
        using IntelHost host = IntelHost.Loaded("unrestricted_guest=0");
        int vm = host.CreateVm();
        host.CreateVcpu(vm);
        var kvm = (KvmVmx)host.Kvm.VmList[0];
        kvm.EptIdentityMapAddr.Should().Be(0xfffbc000);
        kvm.EptIdentityPagetableDone.Should().BeTrue();

        using IntelHost unrestricted = IntelHost.Loaded();
        unrestricted.CreateVcpu(unrestricted.CreateVm());
        ((KvmVmx)unrestricted.Kvm.VmList[0]).EptIdentityPagetableDone.Should().BeFalse();
    }

    [Fact]
    [Trait("Seed", "S4-58")]
    public void There_is_no_nested_state()
    {
        using IntelHost host = IntelHost.Loaded("nested=1");
        int vcpu = host.CreateVcpu(host.CreateVm());
        byte[] state = new byte[4096 * 3];
        fixed (byte* p = state)
        {
            ((kvm_nested_state*)p)->size = (uint)state.Length;
            KvmResult r = host.Process.Ioctl(vcpu, KVM_GET_NESTED_STATE, (ulong)p);
            r.IsError.Should().BeFalse(r.ToString());
            ((kvm_nested_state*)p)->flags.Should().Be(0);
            ((kvm_nested_state*)p)->hdr.vmx.vmxon_pa.Should().Be(ulong.MaxValue);
            ((kvm_nested_state*)p)->hdr.vmx.vmcs12_pa.Should().Be(ulong.MaxValue);
        }
    }

    [Fact]
    [Trait("Seed", "S4-59")]
    [Trait("Seed", "S4-60")]
    public void The_log_of_dirty_pages_is_one_page_and_starts_at_its_end()
    {
        using IntelHost host = IntelHost.Loaded();
        int vm = host.CreateVm();
        host.Host.Faults.Fail("alloc_page:vmx_vcpu_create");
        host.Process.Ioctl(vm, KVM_CREATE_VCPU, 0).Should().Be((KvmResult)Errno.ENOMEM);

        InstructionLog log = InstructionLog.On(host);
        host.CreateVcpu(vm);
        List<Instruction> writes = [.. log.Writes()];
        writes.Single(static w => w.Field == PML_ADDRESS).Value.Should().Be(host.Vcpu().PmlPage);
        writes.Single(static w => w.Field == GUEST_PML_INDEX).Value.Should().Be(511);
        (writes.Last(static w => w.Field == SECONDARY_VM_EXEC_CONTROL).Value & SECONDARY_EXEC_ENABLE_PML).Should().Be(0, "nothing is logged until a slot asks");
        host.Vmx.CpuDirtyLogSize.Should().Be(512);
    }

    [Theory]
    [Trait("Seed", "S4-62")]
    [Trait("Seed", "S4-63")]
    [InlineData("alloc_page:vcpu_vmx", "")]
    [InlineData("alloc_page:vmx_vcpu_create", "")]
    [InlineData("alloc_page:alloc_vmcs_cpu", "")]
    [InlineData("alloc_page:alloc_loaded_vmcs", "")]
    [InlineData("alloc_page:alloc_vmcs_cpu", "pml=0 vpid=0")]
    [InlineData("kmem_cache_zalloc:kvm_vcpu", "")]
    [InlineData("alloc_page:kvm_run", "")]
    [InlineData("alloc_page:pio_data", "")]
    [InlineData("kzalloc:kvm_memory_slot", "unrestricted_guest=0")]
    [InlineData("get_unused_fd", "")]
    [InlineData("anon_inode_getfile", "")]
    [InlineData("xa_reserve", "")]
    public void A_failure_gives_back_exactly_what_was_there(string point, string parameters)
    {
        using IntelHost host = IntelHost.Loaded(parameters);
        int vm = host.CreateVm();
        long pages = host.Host.Pages.InUse;
        int references = host.Kvm.VmList[0].UsersCount;
        host.Host.Faults.Fail(point);
        KvmResult r = host.Process.Ioctl(vm, KVM_CREATE_VCPU, 0);
        r.IsError.Should().BeTrue();
        host.Vmx.VpidsInUse.Should().Be(0);
        host.Host.Pages.InUse.Should().Be(pages, string.Join(", ", host.Host.Pages.InUseByTag));
        host.Kvm.VmList[0].UsersCount.Should().Be(references);
        host.CreateVcpu(vm, 0);
        host.Process.Close(vm);
    }

    [Fact]
    [Trait("Seed", "S4-64")]
    public void A_vcpu_is_freed_VPID_then_nested_state_then_VMCS()
    {
        using IntelHost host = IntelHost.Loaded();
        long pages = host.Host.Pages.InUse;
        int vm = host.CreateVm();
        int vcpu = host.CreateVcpu(vm);
        host.Process.Close(vcpu);
        using FunctionTraceSession trace = FunctionTrace.Start(host.Host);
        host.Process.Close(vm);
        trace.Flatten().First(static f => f.Name == "vmx_vcpu_free").Children.Select(static f => f.Name).Where(static n => n is "free_vpid" or "nested_vmx_free_vcpu" or "free_loaded_vmcs")
            .Should().Equal("free_vpid", "nested_vmx_free_vcpu", "free_loaded_vmcs");
        host.Vmx.VpidsInUse.Should().Be(0);
        host.Host.Pages.InUse.Should().Be(pages, string.Join(", ", host.Host.Pages.InUseByTag));
    }
}

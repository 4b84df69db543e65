using Kvm.Abi;
using Kvm.Core;
using Kvm.Emulator;
using Kvm.Emulator.Svm;
using static Kvm.Abi.Uapi;

namespace Kvm.Arch.X86.Svm.Tests;

/// <summary>The VMCB of a new vCPU, its permission maps, and what goes back when a vCPU can't be made.</summary>
public sealed unsafe class VcpuState
{
    /// <summary>Values of the recorded kernel after KVM_CREATE_VCPU, first vCPU, processor of the recording.</summary>
    [Fact]
    public void A_new_VMCB_is_the_recorded_one()
    {
        using var guest = new Guest();
        ref VmcbControlArea c = ref guest.Control;
        new[] { c.Intercepts[0], c.Intercepts[1], c.Intercepts[2], c.Intercepts[3], c.Intercepts[4] }.Should().Equal(0x1110011u, 0xff00ffu, 0x60042u, 0xbd4c8027u, 0x6effu);
        ((uint)c.IntControl).Should().Be(0x01000000);
        ((ulong)c.NestedControl).Should().Be(1);
        c.Asid.Should().Be(0);
        ref VmcbSaveArea s = ref guest.Save;
        foreach (VmcbSegment data in new[] { s.Es, s.Ss, s.Ds, s.Fs, s.Gs })
            data.Should().Be(new VmcbSegment { Attributes = 0x92, Limit = 0xffff });
        s.Cs.Should().Be(new VmcbSegment { Selector = 0xf000, Base = 0xffff0000, Attributes = 0x9a, Limit = 0xffff });
        s.Ldtr.Should().Be(new VmcbSegment { Attributes = 0x82, Limit = 0xffff });
        s.Tr.Should().Be(new VmcbSegment { Attributes = 0x83, Limit = 0xffff });
        (s.Efer, s.Cr0, s.Cr4, s.Dr7, s.Rflags, s.GPat).Should().Be((0x1000ul, 0x10ul, 0ul, 0x400ul, 2ul, 0x7040600070406ul));
    }

    /// <summary>Recorded: INVPCID's and RDTSCP's intercepts follow the guest's CPUID.</summary>
    [Fact]
    public void CPUID_with_RDTSCP_ends_its_interception()
    {
        using var guest = new Guest();
        const int maximum = 100;
        kvm_cpuid2* cpuid = (kvm_cpuid2*)guest.Process.MapAnonymous(8 + (40 * maximum));
        cpuid->nent = maximum;
        int kvm = guest.Host.OpenKvm();
        Guest.Ok(guest.Process.Ioctl(kvm, KVM_GET_SUPPORTED_CPUID, (ulong)cpuid));
        guest.Process.Close(kvm);
        Guest.Ok(guest.Process.Ioctl(guest.VcpuFd, KVM_SET_CPUID2, (ulong)cpuid));
        guest.Control.Intercepts[4].Should().Be(0x6e7f);
    }

    [Theory]
    [InlineData(MsrIndex.MSR_STAR, true)]
    [InlineData(MsrIndex.MSR_FS_BASE, true)]
    [InlineData(MsrIndex.MSR_KERNEL_GS_BASE, true)]
    [InlineData(MsrIndex.MSR_IA32_SYSENTER_CS, true)]
    [InlineData(MsrIndex.MSR_IA32_SYSENTER_EIP, true)]
    [InlineData(MsrIndex.MSR_EFER, false)]
    [InlineData(MsrIndex.MSR_VM_HSAVE_PA, false)]
    [InlineData(MsrIndex.MSR_IA32_SPEC_CTRL, false)]
    [InlineData(MsrIndex.MSR_IA32_APICBASE, false)]
    public void MSRs_of_a_new_vCPU(uint msr, bool passedThrough)
    {
        using var guest = new Guest();
        uint bits = guest.Vcpu.Msrpm[KvmAmd.MsrpmOffset(msr)] >> (int)(2 * (msr & 15)) & 3;
        bits.Should().Be(passedThrough ? 0u : 3u);
    }

    [Theory]
    [InlineData(0u, 0u)]
    [InlineData(0x174u, 0x17u)]
    [InlineData(0xc0000080u, 0x208u)]
    [InlineData(0xc0010114u, 0x411u)]
    [InlineData(0x2000u, 0xffffffffu)]
    [InlineData(0xc0002000u, 0xffffffffu)]
    public void Words_of_the_permission_map(uint msr, uint word) => KvmAmd.MsrpmOffset(msr).Should().Be(word);

    [Theory]
    [InlineData("alloc_page:svm_vcpu_create")]
    [InlineData("alloc_page:svm_vcpu_alloc_msrpm")]
    public void A_vCPU_without_memory_is_ENOMEM_and_leaves_nothing_behind(string point)
    {
        using AmdHost host = AmdHost.Loaded();
        int vm = host.CreateVm();
        host.Process.Close(host.CreateVcpu(vm, 7)); // what the first vCPU of all allocates for good
        long pages = host.Host.Pages.InUse;
        host.Host.Faults.Fail(point);
        host.Process.Ioctl(vm, KVM_CREATE_VCPU, 0).Should().Be((KvmResult)Errno.ENOMEM);
        host.Host.Pages.InUse.Should().Be(pages, string.Join(", ", host.Host.Pages.InUseByTag));
        host.CreateVcpu(vm);
    }

    [Fact]
    public void Closing_the_VM_gives_everything_back()
    {
        using AmdHost host = AmdHost.Loaded();
        long pages = host.Host.Pages.InUse;
        int vm = host.CreateVm();
        for (uint id = 0; id < 3; id++)
            host.Process.Close(host.CreateVcpu(vm, id));
        host.Process.Close(vm);
        host.Host.Pages.InUse.Should().Be(pages, string.Join(", ", host.Host.Pages.InUseByTag));
    }

    [Fact]
    public void Segments_go_through_the_VMCB_and_back()
    {
        using var guest = new Guest();
        kvm_sregs s = guest.Sregs;
        s.ds = new kvm_segment { @base = 0x12340, limit = 0xfffff, selector = 0x18, type = 3, present = 1, s = 1, db = 1, g = 0 };
        s.gs.@base = 0x5555;
        s.gdt.@base = 0x7000;
        s.gdt.limit = 0x27;
        guest.Sregs = s;
        ((ushort)guest.Save.Ds.Attributes).Should().Be(0x493);
        guest.Save.Ds.Base.Should().Be(0x12340);
        guest.Save.Gdtr.Limit.Should().Be(0x27);
        kvm_sregs back = guest.Sregs;
        (back.ds.@base, back.ds.limit, back.ds.selector, back.ds.type, back.ds.db).Should().Be((0x12340ul, 0xfffffu, (ushort)0x18, (byte)3, (byte)1));
        back.gs.@base.Should().Be(0x5555);
        (back.gdt.@base, back.gdt.limit).Should().Be((0x7000ul, (ushort)0x27));
    }

    [Fact]
    public void EFER_in_the_VMCB_always_has_SVME_and_userspace_does_not_see_it()
    {
        using var guest = new Guest();
        kvm_sregs s = guest.Sregs;
        s.efer.Should().Be(0);
        s.efer = 1;
        guest.Sregs = s;
        guest.Save.Efer.Should().Be(0x1001);
        guest.Sregs.efer.Should().Be(1);
    }
}

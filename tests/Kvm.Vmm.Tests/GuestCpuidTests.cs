using System.IO.Pipelines;
using Iced.Intel;
using Kvm.Abi;
using Kvm.Client;
using Kvm.Client.Tests;
using Kvm.Vmm.Boot;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Vmm.Tests;

/// <summary>What the guest's own CPUID instruction shows.</summary>
public class GuestCpuidTests
{
    public static TheoryData<string> All => Kernels.All;

    /// <summary>KVM makes leaf 1 EDX.9 follow IA32_APIC_BASE.EN: clearing the bit in the table alone is not enough.</summary>
    [SkippableTheory, MemberData(nameof(All))]
    public void Without_an_irqchip_there_is_no_local_apic(string kernel)
    {
        uint[] leaf = Leaf(kernel, 1);
        (leaf[3] >> 9 & 1).Should().Be(0, "APIC");
        (leaf[2] >> 21 & 1).Should().Be(0, "x2APIC");
        (leaf[2] >> 24 & 1).Should().Be(0, "TSC deadline timer");
        (leaf[2] >> 31).Should().Be(1, "a hypervisor is present");
        (leaf[1] >> 24).Should().Be(0, "the APIC id is the vCPU's");
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Hypervisor_is_kvm_without_features_that_need_a_local_apic(string kernel)
    {
        Leaf(kernel, 0x40000000)[1..].Should().Equal(0x4b4d564b, 0x564b4d56, 0x4d); // "KVMKVMKVM"
        const uint AsyncPf = 1 << 4, PvEoi = 1 << 6, PvUnhalt = 1 << 7;
        (Leaf(kernel, 0x40000001)[0] & (AsyncPf | PvEoi | PvUnhalt)).Should().Be(0);
    }

    /// <summary>The host's processor may have many; this one is alone.</summary>
    [SkippableTheory, MemberData(nameof(All))]
    public void One_core_shares_its_caches_with_nobody(string kernel)
    {
        (Leaf(kernel, 4)[0] & 0xffffc000).Should().Be(0);
        (Leaf(kernel, 1)[1] >> 16 & 0xff).Should().Be(1, "logical processors");
    }

    [SkippableTheory, MemberData(nameof(All))]
    public void Physical_address_bits_are_limited_and_never_more_than_the_hosts(string kernel)
    {
        uint host = Bits(null);
        Bits(36).Should().Be(36);
        Bits(60).Should().Be(host);

        uint Bits(int? limit)
        {
            using KvmSystem kvm = Kernels.Open(kernel);
            using var pc = new Pc(kvm, new PcOptions { Memory = 1 << 20, PhysicalBits = limit });
            return pc.Vcpu.GetCpuid().Single(e => e.function == 0x80000008).eax & 0xff;
        }
    }

    /// <summary>Linux prints "Disabled fast string operations", and copies without REP MOVS, where this bit is clear.</summary>
    [SkippableTheory, MemberData(nameof(All))]
    public void Fast_strings_are_on(string kernel)
    {
        using KvmSystem kvm = Kernels.Open(kernel);
        using var pc = new Pc(kvm, new PcOptions { Memory = 1 << 20 });
        (pc.Vcpu.GetMsr(0x1a0) & 1).Should().Be(1);
    }

    /// <summary>EAX, EBX, ECX, EDX.</summary>
    private static uint[] Leaf(string kernel, uint function)
    {
        var c = new Assembler(16);
        c.mov(eax, function);
        c.xor(ecx, ecx);
        c.cpuid();
        c.mov(__dword_ptr[0x8000], eax);
        c.mov(__dword_ptr[0x8004], ebx);
        c.mov(__dword_ptr[0x8008], ecx);
        c.mov(__dword_ptr[0x800c], edx);
        c.cli();
        c.hlt();
        using var code = new MemoryStream();
        c.Assemble(new StreamCodeWriter(code), 0x7c00);
        using KvmSystem kvm = Kernels.Open(kernel);
        using var pc = new Pc(kvm, new PcOptions { Memory = 4 << 20, Irqchip = false });
        FlatLoader.Load16(pc.Ram, pc.Vcpu, code.ToArray());
        pc.Run(TimeSpan.FromSeconds(20)).Reason.Should().Be(GuestStopReason.Halted);
        return [.. Enumerable.Range(0, 4).Select(i => pc.Ram.Read<uint>(0x8000 + (ulong)i * 4))];
    }

    /// <summary>Cores of one package: APIC ids, counts and levels that agree.</summary>
    [Theory]
    [InlineData("intel", 4, 2)]
    [InlineData("amd", 4, 2)]
    [InlineData("intel", 3, 2)]
    [InlineData("amd", 5, 3)]
    public void Processors_are_cores_of_one_package(string cpu, int processors, uint bits)
    {
        using KvmSystem kvm = KvmSystem.Open(KvmBackend.ByName("model", cpu));
        using var pc = new Pc(kvm, new PcOptions { Memory = 4 << 20, Processors = processors });
        foreach (Vcpu vcpu in pc.Vcpus)
        {
            kvm_cpuid_entry2[] entries = vcpu.GetCpuid();
            kvm_cpuid_entry2 one = entries.Single(e => e.function == 1);
            (one.ebx >> 24, one.ebx >> 16 & 0xff, one.edx >> 28 & 1).Should().Be((vcpu.Id, 1u << (int)bits, 1u));
            foreach (kvm_cpuid_entry2 level in entries.Where(e => e.function == 0xb)) level.edx.Should().Be(vcpu.Id);
            if (cpu == "intel")
                entries.Where(e => e.function == 0xb).Select(e => (e.index, e.eax & 0x1f, e.ebx & 0xffff, e.ecx)).Should()
                    .Equal((0u, 0u, 1u, 0x100u), (1u, bits, (uint)processors, 0x201u), (2u, 0u, 0u, 2u));
            else
                (entries.Single(e => e.function == 0x80000008).ecx & 0xf0ff).Should().Be(bits << 12 | (uint)(processors - 1));
        }
    }

    /// <summary>With it Linux would leave kvmclock for the TSC.</summary>
    [Theory]
    [InlineData("intel")]
    [InlineData("amd")]
    public void The_TSC_is_not_told_to_be_invariant(string cpu)
    {
        using KvmSystem kvm = KvmSystem.Open(KvmBackend.ByName("model", cpu));
        using var pc = new Pc(kvm, new PcOptions { Memory = 4 << 20 });
        (pc.Vcpu.GetCpuid().Where(e => e.function == 0x80000007).Sum(e => e.edx) & 1 << 8).Should().Be(0);
    }
}

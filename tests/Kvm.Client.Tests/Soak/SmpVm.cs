using Kvm.Abi;

namespace Kvm.Client.Tests.Soak;

/// <summary>A VM that runs an <see cref="SmpGuest"/>.</summary>
internal sealed class SmpVm : IDisposable
{
    public SmpVm(IKvmBackend backend, int vcpus)
        : this(KvmSystem.Open(backend), vcpus)
    {
        Guest.Load(Memory.Span);
        foreach (Vcpu vcpu in Vcpus) Guest.SetUp(vcpu);
    }

    /// <summary>A VM of the same make, for a saved state.</summary>
    public static SmpVm Empty(IKvmBackend backend, int vcpus) => new(KvmSystem.Open(backend), vcpus);

    private SmpVm(KvmSystem system, int vcpus)
    {
        System = system;
        Guest = new SmpGuest(vcpus);
        Vm = System.CreateVm();
        Vm.CreateIrqchip();
        Vm.SetTssAddr(0xfffbd000);
        Memory = Vm.MapMemory(slot: 0, guestAddress: 0, SmpGuest.MemorySize);
        Vcpus = [.. Enumerable.Range(0, vcpus).Select(i => Vm.CreateVcpu((uint)i))];
        kvm_cpuid_entry2[] cpuid = System.GetSupportedCpuid();
        foreach (Vcpu vcpu in Vcpus)
        {
            for (int i = 0; i < cpuid.Length; i++)
            {
                if (cpuid[i].function == 1)
                {
                    cpuid[i].ebx = cpuid[i].ebx & 0xffffff | vcpu.Id << 24;
                    cpuid[i].ecx |= 1 << 24 | 1 << 21; // the TSC-deadline timer and x2APIC
                }
                else if (cpuid[i].function is 0xb or 0x1f)
                {
                    cpuid[i].edx = vcpu.Id;
                }
            }

            vcpu.SetCpuid(cpuid);
        }

        Run = new SmpRun(Guest, Memory, Vcpus);
    }

    public KvmSystem System { get; }

    public Vm Vm { get; }

    public SmpGuest Guest { get; }

    public GuestMemory Memory { get; }

    public Vcpu[] Vcpus { get; }

    public SmpRun Run { get; }

    public void Dispose()
    {
        foreach (Vcpu vcpu in Vcpus) vcpu.Dispose();
        Memory.Dispose();
        Vm.Dispose();
        System.Dispose();
    }
}

using Kvm.Abi;

namespace Kvm.Client.Tests.Interrupts;

/// <summary>Registers of local APICs through KVM_GET_LAPIC and KVM_SET_LAPIC.</summary>
internal static unsafe class ApicAccess
{
    public static uint Apic(this InterruptGuest g, int register, int vcpu = 0)
    {
        kvm_lapic_state s = g.Vcpus[vcpu].Lapic;
        return *(uint*)((byte*)&s + register);
    }

    public static void Apic(this InterruptGuest g, int register, uint value, int vcpu)
    {
        kvm_lapic_state s = g.Vcpus[vcpu].Lapic;
        *(uint*)((byte*)&s + register) = value;
        g.Vcpus[vcpu].Lapic = s;
    }

    /// <summary>The software's switch in the spurious vector register.</summary>
    public static void Software(this InterruptGuest g, bool on, int vcpu = 0) => g.Apic(0xf0, on ? 0x1ffu : 0xffu, vcpu);

    public static bool Irr(this InterruptGuest g, int vector, int vcpu = 0) => (g.Apic(0x200 + vector / 32 * 16, vcpu) >> (vector % 32) & 1) != 0;

    public static bool Isr(this InterruptGuest g, int vector, int vcpu = 0) => (g.Apic(0x100 + vector / 32 * 16, vcpu) >> (vector % 32) & 1) != 0;
}

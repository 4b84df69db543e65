using Kvm.Abi;
using static Kvm.Abi.Uapi;
using static Kvm.Client.Tests.Interrupts.InterruptGuest;

namespace Kvm.Client.Tests.Interrupts;

internal static class PitAccess
{
    public static kvm_pit_channel_state Pit(this InterruptGuest g, int channel) => g.Vm.Pit2.channels[channel];
}

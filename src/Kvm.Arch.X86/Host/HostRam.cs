using Kvm.Core;
using Kvm.Emulator;

namespace Kvm.Arch.X86;

/// <summary>Tells the machine which process memory is its RAM (D1).</summary>
internal sealed class HostRam(Machine machine) : IHostRam
{
    public void Add(ulong address, ulong length) => machine.Memory.Register(address, length);

    public void Remove(ulong address, ulong length) => machine.Memory.Unregister(address, length);
}

using System.Runtime.InteropServices;
using Kvm.Abi;
using Kvm.Client;
using static Kvm.Abi.Uapi;

namespace Kvm.Vmm.Migration;

/// <summary>Everything that KVM tells about a VM: clock, interrupt controllers, timer, routes, and every vCPU. Its memory goes by <see cref="MemoryState"/>.</summary>
/// <remarks>
/// The guest's time stands still between saving and restoring: its clock goes on where it was, and its time-stamp counters with it (the algorithm of
/// Documentation/virt/kvm/devices/vcpu.rst, KVM_VCPU_TSC_OFFSET, without the time that has passed).
/// </remarks>
public sealed class VmState
{
    private const uint HostTscValid = 8; // KVM_CLOCK_HOST_TSC

    /// <summary>The processor's vendor: "GenuineIntel", "AuthenticAMD".</summary>
    public required string Vendor { get; init; }

    /// <summary>kvmclock, and the host's time-stamp counter when it was read.</summary>
    public kvm_clock_data Clock { get; set; }

    /// <summary>Master PIC, slave PIC, I/O APIC; empty where they are not the kernel's.</summary>
    public required kvm_irqchip[] Irqchips { get; set; }

    /// <summary>The interval timer; null where it is not the kernel's.</summary>
    public kvm_pit_state2? Pit { get; set; }

    /// <summary>The routes of interrupts that the VMM has set; null for those of the start.</summary>
    public kvm_irq_routing_entry[]? Routing { get; set; }

    /// <summary>The vCPUs.</summary>
    public required IReadOnlyList<VcpuState> Vcpus { get; init; }

    /// <summary>Reads all of it; no vCPU may run, nor have an exit to complete: see <see cref="Settle"/>.</summary>
    /// <exception cref="KvmException">A call failed.</exception>
    public static VmState Save(KvmSystem kvm, Vm vm, IReadOnlyList<Vcpu> vcpus)
    {
        ArgumentNullException.ThrowIfNull(kvm);
        ArgumentNullException.ThrowIfNull(vm);
        ArgumentNullException.ThrowIfNull(vcpus);
        uint[] msrs = kvm.GetMsrIndexList();
        return new VmState
        {
            Vendor = VendorOf(kvm),
            Clock = vm.Clock,
            Vcpus = [.. vcpus.Select(v => VcpuState.Save(v, vm, msrs))],
            Irqchips = GetIrqchips(vm),
            Pit = GetPit(vm),
            Routing = vm.GsiRouting?.ToArray(),
        };
    }

    /// <summary>
    /// Writes all of it into a VM with the same interrupt controllers and vCPUs of the same ids, none of which has run; its memory is in place already.
    /// </summary>
    /// <exception cref="StateFileException">The VM is not made like the saved one, or the kernel does not take something.</exception>
    public void Restore(KvmSystem kvm, Vm vm, IReadOnlyList<Vcpu> vcpus)
    {
        ArgumentNullException.ThrowIfNull(kvm);
        ArgumentNullException.ThrowIfNull(vm);
        ArgumentNullException.ThrowIfNull(vcpus);
        CheckVendor(Vendor, kvm);
        if (!vcpus.Select(static v => v.Id).SequenceEqual(Vcpus.Select(static v => v.Id)))
            throw new StateFileException($"the saved machine has vCPUs {Ids(Vcpus.Select(static v => v.Id))}, this one {Ids(vcpus.Select(static v => v.Id))}");
        SetChips(vm);
        vm.Clock = new kvm_clock_data { clock = Clock.clock };
        kvm_clock_data now = vm.Clock;
        long? byValue = Vcpus.Count > 0 ? Vcpus[0].TscDistance(vcpus[0]) : null;
        for (int i = 0; i < vcpus.Count; i++) Vcpus[i].Restore(vcpus[i], TscOffset(Vcpus[i], now, byValue));
    }

    /// <summary>Completes an exit that userspace has served, without running the guest: KVM_RUN with immediate_exit.</summary>
    /// <param name="vcpu">A vCPU that does not run.</param>
    /// <param name="serve">Serves an exit that the completion brings: the next element of a string instruction.</param>
    /// <remarks>Documentation/virt/kvm/api.rst, "The kvm_run structure": the operation is complete, and state consistent, only after the next KVM_RUN.</remarks>
    public static void Settle(Vcpu vcpu, Action<Vcpu>? serve = null)
    {
        ArgumentNullException.ThrowIfNull(vcpu);
        for (; ; )
        {
            Volatile.Write(ref vcpu.RunPage.immediate_exit, 1);
            long result = vcpu.TryRun();
            Volatile.Write(ref vcpu.RunPage.immediate_exit, 0);
            if (result < 0) return;
            if (serve is null) throw new InvalidOperationException($"vCPU {vcpu.Id} has one more exit to serve: {vcpu.LastExit.ReasonName}");
            serve(vcpu);
        }
    }

    /// <summary>Writes it as sections.</summary>
    public void Write(StateWriter writer)
    {
        ArgumentNullException.ThrowIfNull(writer);
        writer.Section("cloc", 0, Clock);
        foreach (kvm_irqchip chip in Irqchips) writer.Section("chip", chip.chip_id, chip);
        if (Pit is { } pit) writer.Section("pit2", 0, pit);
        if (Routing is { } routing) writer.Section("gsir", 0, MemoryMarshal.AsBytes(routing.AsSpan()));
        foreach (VcpuState vcpu in Vcpus) vcpu.Write(writer);
    }

    /// <summary>Reads sections up to the end of the file; those that are not the VM's go to <paramref name="other"/>.</summary>
    /// <param name="reader">The file, after its header.</param>
    /// <param name="other">Takes memory and devices; false when it does not know the section.</param>
    /// <exception cref="StateFileException">The file is truncated or damaged, or has sections that nobody knows.</exception>
    public static VmState Read(StateReader reader, Func<StateReader, bool>? other = null)
    {
        ArgumentNullException.ThrowIfNull(reader);
        var vcpus = new List<VcpuState>();
        var chips = new List<kvm_irqchip>();
        var state = new VmState { Vendor = reader.Vendor, Vcpus = vcpus, Irqchips = [] };
        while (reader.Next())
        {
            switch (reader.Tag)
            {
                case "cloc": state.Clock = reader.As<kvm_clock_data>(); break;
                case "chip": chips.Add(reader.As<kvm_irqchip>()); break;
                case "pit2": state.Pit = reader.As<kvm_pit_state2>(); break;
                case "gsir": state.Routing = reader.AsArray<kvm_irq_routing_entry>(); break;
                case "vcpu": vcpus.Add(VcpuState.Begin(reader)); break;
                default:
                    if (vcpus.Find(v => v.Id == reader.Index) is { } vcpu && vcpu.Take(reader)) break;
                    if (other is null || !other(reader)) throw reader.Wrong("unknown here");
                    break;
            }
        }

        state.Irqchips = [.. chips];
        return state;
    }

    /// <summary>The vendor of a host's processors, as CPUID spells it.</summary>
    public static string VendorOf(KvmSystem kvm)
    {
        ArgumentNullException.ThrowIfNull(kvm);
        kvm_cpuid_entry2 leaf = kvm.GetSupportedCpuid().FirstOrDefault(static c => c.function == 0);
        ReadOnlySpan<uint> words = [leaf.ebx, leaf.edx, leaf.ecx];
        return System.Text.Encoding.ASCII.GetString(MemoryMarshal.AsBytes(words));
    }

    /// <summary>Refuses a machine of another vendor's processor.</summary>
    /// <exception cref="StateFileException">It is another one.</exception>
    public static void CheckVendor(string saved, KvmSystem kvm)
    {
        string here = VendorOf(kvm);
        if (saved != here) throw new StateFileException($"the machine was saved on a processor of {saved}, this one is of {here}: a guest can't change the vendor");
    }

    private static string Ids(IEnumerable<uint> ids) => string.Join(", ", ids);

    private static unsafe kvm_irqchip[] GetIrqchips(Vm vm)
    {
        var chips = new kvm_irqchip[3];
        for (uint i = 0; i < chips.Length; i++)
        {
            kvm_irqchip chip = new() { chip_id = i };
            if (vm.Fd.TryIoctl(KVM_GET_IRQCHIP, (ulong)&chip) < 0) return [];
            chips[i] = chip;
        }

        return chips;
    }

    private static unsafe kvm_pit_state2? GetPit(Vm vm)
    {
        kvm_pit_state2 pit;
        return vm.Fd.TryIoctl(KVM_GET_PIT2, (ulong)&pit) >= 0 ? pit : null;
    }

    private void SetChips(Vm vm)
    {
        try
        {
            if (Routing is { } routing) vm.SetGsiRouting(routing);
            foreach (kvm_irqchip chip in Irqchips) vm.SetIrqchip(chip);
            if (Pit is { } pit) vm.Pit2 = pit;
        }
        catch (KvmException e)
        {
            throw new StateFileException($"this VM does not take the saved interrupt controllers or timer: {e.Message}", e);
        }
    }

    /// <summary>
    /// The clock was set first; a TSC's offset is what makes it continue: by how much the clock has moved since, and by how much the hosts' counters differ. Without the host's counter
    /// in both readings of the clock, all offsets move by what the first vCPU's counter lacks (<paramref name="byValue"/>): a write of the counter itself the kernel would take for an attempt
    /// to synchronize a VM that is young. Null: offsets can't be set here.
    /// </summary>
    private long? TscOffset(VcpuState vcpu, kvm_clock_data now, long? byValue)
    {
        if (vcpu.TscOffset is not { } offset) return null;
        if ((Clock.flags & now.flags & HostTscValid) == 0) return byValue is { } distance ? unchecked(offset + distance) : null;
        var elapsed = (long)(now.clock - Clock.clock);
        var cycles = (long)((Int128)elapsed * vcpu.TscKhz / 1_000_000);
        return unchecked(offset + cycles + (long)(Clock.host_tsc - now.host_tsc));
    }
}

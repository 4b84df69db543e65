using System.Runtime.InteropServices;
using Kvm.Client;
using Kvm.Vmm.Boot;
using Kvm.Vmm.Migration;

namespace Kvm.Vmm;

/// <content>Saving the machine, and making it again from what was saved.</content>
public sealed partial class Pc
{
    private const string MakeTag = "pc  ", DeviceTag = "devi";

    private readonly List<ISavedDevice> _saved = [];

    /// <summary>Writes the whole machine: how it is made, RAM, processors, interrupt controllers, devices. Not while <see cref="Run"/> is running; after it.</summary>
    /// <exception cref="StateFileException">It has something that can't be saved: interrupt controllers of the VMM, firmware, a device.</exception>
    /// <exception cref="KvmException">A call failed.</exception>
    public void Save(KvmSystem kvm, Stream stream)
    {
        ArgumentNullException.ThrowIfNull(kvm);
        CheckSavable();
        foreach (VcpuLoop loop in _loops) loop.Settle();
        VmState state = VmState.Save(kvm, Vm, _vcpus);
        using var writer = new StateWriter(stream, state.Vendor);
        writer.Section(MakeTag, 0, new Make { Memory = Ram.Size, Processors = _vcpus.Count, Hyperv = _hyperv ? 1 : 0 });
        foreach (GuestMemory memory in Ram.Memories) MemoryState.Write(writer, memory);
        state.Write(writer);
        for (int i = 0; i < _saved.Count; i++) writer.Section(DeviceTag, (uint)i, StateFields.Save(_saved[i]));
        writer.Finish();
    }

    /// <summary>What the saved machine of a file is made of; the reader stands after it then.</summary>
    /// <exception cref="StateFileException">The file is none of a PC's.</exception>
    public static PcOptions ReadOptions(StateReader reader, PcOptions options)
    {
        ArgumentNullException.ThrowIfNull(reader);
        ArgumentNullException.ThrowIfNull(options);
        if (!reader.Next() || reader.Tag != MakeTag) throw new StateFileException($"{reader.Name} is a saved machine, but no PC");
        Make make = reader.As<Make>();
        if (make.Memory < LeastMemory || make.Memory % PageSize != 0 || make.Memory > MostMemory || make.Processors is < 1 or > PcOptions.MostProcessors)
            throw reader.Wrong($"no PC has {make.Processors} processors and {make.Memory} bytes of memory");
        return options with { Memory = make.Memory, Processors = make.Processors, Hyperv = make.Hyperv != 0, Irqchip = true };
    }

    /// <summary>Gives a machine made with <see cref="ReadOptions"/>, that has not run, everything else of the file. The guest goes on with <see cref="Run"/>.</summary>
    /// <exception cref="StateFileException">The file is truncated or damaged, or does not fit this machine.</exception>
    public void Restore(KvmSystem kvm, StateReader reader)
    {
        ArgumentNullException.ThrowIfNull(kvm);
        ArgumentNullException.ThrowIfNull(reader);
        VmState.CheckVendor(reader.Vendor, kvm);
        CheckSavable();
        var devices = new List<byte[]>();
        VmState state = VmState.Read(reader, section =>
        {
            if (MemoryState.Take(section, Ram.Memories)) return true;
            if (section.Tag != DeviceTag || section.Index != devices.Count) return false;
            devices.Add(section.Payload.ToArray());
            return true;
        });
        if (devices.Count != _saved.Count) throw new StateFileException($"{reader.Name} has {devices.Count} devices, this machine has {_saved.Count}");
        state.Restore(kvm, Vm, _vcpus);
        // They drive lines, and so come after the interrupt controllers.
        for (int i = 0; i < devices.Count; i++) StateFields.Restore(_saved[i], devices[i], reader.Name);
    }

    private const ulong MostMemory = 1UL << 46;

    private void CheckSavable()
    {
        if (!HasIrqchip) throw new StateFileException("a machine with interrupt controllers of the VMM can't be saved: use the kernel's");
        if (_pciDevices.Count + _mmioDevices.Count > 0) throw new StateFileException("a machine with virtio devices can't be saved");
        if (_firmware is not null) throw new StateFileException("a machine with firmware can't be saved");
    }

    /// <summary>What the constructor needs to make the machine again.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct Make
    {
        public ulong Memory;
        public int Processors;
        public int Hyperv;
    }
}

using Kvm.Vmm.Migration;
using Kvm.Vmm.Pci;

namespace Kvm.Vmm.Devices;

/// <content>Saving and restoring, with the functions on the bus.</content>
public sealed partial class PciConfig : ISavedDevice
{
    void ISavedDevice.Transfer(StateFields fields)
    {
        fields.Field(ref _address);
        _address &= 0x80fffffc;
        for (int i = 0; i < _functions.Length; i++)
        {
            bool there = _functions[i] is not null;
            fields.Field(ref there);
            if (there != _functions[i] is not null) throw new StateFileException($"PCI 00:{i >> 3:x2}.{i & 7} is {(there ? "in the saved machine only" : "in this machine only")}");
            _functions[i]?.Transfer(fields);
        }
    }
}

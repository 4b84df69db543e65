using Kvm.Vmm.Migration;

namespace Kvm.Vmm.Devices;

/// <content>Saving and restoring: where the guest is in which item.</content>
public sealed partial class FwCfg : ISavedDevice
{
    void ISavedDevice.Transfer(StateFields fields)
    {
        int key = -1;
        foreach ((ushort k, ReadOnlyMemory<byte> item) in _items)
        {
            if (item.Equals(_current)) key = k;
        }

        fields.Field(ref key, -1, ushort.MaxValue);
        if (fields.Restoring && key >= 0) Select((ushort)key);
        fields.Field(ref _position, 0, int.MaxValue);
        fields.Field(ref _dmaHigh);
    }
}

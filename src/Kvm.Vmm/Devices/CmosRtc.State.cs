using Kvm.Vmm.Migration;

namespace Kvm.Vmm.Devices;

/// <content>Saving and restoring. The clock shows the time of the host it is on, and what the guest has added to it.</content>
public sealed partial class CmosRtc : ISavedDevice
{
    void ISavedDevice.Transfer(StateFields fields)
    {
        lock (_lock)
        {
            fields.Bytes(_ram);
            long offset = _offset.Ticks, held = _held?.Ticks ?? -1;
            fields.Field(ref offset);
            fields.Field(ref held);
            if (held < -1 || held > DateTime.MaxValue.Ticks) throw new FormatException();
            (_offset, _held) = (new TimeSpan(offset), held < 0 ? null : new DateTime(held, DateTimeKind.Utc));
            fields.Field(ref _index);
            _index &= 0x7f;
        }
    }
}

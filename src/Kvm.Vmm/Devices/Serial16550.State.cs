using Kvm.Vmm.Migration;

namespace Kvm.Vmm.Devices;

/// <content>Saving and restoring.</content>
public sealed partial class Serial16550 : ISavedDevice
{
    void ISavedDevice.Transfer(StateFields fields)
    {
        lock (_lock)
        {
            fields.Bytes(_fifo);
            fields.Field(ref _fifoHead, 0, _fifo.Length - 1);
            fields.Field(ref _fifoCount, 0, _fifo.Length);
            fields.Field(ref _ier);
            fields.Field(ref _fcr);
            fields.Field(ref _lcr);
            fields.Field(ref _mcr);
            fields.Field(ref _scratch);
            fields.Field(ref _lineErrors);
            fields.Field(ref _msr);
            fields.Field(ref _divisor);
            fields.Field(ref _transmitInterrupt);
            // The interrupt controllers are restored before: the line is driven to where it was, which is no new edge to them.
            if (fields.Restoring) UpdateLine();
        }
    }
}

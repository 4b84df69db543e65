using Kvm.Vmm.Migration;

namespace Kvm.Vmm.Devices;

/// <content>Saving and restoring.</content>
public sealed partial class TestDevice : ISavedDevice
{
    void ISavedDevice.Transfer(StateFields fields)
    {
        fields.Bytes(_scratch);
        fields.Bytes(_memory);
        fields.Field(ref _byteScratch);
    }
}

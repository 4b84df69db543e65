using Kvm.Vmm.Migration;

namespace Kvm.Vmm.Devices;

/// <content>Saving and restoring.</content>
public sealed partial class SystemControl : ISavedDevice
{
    void ISavedDevice.Transfer(StateFields fields)
    {
        fields.Field(ref _a);
        fields.Field(ref _reset);
    }
}

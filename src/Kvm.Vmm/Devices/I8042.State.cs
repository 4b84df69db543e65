using Kvm.Vmm.Migration;

namespace Kvm.Vmm.Devices;

/// <content>Saving and restoring.</content>
public sealed partial class I8042 : ISavedDevice
{
    void ISavedDevice.Transfer(StateFields fields)
    {
        int waiting = _output.Count;
        fields.Field(ref waiting, 0, MostWaiting);
        byte[] bytes = fields.Restoring ? new byte[waiting] : [.. _output];
        fields.Bytes(bytes);
        if (fields.Restoring)
        {
            _output.Clear();
            foreach (byte value in bytes) _output.Enqueue(value);
        }

        fields.Field(ref _commandByte);
        fields.Field(ref _outputPort);
        fields.Field(ref _last);
        fields.Field(ref _lastWasCommand);
        fields.Field(ref _parameterFor);
        fields.Field(ref _keyboardParameterFor);
        if (fields.Restoring) UpdateLine();
    }

    private const int MostWaiting = 4096;
}

using Kvm.Vmm;
using Kvm.Vmm.Virtio;

namespace Kvm.Tool;

/// <summary>Virtio devices on their way into a PC, which then owns them.</summary>
internal sealed class GuestDevices(VirtioTransport transport) : IDisposable
{
    private readonly List<VirtioDevice> _devices = [];

    public int Count => _devices.Count;

    public void Add(VirtioDevice device) => _devices.Add(device);

    /// <exception cref="ToolException">There are too many.</exception>
    public void AddTo(Pc pc)
    {
        try
        {
            while (_devices.Count > 0)
            {
                pc.AddVirtio(_devices[0], transport);
                _devices.RemoveAt(0);
            }
        }
        catch (InvalidOperationException e)
        {
            throw new ToolException(ExitCode.Usage, $"too many devices: {e.Message}");
        }
    }

    public void Dispose()
    {
        foreach (VirtioDevice device in _devices) device.Dispose();
    }
}

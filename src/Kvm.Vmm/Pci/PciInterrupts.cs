namespace Kvm.Vmm.Pci;

/// <summary>The four PCI interrupt lines of a PC, which devices share: from a device's INTA# to the ISA interrupt that the bridge routes its line to.</summary>
/// <param name="bridge">Has the routes.</param>
/// <param name="setLine">Drives a GSI.</param>
public sealed class PciInterrupts(IsaBridge bridge, Action<uint, bool> setLine)
{
    private const int Lines = 4;

    private readonly Lock _lock = new();
    private readonly int[] _asserted = new int[Lines]; // how many devices pull each line

    /// <summary>Which of the four lines INTA# of a device is wired to.</summary>
    public static int LineOf(int device) => (device + Lines - 1) % Lines;

    /// <summary>A wire for INTA# of a device on bus 0.</summary>
    public Action<bool> Connect(int device)
    {
        int line = LineOf(device);
        bool before = false;
        return level =>
        {
            lock (_lock)
            {
                if (level == before) return;
                before = level;
                _asserted[line] += level ? 1 : -1;
                if (bridge.Route(line) is { } gsi) setLine(gsi, IsHigh(gsi));
            }
        };
    }

    private bool IsHigh(uint gsi)
    {
        for (int line = 0; line < Lines; line++)
        {
            if (_asserted[line] > 0 && bridge.Route(line) == gsi) return true;
        }

        return false;
    }
}

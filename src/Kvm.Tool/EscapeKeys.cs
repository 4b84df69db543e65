namespace Kvm.Tool;

/// <summary>What Ctrl-A and the key after it mean on a terminal; everything else is the guest's.</summary>
/// <param name="quit">Ctrl-A x.</param>
/// <param name="help">Ctrl-A h.</param>
internal sealed class EscapeKeys(Action quit, Action help)
{
    public const string Help = "Ctrl-A x  stop the guest and leave\r\nCtrl-A h  this help\r\nCtrl-A a  send Ctrl-A to the guest";

    private const byte Escape = 1;

    private bool _escaped;

    /// <summary>Takes what was typed, and keeps what is for the guest at its beginning.</summary>
    /// <returns>How many bytes that is.</returns>
    public int Filter(Span<byte> typed)
    {
        int kept = 0;
        foreach (byte key in typed)
        {
            if (!_escaped && key == Escape)
            {
                _escaped = true;
                continue;
            }

            if (!_escaped)
            {
                typed[kept++] = key;
                continue;
            }

            _escaped = false;
            switch (key)
            {
                case (byte)'x' or (byte)'X': quit(); break;
                case (byte)'h' or (byte)'H' or (byte)'?': help(); break;
                case (byte)'a' or (byte)'A' or Escape: typed[kept++] = Escape; break;
                default: break; // no such command: the key is lost, as in other programs with such keys
            }
        }

        return kept;
    }
}

using System.Text;

namespace Kvm.Tool;

/// <summary>Keeps the beginning of what a guest prints, and drops the rest.</summary>
internal sealed class FirstWords : GuestOutput
{
    private const int Most = 2000;

    private readonly StringBuilder _text = new();

    /// <summary>In one line.</summary>
    public string Text => _text.ToString().ReplaceLineEndings(" ").Trim();

    public override void Write(ReadOnlySpan<byte> buffer) => _text.Append(Encoding.ASCII.GetString(buffer[..Math.Min(buffer.Length, Most - _text.Length)]));
}

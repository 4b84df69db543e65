using System.Globalization;
using System.Runtime.CompilerServices;
using System.Text;

namespace Kvm.Core.Tracing;

/// <summary>
/// An interpolated string for <see cref="Tracepoints.Emit(string, TracepointText)"/>. It is a class so that a method on the guest entry path that holds a
/// tracepoint needs one local for it: the runtime's own handler is a large struct, cleared at each call of the method.
/// </summary>
[InterpolatedStringHandler]
public sealed class TracepointText(int literalLength, int formattedCount)
{
    private readonly StringBuilder text = new(literalLength + 16 * formattedCount);

    public void AppendLiteral(string value) => text.Append(value);

    public void AppendFormatted(string? value) => text.Append(value);

    public void AppendFormatted(bool value) => text.Append(value);

    public void AppendFormatted(int value) => text.Append(CultureInfo.InvariantCulture, $"{value}");

    public void AppendFormatted(long value) => text.Append(CultureInfo.InvariantCulture, $"{value}");

    public void AppendFormatted(ulong value) => text.Append(value.ToString(CultureInfo.InvariantCulture));

    public void AppendFormatted(ulong value, string format) => text.Append(value.ToString(format, CultureInfo.InvariantCulture));

    public void AppendFormatted(int value, string format) => text.Append(value.ToString(format, CultureInfo.InvariantCulture));

    public void AppendFormatted(object? value) => text.Append(CultureInfo.InvariantCulture, $"{value}");

    public override string ToString() => text.ToString();
}

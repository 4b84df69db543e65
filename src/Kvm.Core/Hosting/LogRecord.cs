namespace Kvm.Core;

/// <summary>One record of the kernel log.</summary>
public readonly record struct LogRecord(long Sequence, long TimestampNs, LogLevel Level, string Text)
{
    /// <summary>The line as dmesg prints it: <c>[    1.234567] text</c>.</summary>
    public override string ToString()
    {
        long us = TimestampNs / 1000;
        return string.Create(System.Globalization.CultureInfo.InvariantCulture, $"[{us / 1_000_000,5}.{us % 1_000_000:D6}] {Text}");
    }
}

using Kvm.Abi;

namespace Kvm.Core;

/// <summary>What a kernel function returns: a value of zero or more, or a negated errno.</summary>
/// <remarks>The kernel's <c>long</c>/<c>int</c> return convention: -1 to -4095 are errors (include/linux/err.h, MAX_ERRNO).</remarks>
public readonly record struct KvmResult(long Raw)
{
    /// <summary>The largest errno that fits the convention.</summary>
    public const int MaxErrno = 4095;

    /// <summary>Success without a value.</summary>
    public static KvmResult Ok => default;

    /// <summary>True for -4095..-1.</summary>
    public bool IsError => Raw is < 0 and >= -MaxErrno;

    /// <summary>True when this is not an error.</summary>
    public bool IsOk => !IsError;

    /// <summary>The errno (positive), or 0 when this is no error.</summary>
    public Errno Errno => IsError ? (Errno)(-Raw) : 0;

    /// <summary>The value as an <c>int</c>, as a system call returns file descriptors.</summary>
    public int Value => unchecked((int)Raw);

    /// <summary>An error result from a positive errno.</summary>
    public static KvmResult Error(Errno errno) => new(-(long)errno);

    public static implicit operator KvmResult(Errno errno) => new(-(long)errno);
    public static implicit operator KvmResult(int value) => new(value);
    public static implicit operator KvmResult(long value) => new(value);
    public static implicit operator KvmResult(uint value) => new(value);

    /// <summary>Names the error: "-EINVAL", or the number.</summary>
    public override string ToString() => IsError ? "-" + Errno : Raw.ToString(System.Globalization.CultureInfo.InvariantCulture);
}

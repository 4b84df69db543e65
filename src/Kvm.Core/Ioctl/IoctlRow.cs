namespace Kvm.Core;

/// <summary>One row of an ioctl table: the full 32-bit request, its name, its handler.</summary>
public sealed class IoctlRow<TTarget>
{
    private readonly IoctlValue<TTarget> _invoke;

    internal IoctlRow(uint request, string name, IoctlValue<TTarget> invoke)
    {
        Request = request;
        Name = name;
        _invoke = invoke;
    }

    /// <summary>The request number with direction and size (_IOC).</summary>
    public uint Request { get; }

    /// <summary>The number within the type (_IOC_NR).</summary>
    public byte Number => (byte)Request;

    /// <summary>The name in the uapi header.</summary>
    public string Name { get; }

    /// <summary>Copies in, runs the handler, copies out.</summary>
    public KvmResult Invoke(TTarget target, ulong arg) => _invoke(target, arg);
}

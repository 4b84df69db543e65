namespace Kvm.Core.Tracing;

/// <summary>Says which kernel function a method models. Read by grep, by the function trace and by docs/MAP.md.</summary>
/// <param name="name">The function's name in Linux 6.1.</param>
[AttributeUsage(AttributeTargets.Method | AttributeTargets.Constructor | AttributeTargets.Property | AttributeTargets.Class, AllowMultiple = true, Inherited = false)]
public sealed class KernelFunctionAttribute(string name) : Attribute
{
    /// <summary>The function's name in Linux 6.1.</summary>
    public string Name { get; } = name;

    /// <summary>Where it lives, for example <c>arch/x86/kvm/vmx/vmx.c</c>.</summary>
    public string? File { get; init; }

    /// <summary>The name an older kernel used for it.</summary>
    public string? Formerly { get; init; }
}

namespace Kvm.Core;

/// <summary>struct miscdevice: a character device with major 10.</summary>
/// <param name="Path">"/dev/kvm".</param>
/// <param name="Minor">KVM_MINOR is 232.</param>
/// <param name="Mode">Permission bits.</param>
/// <param name="Operations">Its file operations.</param>
/// <param name="PrivateData">What opened files carry.</param>
public sealed record MiscDevice(string Path, int Minor, int Mode, FileOperations Operations, object? PrivateData)
{
    /// <summary>MISC_MAJOR.</summary>
    public int Major => 10;
}

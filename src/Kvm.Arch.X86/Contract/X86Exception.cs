namespace Kvm.Arch.X86;

/// <summary>A fault that an emulated access or instruction raises; a value, never a .NET exception.</summary>
/// <remarks>struct x86_exception, kvm_emulate.h.</remarks>
public struct X86Exception
{
    public byte Vector;
    public bool ErrorCodeValid;
    public ushort ErrorCode;
    public bool NestedPageFault;

    /// <summary>CR2 of a page fault, or the nested fault's GPA.</summary>
    public ulong Address;
    public byte AsyncPageFault;
    public ulong ExitQualification;
}

using System.Runtime.InteropServices;

namespace Kvm.Emulator.Svm;

/// <summary>
/// A virtual machine control block: one 4 KiB page, control area at 0, state save area at 0x400.
/// Offsets are those of APM vol 2, appendix "Layout of VMCB"; this is the image in memory, so software and processor share it.
/// </summary>
[StructLayout(LayoutKind.Explicit, Size = PageSize)]
public struct Vmcb
{
    public const int PageSize = 4096;
    public const int SaveAreaOffset = 0x400;

    [FieldOffset(0)] public VmcbControlArea Control;
    [FieldOffset(SaveAreaOffset)] public VmcbSaveArea Save;
}

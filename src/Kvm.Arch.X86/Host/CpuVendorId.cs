namespace Kvm.Arch.X86;

/// <summary>X86_VENDOR_* of asm/processor.h.</summary>
public enum CpuVendorId
{
    Intel = 0,
    Amd = 2,
    Centaur = 5,
    Hygon = 9,
    Unknown = 0xff,
}

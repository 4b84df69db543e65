namespace Kvm.Vmm.Boot;

/// <summary>Where a kernel image is entered.</summary>
public enum LinuxEntry
{
    /// <summary>64-bit mode, identity page tables (boot protocol 2.12).</summary>
    Long64 = 64,

    /// <summary>Protected mode, flat segments, no paging.</summary>
    Protected32 = 32,

    /// <summary>The real-mode setup code, which asks a BIOS.</summary>
    Real16 = 16,
}

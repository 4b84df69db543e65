namespace Kvm.Vmm.Boot;

/// <summary>Kinds of memory in the BIOS map (ACPI specification, "Address Range Types").</summary>
public enum E820Type : uint
{
    /// <summary>Free for the operating system.</summary>
    Ram = 1,
    /// <summary>Not to be used.</summary>
    Reserved = 2,
    /// <summary>ACPI tables, free once they are read.</summary>
    Acpi = 3,
    /// <summary>To be preserved over sleep.</summary>
    Nvs = 4,
    /// <summary>Memory with errors.</summary>
    Unusable = 5,
}

namespace Kvm.Vmm.Boot;

/// <summary>Kinds of memory in the BIOS map (ACPI specification, "Address Range Types").</summary>
public enum E820Type : uint
{
    Ram = 1,
    Reserved = 2,
    Acpi = 3,
    Nvs = 4,
    Unusable = 5,
}

namespace Kvm.Arch.X86;

/// <summary>A descriptor-table register: GDTR or IDTR.</summary>
/// <remarks>struct desc_ptr, asm/desc_defs.h.</remarks>
public struct DescPtr
{
    public ushort Size;
    public ulong Address;
}

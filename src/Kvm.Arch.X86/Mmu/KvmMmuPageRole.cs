using System.Globalization;

namespace Kvm.Arch.X86;

/// <summary>What a shadow page stands for: pages with the same frame and the same role are one page.</summary>
/// <remarks>union kvm_mmu_page_role, asm/kvm_host.h; the bits lie where the kernel has them.</remarks>
public readonly record struct KvmMmuPageRole(uint Word)
{
    private const int QuadrantShift = 5;
    private const int AccessShift = 8;
    private const uint LevelMask = 0xf;
    private const uint Has4ByteGpteBit = 1u << 4;
    private const uint QuadrantMask = 3u << QuadrantShift;
    private const uint DirectBit = 1u << 7;
    private const uint AccessMask = 7u << AccessShift;
    private const uint InvalidBit = 1u << 11;
    private const uint EferNxBit = 1u << 12;
    private const uint Cr0WpBit = 1u << 13;
    private const uint SmepAndnotWpBit = 1u << 14;
    private const uint SmapAndnotWpBit = 1u << 15;
    private const uint AdDisabledBit = 1u << 16;
    private const uint GuestModeBit = 1u << 17;
    private const uint PassthroughBit = 1u << 18;
    private const uint SmmBit = 1u << 24;

    /// <summary>What may differ between a page and the MMU that brings it up to date.</summary>
    internal const uint SyncIgnored = LevelMask | AccessMask | QuadrantMask | PassthroughBit;

    /// <summary>Level of the table; 0 in the role of an MMU without paging.</summary>
    public int Level { get => (int)(Word & LevelMask); init => Word = (Word & ~LevelMask) | (uint)value; }

    /// <summary>The guest's entries have 4 bytes: paging without PAE.</summary>
    public bool Has4ByteGpte { get => Has(Has4ByteGpteBit); init => Word = Put(Has4ByteGpteBit, value); }

    /// <summary>Which part of a guest table with 4-byte entries the page shadows.</summary>
    public int Quadrant { get => (int)((Word & QuadrantMask) >> QuadrantShift); init => Word = (Word & ~QuadrantMask) | ((uint)value << QuadrantShift); }

    /// <summary>No guest table is behind the page.</summary>
    public bool Direct { get => Has(DirectBit); init => Word = Put(DirectBit, value); }

    /// <summary>ACC_*: what the tables above allow.</summary>
    public uint Access { get => (Word & AccessMask) >> AccessShift; init => Word = (Word & ~AccessMask) | (value << AccessShift); }

    /// <summary>Zapped, but still the root of some vCPU.</summary>
    public bool Invalid { get => Has(InvalidBit); init => Word = Put(InvalidBit, value); }

    public bool EferNx { get => Has(EferNxBit); init => Word = Put(EferNxBit, value); }
    public bool Cr0Wp { get => Has(Cr0WpBit); init => Word = Put(Cr0WpBit, value); }
    public bool SmepAndnotWp { get => Has(SmepAndnotWpBit); init => Word = Put(SmepAndnotWpBit, value); }
    public bool SmapAndnotWp { get => Has(SmapAndnotWpBit); init => Word = Put(SmapAndnotWpBit, value); }
    public bool AdDisabled { get => Has(AdDisabledBit); init => Word = Put(AdDisabledBit, value); }
    public bool GuestMode { get => Has(GuestModeBit); init => Word = Put(GuestModeBit, value); }
    public bool Passthrough { get => Has(PassthroughBit); init => Word = Put(PassthroughBit, value); }
    public bool Smm { get => Has(SmmBit); init => Word = Put(SmmBit, value); }

    /// <summary>kvm_mmu_role_as_id: the address space that the page's frames belong to.</summary>
    public int AddressSpace => Smm ? 1 : 0;

    /// <summary>KVM_MMU_PAGE_PRINTK without generation, frame and state.</summary>
    internal string Describe()
    {
        uint a = Access;
        string access = string.Create(CultureInfo.InvariantCulture, $"{((a & 2) != 0 ? 'w' : '-')}{((a & 4) != 0 ? 'u' : '-')}{((a & 1) != 0 ? 'x' : '-')}");
        return $"l{Level} {(Has4ByteGpte ? 4 : 8)}-byte q{Quadrant}{(Direct ? " direct" : "")} {access}{(Invalid ? " invalid" : "")} {(EferNx ? "" : "!")}nxe {(AdDisabled ? "!" : "")}ad";
    }

    private bool Has(uint bit) => (Word & bit) != 0;

    private uint Put(uint bit, bool value) => value ? Word | bit : Word & ~bit;
}

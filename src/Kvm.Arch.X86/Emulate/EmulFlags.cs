namespace Kvm.Arch.X86;

/// <summary>What the emulator does with an instruction's operands before and after carrying it out.</summary>
[Flags]
internal enum EmulFlags
{
    /// <summary>The instruction is not emulated.</summary>
    None = 0,
    Known = 1 << 0,

    /// <summary>The destination is only written.</summary>
    Mov = 1 << 1,

    /// <summary>The destination is only read.</summary>
    NoWrite = 1 << 2,

    /// <summary>The source is written too.</summary>
    SrcWrite = 1 << 3,

    /// <summary>A memory source is an address, not a value.</summary>
    NoAccess = 1 << 4,
    StringOp = 1 << 5,
    Priv = 1 << 6,

    /// <summary>#UD outside of protected mode.</summary>
    Prot = 1 << 7,

    /// <summary>Writes that a guest uses for its page tables: the processor is not asked to retry them.</summary>
    PageTable = 1 << 8,

    /// <summary>Emulated also when the processor raised #UD for it.</summary>
    EmulateOnUd = 1 << 9,
    Branch = 1 << 10,

    /// <summary>The handler fetches and stores its operands itself.</summary>
    Implicit = 1 << 11,
    Sse = 1 << 12,

    /// <summary>16-byte memory operands must be aligned.</summary>
    Aligned = 1 << 13,

    /// <summary>Two memory operands, or memory that is not the one of the fault: the fault's address is no shortcut.</summary>
    TwoMemOp = 1 << 14,
    LockOk = 1 << 15,

    /// <summary>Port access: the I/O permission is checked.</summary>
    PortIn = 1 << 16,
    PortOut = 1 << 17,

    /// <summary>The bit offset reaches memory beyond the operand.</summary>
    BitOp = 1 << 18,

    /// <summary>In the kernel's tables, as #UD.</summary>
    Undefined = 1 << 19,

    /// <summary>#UD after the check of the privilege.</summary>
    UndefinedPriv = 1 << 20,

    /// <summary>#UD unless EFER.SVME is set, #GP for a physical address in rAX that cannot be one.</summary>
    Svme = 1 << 21,
    SvmePa = 1 << 22,

    Mmx = 1 << 24,

    /// <summary>Not in the kernel's tables.</summary>
    Unknown = 1 << 23,
}

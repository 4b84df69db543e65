namespace Kvm.Emulator;

/// <summary>Bits of CR0.</summary>
public static class Cr0
{
    public const ulong PE = 1UL << 0, MP = 1UL << 1, EM = 1UL << 2, TS = 1UL << 3, ET = 1UL << 4, NE = 1UL << 5,
        WP = 1UL << 16, AM = 1UL << 18, NW = 1UL << 29, CD = 1UL << 30, PG = 1UL << 31;
}

/// <summary>Bits of CR4.</summary>
public static class Cr4
{
    public const ulong VME = 1UL << 0, PVI = 1UL << 1, TSD = 1UL << 2, DE = 1UL << 3, PSE = 1UL << 4, PAE = 1UL << 5, MCE = 1UL << 6, PGE = 1UL << 7,
        PCE = 1UL << 8, OSFXSR = 1UL << 9, OSXMMEXCPT = 1UL << 10, UMIP = 1UL << 11, LA57 = 1UL << 12, VMXE = 1UL << 13, SMXE = 1UL << 14,
        FSGSBASE = 1UL << 16, PCIDE = 1UL << 17, OSXSAVE = 1UL << 18, SMEP = 1UL << 20, SMAP = 1UL << 21, PKE = 1UL << 22, CET = 1UL << 23;
}

/// <summary>Bits of IA32_EFER.</summary>
public static class Efer
{
    public const ulong SCE = 1UL << 0, LME = 1UL << 8, LMA = 1UL << 10, NXE = 1UL << 11, SVME = 1UL << 12, LMSLE = 1UL << 13, FFXSR = 1UL << 14, TCE = 1UL << 15;
}

/// <summary>Bits of RFLAGS.</summary>
public static class Flags
{
    public const ulong CF = 1UL << 0, Fixed1 = 1UL << 1, PF = 1UL << 2, AF = 1UL << 4, ZF = 1UL << 6, SF = 1UL << 7, TF = 1UL << 8, IF = 1UL << 9, DF = 1UL << 10,
        OF = 1UL << 11, IOPL = 3UL << 12, NT = 1UL << 14, RF = 1UL << 16, VM = 1UL << 17, AC = 1UL << 18, VIF = 1UL << 19, VIP = 1UL << 20, ID = 1UL << 21;

    /// <summary>The status flags CF PF AF ZF SF OF.</summary>
    public const ulong Status = CF | PF | AF | ZF | SF | OF;
    /// <summary>Every implemented bit.</summary>
    public const ulong All = Status | TF | IF | DF | IOPL | NT | RF | VM | AC | VIF | VIP | ID;
}

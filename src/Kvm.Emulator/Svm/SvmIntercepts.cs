namespace Kvm.Emulator.Svm;

/// <summary>Third intercept word of the VMCB (offset 0x00c).</summary>
[Flags]
public enum SvmIntercepts3 : uint
{
    None = 0,
    Intr = 1u << 0, Nmi = 1u << 1, Smi = 1u << 2, Init = 1u << 3, Vintr = 1u << 4,
    /// <summary>CR0 writes that change bits other than TS and MP.</summary>
    Cr0SelectiveWrite = 1u << 5,
    ReadIdtr = 1u << 6, ReadGdtr = 1u << 7, ReadLdtr = 1u << 8, ReadTr = 1u << 9,
    WriteIdtr = 1u << 10, WriteGdtr = 1u << 11, WriteLdtr = 1u << 12, WriteTr = 1u << 13,
    Rdtsc = 1u << 14, Rdpmc = 1u << 15, Pushf = 1u << 16, Popf = 1u << 17, Cpuid = 1u << 18, Rsm = 1u << 19,
    Iret = 1u << 20, IntN = 1u << 21, Invd = 1u << 22, Pause = 1u << 23, Hlt = 1u << 24, Invlpg = 1u << 25,
    Invlpga = 1u << 26, Ioio = 1u << 27, Msr = 1u << 28, TaskSwitch = 1u << 29, FerrFreeze = 1u << 30, Shutdown = 1u << 31,
}

/// <summary>Fourth intercept word of the VMCB (offset 0x010).</summary>
[Flags]
public enum SvmIntercepts4 : uint
{
    None = 0,
    Vmrun = 1u << 0, Vmmcall = 1u << 1, Vmload = 1u << 2, Vmsave = 1u << 3, Stgi = 1u << 4, Clgi = 1u << 5, Skinit = 1u << 6,
    Rdtscp = 1u << 7, Icebp = 1u << 8, Wbinvd = 1u << 9, Monitor = 1u << 10, Mwait = 1u << 11, MwaitArmed = 1u << 12,
    Xsetbv = 1u << 13, Rdpru = 1u << 14, EferWriteTrap = 1u << 15,
    /// <summary>Write trap of CRn = this bit shifted left by n.</summary>
    Cr0WriteTrap = 1u << 16,
}

/// <summary>Fifth intercept word of the VMCB (offset 0x014).</summary>
[Flags]
public enum SvmIntercepts5 : uint
{
    None = 0,
    Invlpgb = 1u << 0, InvlpgbIllegal = 1u << 1, Invpcid = 1u << 2, Mcommit = 1u << 3, Tlbsync = 1u << 4,
}

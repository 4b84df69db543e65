namespace Kvm.Emulator.Svm;

/// <summary>EXITCODE values (APM vol 2, appendix "SVM Intercept Exit Codes").</summary>
public enum SvmExitCode : ulong
{
    Cr0Read = 0x000, Cr0Write = 0x010, Dr0Read = 0x020, Dr0Write = 0x030,
    /// <summary>Exception with vector n: this value plus n.</summary>
    Exception = 0x040,
    Intr = 0x060, Nmi = 0x061, Smi = 0x062, Init = 0x063, Vintr = 0x064, Cr0SelectiveWrite = 0x065,
    IdtrRead = 0x066, GdtrRead = 0x067, LdtrRead = 0x068, TrRead = 0x069, IdtrWrite = 0x06a, GdtrWrite = 0x06b, LdtrWrite = 0x06c, TrWrite = 0x06d,
    Rdtsc = 0x06e, Rdpmc = 0x06f, Pushf = 0x070, Popf = 0x071, Cpuid = 0x072, Rsm = 0x073, Iret = 0x074, Swint = 0x075, Invd = 0x076, Pause = 0x077,
    Hlt = 0x078, Invlpg = 0x079, Invlpga = 0x07a, Ioio = 0x07b, Msr = 0x07c, TaskSwitch = 0x07d, FerrFreeze = 0x07e, Shutdown = 0x07f,
    Vmrun = 0x080, Vmmcall = 0x081, Vmload = 0x082, Vmsave = 0x083, Stgi = 0x084, Clgi = 0x085, Skinit = 0x086, Rdtscp = 0x087, Icebp = 0x088,
    Wbinvd = 0x089, Monitor = 0x08a, Mwait = 0x08b, MwaitConditional = 0x08c, Xsetbv = 0x08d, Rdpru = 0x08e, EferWriteTrap = 0x08f, Cr0WriteTrap = 0x090,
    Invlpgb = 0x0a0, InvlpgbIllegal = 0x0a1, Invpcid = 0x0a2, Mcommit = 0x0a3, Tlbsync = 0x0a4,
    Npf = 0x400, AvicIncompleteIpi = 0x401, AvicUnacceleratedAccess = 0x402, Vmgexit = 0x403,
    Invalid = 0xffff_ffff_ffff_ffff,
}

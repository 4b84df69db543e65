namespace Kvm.Emulator;

/// <summary>Where a 64-bit kernel has put its tables: what <c>Processor.EnterKernelMode</c> loads.</summary>
public readonly record struct KernelContext
{
    /// <summary>Page-table root.</summary>
    public ulong Cr3 { get; init; }
    public ulong GdtBase { get; init; }
    public uint GdtLimit { get; init; }
    public ulong IdtBase { get; init; }
    public uint IdtLimit { get; init; }
    public ulong TssBase { get; init; }
    public uint TssLimit { get; init; }
    /// <summary>Per-CPU base: GS base.</summary>
    public ulong GsBase { get; init; }
    public ulong StackTop { get; init; }
    /// <summary>SYSCALL and SYSENTER entry points.</summary>
    public ulong SyscallEntry { get; init; }
    public ulong CompatSyscallEntry { get; init; }
    public ulong SysenterEntry { get; init; }
    public ulong SysenterStack { get; init; }
    public ulong TscAux { get; init; }
    /// <summary>CR4 bits beyond what every 64-bit kernel sets (PAE, PGE, PSE, OSFXSR, OSXMMEXCPT); unsupported ones are dropped.</summary>
    public ulong ExtraCr4 { get; init; }
}

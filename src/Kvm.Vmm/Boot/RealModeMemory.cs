namespace Kvm.Vmm.Boot;

/// <summary>Where the loaders put things in the first mebibyte.</summary>
internal static class RealModeMemory
{
    public const ulong Gdt = 0x500;
    public const ulong ZeroPage = 0x7000;
    public const ulong Stack = 0x8ff0;
    public const ulong PageTables = 0x9000; // PML4, PDPT and four page directories: 0x9000..0xefff
    public const ulong CommandLine = 0x20000;
    public const ulong CommandLineSize = 0x60000;
    public const ulong SetupSegment = 0x90000; // 16-bit entry: setup code, heap, then the command line
    public const ulong SetupHeapEnd = 0xe000;  // offset in the segment
    public const ulong SetupCommandLine = SetupSegment + SetupHeapEnd;
    public const ulong SetupCommandLineSize = EbdaStart - SetupCommandLine;
    public const ulong EbdaStart = 0x9fc00;
    public const ulong Bios = 0xf0000;
}

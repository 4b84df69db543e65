using System.Runtime.InteropServices;
using Kvm.Interop;

namespace Kvm.Emulator.Vector;

/// <summary>Executable memory for generated code: filled from the start, never freed, shared by all machines of the process.</summary>
/// <remarks>One mapping is writable, the other executable (the same pages twice), so no page is ever both.</remarks>
internal static unsafe class HostCode
{
    private const int size = 16 << 20;
    private static readonly Lock gate = new();
    private static byte* writable, executable; // gate
    private static int used; // gate
    private static bool unusable; // gate

    /// <summary>Generated code can be called here: x86-64 with the System V calling convention, and the host allows executable memory.</summary>
    internal static bool Supported { get; } = RuntimeInformation.ProcessArchitecture == Architecture.X64 && OperatingSystem.IsLinux() && Reserve();

    /// <summary>Places code; null when the memory is used up.</summary>
    internal static void* Add(ReadOnlySpan<byte> code)
    {
        lock (gate)
        {
            if (unusable || used + code.Length > size)
                return null;
            code.CopyTo(new Span<byte>(writable + used, size - used));
            void* entry = executable + used;
            used = (used + code.Length + 15) & ~15;
            return entry;
        }
    }

    private static bool Reserve()
    {
        lock (gate)
        {
            int fd = LibC.memfd_create("kvm-code", LibC.MFD_CLOEXEC);
            unusable = fd < 0;
            if (unusable)
                return false;
            if (LibC.ftruncate(fd, size) == 0)
            {
                writable = (byte*)LibC.mmap(null, size, LibC.PROT_READ | LibC.PROT_WRITE, LibC.MAP_SHARED, fd, 0);
                executable = (byte*)LibC.mmap(null, size, LibC.PROT_READ | LibC.PROT_EXEC, LibC.MAP_SHARED, fd, 0);
            }
            LibC.close(fd);
            unusable = writable is null || writable == LibC.MAP_FAILED || executable == LibC.MAP_FAILED;
            return !unusable;
        }
    }
}

using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Kvm.Tool.Interop;

/// <summary>The C library's calls for terminals, under its names.</summary>
internal static unsafe partial class LibC
{
    public const int TCSAFLUSH = 2;

    /// <summary>struct termios of x86-64 and arm64 Linux; some room behind it, because other C libraries have larger ones.</summary>
    [InlineArray(128)]
    public struct Termios
    {
        private byte _first;
    }

    [LibraryImport("libc")]
    public static partial int isatty(int fd);

    [LibraryImport("libc")]
    public static partial int tcgetattr(int fd, Termios* state);

    [LibraryImport("libc")]
    public static partial int tcsetattr(int fd, int when, Termios* state);

    [LibraryImport("libc")]
    public static partial void cfmakeraw(Termios* state);

    [LibraryImport("libc")]
    public static partial int tcgetpgrp(int fd);

    [LibraryImport("libc")]
    public static partial int getpgrp();
}

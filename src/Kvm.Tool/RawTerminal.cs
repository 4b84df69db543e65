using System.Runtime.InteropServices;
using Kvm.Tool.Interop;

namespace Kvm.Tool;

/// <summary>
/// While it lives, the terminal on standard input hands over each key as it is typed, echoes nothing, and makes no signals of keys: all that is the guest's.
/// The terminal is put back when this is disposed, and on every other way out of the process that leaves it a chance: exit, an exception, SIGHUP, SIGQUIT.
/// </summary>
internal sealed unsafe class RawTerminal : IDisposable
{
    private readonly Lock _lock = new();
    private readonly PosixSignalRegistration[] _signals;
    private LibC.Termios _before;
    private bool _raw;

    private RawTerminal(LibC.Termios before)
    {
        _before = before;
        _raw = true;
        AppDomain.CurrentDomain.ProcessExit += OnExit;
        AppDomain.CurrentDomain.UnhandledException += OnExit;
        // The runtime goes on to what the signal does without this: it ends the process.
        _signals = [.. new[] { PosixSignal.SIGHUP, PosixSignal.SIGQUIT }.Select(s => PosixSignalRegistration.Create(s, _ => Restore()))];
    }

    /// <summary>Null when standard input is no terminal, or belongs to another job: reading it would stop this one.</summary>
    public static RawTerminal? TryEnter()
    {
        const int fd = 0;
        if (OperatingSystem.IsWindows() || LibC.isatty(fd) == 0 || LibC.tcgetpgrp(fd) != LibC.getpgrp()) return null;
        LibC.Termios before = default;
        if (LibC.tcgetattr(fd, &before) != 0) return null;
        LibC.Termios raw = before;
        LibC.cfmakeraw(&raw);
        var terminal = new RawTerminal(before);
        if (LibC.tcsetattr(fd, LibC.TCSAFLUSH, &raw) == 0) return terminal;
        terminal.Dispose();
        return null;
    }

    public void Dispose()
    {
        Restore();
        foreach (PosixSignalRegistration signal in _signals) signal.Dispose();
        AppDomain.CurrentDomain.ProcessExit -= OnExit;
        AppDomain.CurrentDomain.UnhandledException -= OnExit;
    }

    private void OnExit(object? sender, EventArgs e) => Restore();

    private void Restore()
    {
        lock (_lock)
        {
            if (!_raw) return;
            _raw = false;
            fixed (LibC.Termios* before = &_before) LibC.tcsetattr(0, LibC.TCSAFLUSH, before);
        }
    }
}

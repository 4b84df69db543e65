using System.IO.Pipelines;
using Kvm.Abi;
using Kvm.Client;
using Kvm.Vmm;

namespace Kvm.Tool;

/// <summary>Standard input as what the guest's serial port receives: a terminal in raw mode, with Ctrl-A for this program; or a file or pipe, byte for byte.</summary>
internal sealed unsafe class GuestConsole : IDisposable
{
    private const int Fd = 0;

    private readonly Pipe _pipe = new();
    private readonly RawTerminal? _terminal;

    private GuestConsole(RawTerminal? terminal) => _terminal = terminal;

    /// <summary>For <see cref="PcOptions.Input"/>.</summary>
    public PipeReader Input => _pipe.Reader;

    /// <summary>A terminal that another job has is left alone: the guest then receives nothing.</summary>
    public static GuestConsole Open() => new(RawTerminal.TryEnter());

    /// <summary>Reads from now on, on a thread of its own, until the input ends or the process does.</summary>
    public void Connect(Pc pc)
    {
        if (_terminal is null && !Console.IsInputRedirected) return;
        EscapeKeys? keys = _terminal is null ? null : new EscapeKeys(
            () => pc.Stop.Request(GuestStopReason.Interrupted, 0, "stopped by the user"),
            () => Console.Error.Write($"\r\n{EscapeKeys.Help}\r\n"));
        new Thread(() => Copy(pc, keys)) { Name = "console input", IsBackground = true }.Start();
    }

    /// <summary>Puts the terminal back.</summary>
    public void Dispose() => _terminal?.Dispose();

    private void Copy(Pc pc, EscapeKeys? keys)
    {
        try
        {
            using Stream? console = OperatingSystem.IsWindows() ? Console.OpenStandardInput() : null;
            while (true)
            {
                Span<byte> buffer = _pipe.Writer.GetSpan(512);
                int count = console is not null ? console.Read(buffer) : Read(buffer);
                if (count <= 0) return;
                if (keys is not null) count = keys.Filter(buffer[..count]);
                if (count == 0) continue;
                _pipe.Writer.Advance(count);
                // Not read yet is not full: the guest hears of it before this thread waits for room.
                ValueTask<FlushResult> flush = _pipe.Writer.FlushAsync();
                pc.PollInput();
                if (!flush.IsCompletedSuccessfully) flush.AsTask().GetAwaiter().GetResult();
            }
        }
        catch (Exception e) when (e is IOException or KvmException or ObjectDisposedException)
        {
            // The input failed, or the guest is gone: there is nobody to tell.
        }
    }

    private static int Read(Span<byte> buffer)
    {
        fixed (byte* at = buffer)
        {
            while (true)
            {
                long count = KvmBackend.Native.Read(Fd, (ulong)at, (ulong)buffer.Length);
                if (count != -(long)Errno.EINTR) return (int)count;
            }
        }
    }
}

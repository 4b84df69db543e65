using Kvm.Abi;
using Kvm.Client;

namespace Kvm.Tool;

/// <summary>
/// Standard output as the guest's serial port needs it: bytes go out at once on the calling thread, and a reader that went away is an error.
/// </summary>
/// <remarks>The console's own stream hides EPIPE, so that a guest would print for ever behind <c>| head</c>, and hands every byte to another thread.</remarks>
internal sealed unsafe class StandardOutput : GuestOutput
{
    private const int Fd = 1;

    /// <summary>Where there is no such C library, the console's stream has to do.</summary>
    private readonly Stream? _console = OperatingSystem.IsWindows() ? Console.OpenStandardOutput() : null;

    /// <summary>Bytes so far.</summary>
    public long Written { get; private set; }

    /// <exception cref="IOException">The file is full, the reader is gone, or nothing is open there.</exception>
    public override void Write(ReadOnlySpan<byte> buffer)
    {
        Written += buffer.Length;
        if (_console is not null)
        {
            _console.Write(buffer);
            return;
        }

        fixed (byte* at = buffer)
        {
            for (int done = 0; done < buffer.Length;)
            {
                long written = KvmBackend.Native.Write(Fd, (ulong)(at + done), (ulong)(buffer.Length - done));
                if (written >= 0) done += (int)written;
                else if (written is not (-(long)Errno.EINTR or -(long)Errno.EAGAIN)) throw new IOException(Reason((Errno)(-written)));
            }
        }
    }

    private static string Reason(Errno errno) => errno switch
    {
        Errno.EPIPE => "nobody reads it any more",
        Errno.ENOSPC => "no space left on the device",
        Errno.EBADF => "it is not open",
        _ => errno.ToString(),
    };
}

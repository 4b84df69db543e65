using Kvm.Abi;
using Kvm.Client;

namespace Kvm.Tool;

/// <summary>
/// Standard output as the guest's serial port needs it: bytes go out at once on the calling thread, and a reader that went away is an error.
/// </summary>
/// <remarks>The console's own stream hides EPIPE, so that a guest would print for ever behind <c>| head</c>, and hands every byte to another thread.</remarks>
internal sealed unsafe class StandardOutput : Stream
{
    private const int Fd = 1;

    /// <summary>Where there is no C library, the console's stream has to do.</summary>
    public static Stream Open() => OperatingSystem.IsWindows() ? Console.OpenStandardOutput() : new StandardOutput();

    public override bool CanRead => false;

    public override bool CanSeek => false;

    public override bool CanWrite => true;

    public override long Length => throw new NotSupportedException();

    public override long Position
    {
        get => throw new NotSupportedException();
        set => throw new NotSupportedException();
    }

    public override void Write(byte[] buffer, int offset, int count) => Write(buffer.AsSpan(offset, count));

    /// <exception cref="IOException">The file is full, the reader is gone, or nothing is open there.</exception>
    public override void Write(ReadOnlySpan<byte> buffer)
    {
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

    public override ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default)
    {
        Write(buffer.Span);
        return ValueTask.CompletedTask;
    }

    public override void Flush()
    {
    }

    public override Task FlushAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public override int Read(byte[] buffer, int offset, int count) => throw new NotSupportedException();

    public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

    public override void SetLength(long value) => throw new NotSupportedException();

    private static string Reason(Errno errno) => errno switch
    {
        Errno.EPIPE => "nobody reads it any more",
        Errno.ENOSPC => "no space left on the device",
        Errno.EBADF => "it is not open",
        _ => errno.ToString(),
    };
}

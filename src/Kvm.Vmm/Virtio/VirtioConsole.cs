using System.IO.Pipelines;

namespace Kvm.Vmm.Virtio;

/// <summary>A console, <c>/dev/hvc0</c> in the guest: bytes both ways, many at a time.</summary>
/// <remarks>Virtio specification 1.2, "Console Device"; one port, no window size.</remarks>
public sealed class VirtioConsole : VirtioDevice
{
    private const int ReceiveQueue = 0, TransmitQueue = 1, QueueSize = 64, MostAtOnce = 4096;

    private readonly PipeWriter _output;
    private readonly PipeReader? _input;
    private readonly CancellationTokenSource _end = new();
    private readonly byte[] _bytes = new byte[MostAtOnce];
    private readonly SemaphoreSlim _taken = new(0, 1);
    private ReadOnlyMemory<byte> _typed;

    /// <param name="output">What the guest sends; flushed after each of its buffers: a full pipe holds the device up.</param>
    /// <param name="input">What the guest receives; null: nothing ever.</param>
    public VirtioConsole(PipeWriter output, PipeReader? input = null)
        : base(type: 3, "virtio-console", QueueSize, QueueSize)
    {
        _output = output;
        _input = input;
    }

    /// <inheritdoc/>
    protected override ulong DeviceFeatures => 0;

    /// <inheritdoc/>
    public override int ConfigSize => 12;

    /// <summary>Starts to take input: from now on the pipe is this device's to read.</summary>
    public void Connect()
    {
        if (_input is not null) _ = CopyInputAsync(_input);
    }

    /// <inheritdoc/>
    protected override void Process()
    {
        Transmit(Queues[TransmitQueue]);
        Receive(Queues[ReceiveQueue]);
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
        _end.Cancel();
        base.Dispose();
        _end.Dispose();
    }

    private void Transmit(VirtioQueue queue)
    {
        do
        {
            queue.SetNotify(false);
            while (queue.TryPop() is { } chain)
            {
                for (long offset = 0; offset < chain.ReadableLength;)
                {
                    int length = chain.Read(offset, _output.GetSpan(256));
                    _output.Advance(length);
                    offset += length;
                }

                ValueTask<FlushResult> flush = _output.FlushAsync();
                if (!flush.IsCompletedSuccessfully) flush.AsTask().GetAwaiter().GetResult();
                queue.Push(chain.Head, 0);
            }

            Interrupt(queue);
            queue.SetNotify(true);
        }
        while (queue.HasMore);
    }

    private void Receive(VirtioQueue queue)
    {
        queue.SetNotify(false);
        while (!_typed.IsEmpty)
        {
            if (queue.TryPop() is not { } chain)
            {
                queue.SetNotify(true);
                if (queue.HasMore) continue;
                break;
            }

            int length = chain.Write(0, _typed.Span);
            _typed = _typed[length..];
            queue.Push(chain.Head, (uint)length);
            if (_typed.IsEmpty) _taken.Release();
        }

        Interrupt(queue);
    }

    /// <summary>One piece of input at a time is with the device; the pipe holds the rest.</summary>
    private async Task CopyInputAsync(PipeReader input)
    {
        try
        {
            while (true)
            {
                ReadResult result = await input.ReadAsync(_end.Token).ConfigureAwait(false);
                int length = (int)Math.Min(result.Buffer.Length, _bytes.Length);
                if (length == 0 && result.IsCompleted) return;
                Take(result.Buffer, length);
                input.AdvanceTo(result.Buffer.GetPosition(length));
                Wake();
                await _taken.WaitAsync(_end.Token).ConfigureAwait(false);
            }
        }
        catch (Exception e) when (e is OperationCanceledException or ObjectDisposedException or InvalidOperationException)
        {
            // The device is gone, or whoever fed the pipe.
        }
    }

    private void Take(System.Buffers.ReadOnlySequence<byte> buffer, int length)
    {
        lock (Gate)
        {
            int at = 0;
            foreach (ReadOnlyMemory<byte> part in buffer.Slice(0, length))
            {
                part.Span.CopyTo(_bytes.AsSpan(at));
                at += part.Length;
            }

            _typed = _bytes.AsMemory(0, length);
        }
    }
}

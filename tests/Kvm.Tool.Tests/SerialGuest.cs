using System.Diagnostics;
using System.IO.Pipelines;
using System.Text;
using System.Text.RegularExpressions;
using Kvm.Client;
using Kvm.Vmm;

namespace Kvm.Tool.Tests;

/// <summary>A guest on a thread of its own, and its serial line: what it says is awaited, what it shall read is sent.</summary>
internal sealed class SerialGuest : IDisposable
{
    private static readonly TimeSpan s_patience = TimeSpan.FromMinutes(3);

    private readonly KvmSystem _kvm;
    private readonly Pc _pc;
    private readonly Pipe _output = new(new PipeOptions(pauseWriterThreshold: 0)), _input = new();
    private readonly StringBuilder _text = new();
    private readonly Thread _thread;
    private GuestStop? _stop;

    /// <param name="cpu">The vendor of the model's processor.</param>
    /// <param name="options">The machine, without its serial line.</param>
    /// <param name="load">Puts something to run there.</param>
    public SerialGuest(string cpu, PcOptions options, Action<Pc> load)
        : this(KvmBackend.ByName("model", cpu), options, load)
    {
    }

    /// <param name="backend">What runs it.</param>
    /// <param name="options">The machine, without its serial line.</param>
    /// <param name="load">Puts something to run there.</param>
    public SerialGuest(IKvmBackend backend, PcOptions options, Action<Pc> load)
    {
        _kvm = KvmSystem.Open(backend);
        _pc = new Pc(_kvm, options with { Output = _output.Writer, Input = _input.Reader });
        load(_pc);
        _thread = new Thread(Run) { IsBackground = true, Name = "guest" };
        _thread.Start();
    }

    /// <summary>All that it said.</summary>
    public string Text
    {
        get
        {
            while (_output.Reader.TryRead(out ReadResult result) && !result.Buffer.IsEmpty)
            {
                _text.Append(Encoding.Latin1.GetString(result.Buffer));
                _output.Reader.AdvanceTo(result.Buffer.End);
            }

            return _text.ToString();
        }
    }

    /// <summary>Waits until the text matches.</summary>
    /// <exception cref="TimeoutException">It did not, in three minutes or before the guest ended; the message has the text.</exception>
    public string WaitFor(string pattern)
    {
        var clock = Stopwatch.StartNew();
        while (true)
        {
            bool ended = Volatile.Read(ref _stop) is not null;
            string text = Text;
            if (Regex.IsMatch(text, pattern, RegexOptions.CultureInvariant)) return text;
            if (ended || clock.Elapsed > s_patience) throw new TimeoutException($"no '{pattern}' ({_stop?.Text ?? "still running"}) in:\n{text}");
            Thread.Sleep(20);
        }
    }

    /// <summary>Waits until the guest ends of itself.</summary>
    public GuestStop WaitForEnd() => _thread.Join(s_patience) ? _stop! : throw new TimeoutException($"it still runs:\n{Text}");

    /// <summary>Types.</summary>
    public void Send(string keys)
    {
        _input.Writer.WriteAsync(Encoding.ASCII.GetBytes(keys)).AsTask().GetAwaiter().GetResult();
        _pc.PollInput();
    }

    /// <summary>Ends the guest.</summary>
    public void Dispose()
    {
        _pc.Stop.Request(GuestStopReason.Interrupted, 0, "the test is over");
        _thread.Join();
        _pc.Dispose();
        _kvm.Dispose();
    }

    private void Run() => Volatile.Write(ref _stop, _pc.Run());
}

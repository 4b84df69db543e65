using System.Globalization;
using System.Runtime.InteropServices;
using System.Text.Json;
using Kvm.Abi;
using Kvm.Client;
using static Kvm.Abi.Uapi;

namespace Kvm.Conformance;

/// <summary>Performs a scenario's steps on a kernel and compares every answer that the recording says is comparable.</summary>
public sealed unsafe partial class Replayer : IDisposable
{
    private readonly IKvmBackend _kernel;
    private readonly Func<IKvmBackend> _newKernel;
    private readonly ReplayResult _result;
    private readonly Dictionary<string, int> _fds = [];
    private readonly Dictionary<string, (ulong Address, ulong Length)> _memory = [];
    private readonly HashSet<string> _inherited = [];
    private readonly Dictionary<string, RunThread> _threads = [];
    private readonly List<int> _standard = [];
    private string _step = "";

    private Replayer(Func<IKvmBackend> newKernel, ReplayResult result)
    {
        _newKernel = newKernel;
        _kernel = newKernel();
        _kernel.AddUser();
        // Standard input, output and error: descriptor numbers are arguments too.
        while (_standard.Count < 3 && _kernel.Eventfd(0, 0) is >= 0 and var fd)
            _standard.Add((int)fd);
        _result = result;
    }

    /// <summary>A forked child: its own descriptors, which begin as the parent's; the parent's memory.</summary>
    private Replayer(Replayer parent, IKvmBackend child)
    {
        (_kernel, _newKernel, _result) = (child, parent._newKernel, parent._result);
        foreach ((string name, int fd) in parent._fds) _fds[name] = fd;
        foreach ((string name, (ulong, ulong) memory) in parent._memory)
        {
            _memory[name] = memory;
            _inherited.Add(name);
        }
    }

    /// <summary>Performs a scenario on a kernel of its own.</summary>
    /// <param name="scenario">What to do, and what was answered.</param>
    /// <param name="newKernel">Makes a kernel that nobody else uses; also called for each entry of a sweep.</param>
    public static ReplayResult Replay(Scenario scenario, Func<IKvmBackend> newKernel)
    {
        var result = new ReplayResult();
        using var replayer = new Replayer(newKernel, result);
        replayer.Perform(scenario.Steps);
        return result;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (RunThread thread in _threads.Values) thread.Abandon();
        foreach (int fd in _fds.Values.Concat(_standard)) _kernel.Close(fd);
        foreach ((string name, (ulong address, ulong length)) in _memory)
        {
            if (!_inherited.Contains(name)) _kernel.Munmap(address, length);
        }

        _kernel.RemoveUser();
    }

    private void Perform(JsonElement steps)
    {
        int number = 0;
        foreach (JsonElement step in steps.EnumerateArray())
        {
            string op = step.GetProperty("op").GetString()!;
            _step = $"step {number++} {op}{(step.TryGetProperty("ioctl", out JsonElement name) ? " " + name.GetString() : "")}";
            if (!Perform(op, step))
            {
                _result.Unsupported = op;
                return;
            }
        }
    }

    private bool Perform(string op, JsonElement step)
    {
        switch (op)
        {
            case "open": Open(step); return true;
            case "close": Answer(step, _kernel.Close(Fd(step))); return true;
            case "dup": Answer(step, _kernel.Dup(Fd(step))); return true;
            case "ioctl": Ioctl(step); return true;
            case "mmap": Mmap(step); return true;
            case "munmap": Answer(step, _kernel.Munmap(Address(step), step.GetProperty("len").GetUInt64())); return true;
            case "poke": Hex(step, "hex").CopyTo(Memory(step)); return true;
            case "fill": Memory(step).Fill(step.GetProperty("byte").GetByte()); return true;
            case "peek": Peek(step); return true;
            case "run": Run(step); return true;
            case "run_start": StartRun(step); return true;
            case "run_join": return JoinRun(step);
            case "run_kick": _threads[step.GetProperty("thread").GetString()!].Kick(); return true;
            case "sweep_args": SweepArgs(step); return true;
            case "sweep_fresh": SweepFresh(step); return true;
            case "sweep_enable_cap": SweepEnableCap(step); return true;
            case "sleep": Sleep(step.GetProperty("ms").GetInt32()); return true;
            case "const": return true; // structure offsets: Kvm.Abi.Tests
            default: return PerformFile(op, step);
        }
    }

    private void Open(JsonElement step)
    {
        int flags = 0;
        foreach (string flag in step.GetProperty("flags").GetString()!.Split('|'))
            flags |= (int)typeof(Uapi).GetField(flag)!.GetRawConstantValue()!;
        Answer(step, _kernel.Open(step.GetProperty("path").GetString()!, flags));
    }

    private void Mmap(JsonElement step)
    {
        string protection = step.GetProperty("prot").GetString()!, flags = step.GetProperty("flags").GetString()!;
        int prot = Protection(protection);
        int bits = (flags.Contains("shared") ? MAP_SHARED : MAP_PRIVATE) | (flags.Contains("anon") ? MAP_ANONYMOUS : 0);
        int fd = step.GetProperty("fd").ValueKind == JsonValueKind.Null ? -1 : Fd(step);
        ulong length = step.GetProperty("len").GetUInt64();
        long address = _kernel.Mmap(fd, length, prot, bits, step.GetProperty("off").GetInt64());
        if (address >= 0) _memory[step.GetProperty("as").GetString()!] = ((ulong)address, length);
        Answer(step, address);
    }

    private static int Protection(string text) => (text.Contains('r') ? PROT_READ : 0) | (text.Contains('w') ? PROT_WRITE : 0) | (text.Contains('x') ? PROT_EXEC : 0);

    private void Ioctl(JsonElement step)
    {
        uint request = (uint)Number(step.GetProperty("nr"));
        JsonElement arg = step.GetProperty("arg");
        if (arg.TryGetProperty("int", out JsonElement value)) Answer(step, _kernel.Ioctl(Fd(step), request, Number(value)));
        else if (arg.TryGetProperty("badptr", out value)) Answer(step, _kernel.Ioctl(Fd(step), request, Number(value)));
        else if (arg.TryGetProperty("mem", out value)) Answer(step, _kernel.Ioctl(Fd(step), request, _memory[value.GetString()!].Address + arg.GetProperty("off").GetUInt64()));
        else IoctlWithBuffer(step, request, arg);
    }

    private void IoctlWithBuffer(JsonElement step, uint request, JsonElement arg)
    {
        int length = arg.GetProperty("len").GetInt32();
        var buffer = new Span<byte>(NativeMemory.AllocZeroed((nuint)length + 16), length);
        try
        {
            Hex(arg, "in").CopyTo(buffer);
            var ignored = new bool[length];
            if (arg.TryGetProperty("relocs", out JsonElement relocations))
            {
                foreach (JsonElement relocation in relocations.EnumerateArray())
                {
                    int at = relocation.GetProperty("off").GetInt32();
                    if (relocation.TryGetProperty("mem", out JsonElement memory))
                    {
                        MemoryMarshal.Write(buffer[at..], _memory[memory.GetString()!].Address + (ulong)relocation.GetProperty("add").GetInt64());
                        ignored.AsSpan(at, 8).Fill(true);
                    }
                    else
                    {
                        MemoryMarshal.Write(buffer[at..], _fds[relocation.GetProperty("fd").GetString()!]);
                        ignored.AsSpan(at, 4).Fill(true);
                    }
                }
            }

            byte[] expected = buffer.ToArray();
            if (step.TryGetProperty("out", out _))
            {
                expected = new byte[length];
                Hex(step, "out").CopyTo(expected.AsSpan());
            }

            long result = _kernel.Ioctl(Fd(step), request, (ulong)Unsafe(buffer));
            Answer(step, result);
            if (result == 0 && request == KVM_CREATE_DEVICE)
                _fds["dev"] = MemoryMarshal.Read<int>(buffer[4..]);
            Mask(step, ignored);
            Compare(step, expected, buffer, ignored);
        }
        finally
        {
            NativeMemory.Free(Unsafe(buffer));
        }
    }

    private void Peek(JsonElement step)
    {
        Span<byte> actual = Memory(step);
        var expected = new byte[actual.Length];
        Hex(step, "hex").CopyTo(expected.AsSpan());
        var ignored = new bool[actual.Length];
        Mask(step, ignored);
        Compare(step, expected, actual, ignored);
    }

    private void Run(JsonElement step)
    {
        var run = (kvm_run*)_memory[step.GetProperty("run").GetString()!].Address;
        long thread = _kernel.CurrentThread();
        using Timer? kick = step.TryGetProperty("kick_ms", out JsonElement after) ? KickAfter(after.GetInt32(), thread, OsThread.Current()) : null;
        // A guest that never comes back must not hold the tests up.
        using var watchdog = new Timer(_ => _kernel.Interrupt(thread), null, 60_000, 1_000);
        long result = _kernel.Ioctl(Fd(step), KVM_RUN, 0);
        Answer(step, result);
        CompareExit(step, run);
    }

    /// <summary>When the guest has had the time that it had when it was recorded, or waits for something.</summary>
    private Timer KickAfter(int milliseconds, long thread, OsThread runner) => new(_ =>
    {
        if (runner.HasHad(TimeSpan.FromMilliseconds(milliseconds))) _kernel.Interrupt(thread);
    }, null, milliseconds, 20);

    /// <summary>As long as recorded, and longer while a guest that runs beside has not had that time.</summary>
    private void Sleep(int milliseconds)
    {
        Thread.Sleep(milliseconds);
        foreach (RunThread thread in _threads.Values) thread.AwaitProgress(TimeSpan.FromMilliseconds(milliseconds));
    }

    private void StartRun(JsonElement step)
    {
        int fd = Fd(step);
        _threads[step.GetProperty("thread").GetString()!] = new RunThread(_kernel, fd, (kvm_run*)_memory[step.GetProperty("run").GetString()!].Address);
    }

    private bool JoinRun(JsonElement step)
    {
        RunThread thread = _threads[step.GetProperty("thread").GetString()!];
        int timeout = step.GetProperty("timeout_ms").GetInt32();
        bool ended = thread.Join(timeout);
        if (step.TryGetProperty("running", out JsonElement running) && running.GetBoolean())
        {
            if (!ended) ended = thread.AwaitProgress(TimeSpan.FromMilliseconds(timeout));
            Check(step, !ended, $"expected to be still running, returned {thread.Result}");
            return true;
        }

        // Slower than the recorded kernel is no difference.
        if (!ended && !thread.Join(60_000))
        {
            Check(step, false, "KVM_RUN did not return");
            return true;
        }

        Answer(step, thread.Result);
        CompareExit(step, thread.Run);
        return true;
    }

    private void SweepArgs(JsonElement step)
    {
        uint request = (uint)Number(step.GetProperty("nr"));
        ulong from = step.GetProperty("from").GetUInt64();
        JsonElement[] expected = [.. step.GetProperty("rets").EnumerateArray()];
        var differences = new List<string>();
        for (int i = 0; i < expected.Length; i++)
        {
            long actual = _kernel.Ioctl(Fd(step), request, from + (ulong)i);
            if (Text(actual) != Text(expected[i])) differences.Add($"{from + (ulong)i}: expected {Text(expected[i])}, got {Text(actual)}");
        }

        Swept(step, expected.Length, differences);
    }

    private void SweepFresh(JsonElement step)
    {
        var differences = new List<string>();
        int compared = 0;
        foreach (JsonElement entry in step.GetProperty("entries").EnumerateArray())
        {
            compared += entry.TryGetProperty("np", out _) ? 0 : 1;
            using var fresh = new Replayer(_newKernel, new ReplayResult());
            fresh.Perform(step.GetProperty("setup"));
            long actual = fresh._kernel.Ioctl(fresh.Fd(step), (uint)Number(entry.GetProperty("nr")), Number(entry.GetProperty("arg")));
            JsonElement ret = entry.GetProperty("ret");
            bool fd = ret.ValueKind == JsonValueKind.String;
            if (fd && actual >= 0) fresh._fds["result"] = (int)actual;
            string expected = fd ? "fd" : entry.TryGetProperty("errno", out JsonElement errno) ? errno.GetString()! : Text(ret);
            string got = fd && actual >= 0 ? "fd" : Text(actual);
            if (got != expected && !entry.TryGetProperty("np", out _)) differences.Add($"{entry.GetProperty("ioctl").GetString()}: expected {expected}, got {got}");
        }

        Swept(step, compared, differences);
    }

    private void SweepEnableCap(JsonElement step)
    {
        var differences = new List<string>();
        JsonElement[] expected = [.. step.GetProperty("rets").EnumerateArray()];
        for (int capability = 0; capability < expected.Length; capability++)
        {
            using var fresh = new Replayer(_newKernel, new ReplayResult());
            fresh.Perform(step.GetProperty("setup"));
            var cap = new kvm_enable_cap { cap = (uint)capability, flags = step.GetProperty("flags").GetUInt32() };
            cap.args[0] = step.GetProperty("arg0").GetUInt64();
            long actual = fresh._kernel.Ioctl(fresh.Fd(step), KVM_ENABLE_CAP, (ulong)&cap);
            if (Text(actual) != Text(expected[capability])) differences.Add($"{capability}: expected {Text(expected[capability])}, got {Text(actual)}");
        }

        Swept(step, expected.Length, differences);
    }

    /// <summary>Each answer of a sweep counts.</summary>
    private void Swept(JsonElement step, int answers, List<string> differences)
    {
        for (int i = differences.Count; i < answers; i++)
            Check(step, true, "");
        foreach (string difference in differences)
            Check(step, false, difference);
    }

    /// <summary>Compares a system call's result, and binds the descriptor it gave.</summary>
    private void Answer(JsonElement step, long actual)
    {
        JsonElement ret = step.GetProperty("ret");
        bool binds = step.TryGetProperty("as", out JsonElement name);
        if (ret.ValueKind == JsonValueKind.String)
        {
            Check(step, actual >= 0, $"expected a {ret.GetString()}, got {Text(actual)}");
            if (actual >= 0 && ret.GetString() == "fd" && binds) _fds[name.GetString()!] = (int)actual;
            return;
        }

        string expected = step.TryGetProperty("errno", out JsonElement errno) ? errno.GetString()! : Text(ret);
        Check(step, Text(actual) == expected, $"expected {expected}, got {Text(actual)}");
        if (actual >= 0 && binds && expected != Text(actual)) _fds[name.GetString()!] = (int)actual; // ours to close
    }

    private void CompareExit(JsonElement step, kvm_run* run)
    {
        if (!step.TryGetProperty("exit", out JsonElement exit) || exit.ValueKind != JsonValueKind.Object) return;
        var ignored = step.TryGetProperty("xmask", out JsonElement mask) ? mask.EnumerateArray().Select(m => m.ValueKind == JsonValueKind.String ? m.GetString()! : m[0].GetString()!).ToHashSet() : [];
        // A mask without length: what the guest put out depends on time.
        if (step.TryGetProperty("mask", out _)) ignored.Add("data");
        var differences = new List<string>();
        foreach (JsonProperty field in exit.EnumerateObject())
        {
            if (ignored.Contains(field.Name) || field.Name == "name") continue;
            string expected = ExitFields.Normalize(field.Value), actual = ExitFields.Read(run, field.Name, field.Value);
            if (expected != actual) differences.Add($"{field.Name}: expected {expected}, got {actual}");
        }

        Check(step, differences.Count == 0, $"exit {exit.GetProperty("name").GetString()}: {string.Join(", ", differences)}");
    }

    private void Compare(JsonElement step, ReadOnlySpan<byte> expected, ReadOnlySpan<byte> actual, bool[] ignored)
    {
        var differences = new List<string>();
        for (int i = 0; i < expected.Length; i++)
        {
            if (expected[i] != actual[i] && !ignored[i]) differences.Add($"[{i}] {expected[i]:x2}→{actual[i]:x2}");
        }

        Check(step, differences.Count == 0, $"{differences.Count} bytes differ: {string.Join(' ', differences.Take(24))}");
    }

    private static void Mask(JsonElement step, bool[] ignored)
    {
        if (!step.TryGetProperty("mask", out JsonElement mask)) return;
        foreach (JsonElement range in mask.EnumerateArray())
        {
            int at = range[0].GetInt32(), length = Math.Min(range[1].GetInt32(), ignored.Length - at);
            if (length > 0) ignored.AsSpan(at, length).Fill(true);
        }
    }

    private void Check(JsonElement step, bool agreed, string difference)
    {
        bool portable = !step.TryGetProperty("np", out _);
        if (agreed && portable) _result.Agreed++;
        else if (agreed) _result.AgreedNotPortable++;
        else (portable ? _result.Differences : _result.DifferencesNotPortable).Add($"{_step}: {difference}");
    }

    private int Fd(JsonElement step) => _fds.GetValueOrDefault(step.GetProperty("fd").GetString()!, -1);

    private ulong Address(JsonElement step) => _memory[step.GetProperty("mem").GetString()!].Address + step.GetProperty("off").GetUInt64();

    private Span<byte> Memory(JsonElement step)
    {
        (ulong _, ulong length) = _memory[step.GetProperty("mem").GetString()!];
        int count = step.GetProperty("len").GetInt32();
        if (step.GetProperty("off").GetUInt64() + (ulong)count > length) throw new InvalidOperationException("step outside its mapping");
        return new Span<byte>((void*)Address(step), count);
    }

    private static byte[] Hex(JsonElement step, string property) => Convert.FromHexString(step.GetProperty(property).GetString()!);

    private static ulong Number(JsonElement value) =>
        value.ValueKind == JsonValueKind.Number ? (ulong)value.GetInt64() : ulong.Parse(value.GetString()![2..], NumberStyles.HexNumber, CultureInfo.InvariantCulture);

    private static string Text(JsonElement ret) => ret.ValueKind == JsonValueKind.String ? ret.GetString()! : ret.GetInt64().ToString(CultureInfo.InvariantCulture);

    private static string Text(long result) => result is < 0 and >= -4095 ? ((Errno)(-result)).ToString() : result.ToString(CultureInfo.InvariantCulture);

    private static byte* Unsafe(Span<byte> buffer) => (byte*)System.Runtime.CompilerServices.Unsafe.AsPointer(ref MemoryMarshal.GetReference(buffer));
}

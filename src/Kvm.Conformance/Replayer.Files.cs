using System.Text.Json;
using Kvm.Client.Backends;
using Kvm.Core;
using static Kvm.Abi.Uapi;

namespace Kvm.Conformance;

/// <content>Operations on descriptors and on the process.</content>
public sealed unsafe partial class Replayer
{
    private const int SigUsr1 = 10;

    private bool PerformFile(string op, JsonElement step)
    {
        switch (op)
        {
            case "eventfd": Answer(step, _kernel.Eventfd(step.GetProperty("init").GetUInt32(), EFD_NONBLOCK)); return true;
            case "eventfd_read": ReadEventfd(step); return true;
            case "eventfd_write":
                ulong value = step.GetProperty("value").GetUInt64();
                Answer(step, _kernel.Write(Fd(step), (ulong)&value, 8));
                return true;
            case "read": Read(step); return true;
            case "write":
                var zeroes = new byte[step.GetProperty("len").GetInt32()];
                fixed (byte* pointer = zeroes) Answer(step, _kernel.Write(Fd(step), (ulong)pointer, (ulong)zeroes.Length));
                return true;
            case "lseek": Answer(step, _kernel.Lseek(Fd(step), step.GetProperty("len").GetInt64(), SEEK_SET)); return true;
            case "poll": Check(step, _kernel.Poll(Fd(step)) == step.GetProperty("revents").GetInt64(), $"revents {_kernel.Poll(Fd(step))}"); return true;
            case "mprotect":
                Answer(step, _kernel.Mprotect(Address(step), step.GetProperty("len").GetUInt64(), Protection(step.GetProperty("prot").GetString()!)));
                return true;
            case "touch": Touch(step); return true;
            case "create_vcpus_until_fail": CreateVcpusUntilFail(step); return true;
            default: return _kernel is ModelBackend model && PerformProcess(op, step, model);
        }
    }

    private void ReadEventfd(JsonElement step)
    {
        ulong value = 0;
        Answer(step, _kernel.Read(Fd(step), (ulong)&value, 8));
        if (step.TryGetProperty("value", out JsonElement expected)) Check(step, value == expected.GetUInt64(), $"counter {value}");
    }

    private void Read(JsonElement step)
    {
        var buffer = new byte[step.GetProperty("len").GetInt32()];
        fixed (byte* pointer = buffer) Answer(step, _kernel.Read(Fd(step), (ulong)pointer, (ulong)buffer.Length));
        if (!step.TryGetProperty("hex", out _)) return;
        var expected = new byte[buffer.Length];
        Hex(step, "hex").CopyTo(expected.AsSpan());
        var ignored = new bool[buffer.Length];
        Mask(step, ignored);
        Compare(step, expected, buffer, ignored);
    }

    /// <summary>An access that raises a signal would end this process: the model is asked instead, on a real kernel such a step is left out.</summary>
    private void Touch(JsonElement step)
    {
        string expected = step.GetProperty("signal").GetString()!;
        bool write = step.GetProperty("write").GetInt32() != 0;
        if (_kernel is ModelBackend model)
        {
            string signal = model.Process.Mm.SignalOf(Address(step), write) switch { 0 => "", Mm.SIGBUS => "SIGBUS", _ => "SIGSEGV" };
            Check(step, signal == expected, $"signal {signal}, expected {expected}");
            if (signal.Length > 0) return;
        }
        else if (expected.Length > 0)
        {
            return;
        }

        var at = (byte*)Address(step);
        byte value = Volatile.Read(ref *at);
        if (write) Volatile.Write(ref *at, value);
        if (_kernel is not ModelBackend) Check(step, true, "");
    }

    /// <summary>Creates vCPUs with ids from the first free one on until the kernel refuses.</summary>
    private void CreateVcpusUntilFail(JsonElement step)
    {
        int created = 0;
        var vcpus = new List<int>();
        long result;
        for (; ; )
        {
            result = _kernel.Ioctl(Fd(step), KVM_CREATE_VCPU, (ulong)created);
            if (result < 0) break;
            vcpus.Add((int)result);
            created++;
        }

        foreach (int vcpu in vcpus) _kernel.Close(vcpu);
        Check(step, created == step.GetProperty("created").GetInt32(), $"{created} created");
        Answer(step, result);
    }

    /// <summary>What only the model's process can be asked without harm to this one.</summary>
    private bool PerformProcess(string op, JsonElement step, ModelBackend model)
    {
        HostProcess process = model.Process;
        switch (op)
        {
            case "fork":
                using (var child = new Replayer(this, model.Fork())) child.Perform(step.GetProperty("steps"));
                return true;
            case "fdinfo": FdInfo(step, process); return true;
            case "nofile": process.Files.Limit = step.GetProperty("allow_new").GetInt32() == 0 ? process.Files.Open.Count : 1 << 16; return true;
            case "sigmask": process.Task.BlockedSignals = step.GetProperty("block").GetArrayLength() > 0 ? HostTask.SignalBit(SigUsr1) : 0; return true;
            case "raise": process.Task.Send(SigUsr1); return true;
            case "sigpending":
                bool pending = (process.Task.PendingSignals & HostTask.SignalBit(SigUsr1)) != 0;
                Check(step, pending == (step.GetProperty("SIGUSR1").GetInt32() != 0), $"SIGUSR1 pending: {pending}");
                return true;
            default: return false;
        }
    }

    private void FdInfo(JsonElement step, HostProcess process)
    {
        KvmFile? file = process.Files.Get(Fd(step));
        if (file is null)
        {
            Check(step, false, "no such descriptor");
            return;
        }

        string name = file.Name.StartsWith("/dev/", StringComparison.Ordinal) ? file.Name : "anon_inode:" + file.Name.Replace("anon_inode:", "");
        Check(step, name == step.GetProperty("link").GetString(), $"link {name}");
        Check(step, (file.Flags & O_ACCMODE) == step.GetProperty("accmode").GetInt32(), $"flags 0x{file.Flags:x}");
        file.Put();
    }
}

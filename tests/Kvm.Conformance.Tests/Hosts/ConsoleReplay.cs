using System.Collections.Concurrent;
using System.Globalization;
using System.Text.RegularExpressions;
using Kvm.Abi;
using Kvm.Arch.X86;
using Kvm.Arch.X86.Svm;
using Kvm.Arch.X86.Vmx;
using Kvm.Client;
using Kvm.Core;
using Kvm.Emulator;
using static Kvm.Abi.Uapi;

namespace Kvm.Conformance.Tests.Hosts;

/// <summary>One thing that the console showed, and what the model gives.</summary>
/// <param name="Heading">The part of the log.</param>
/// <param name="Command">The command before it, or the heading.</param>
internal sealed record ConsoleCheck(string Heading, string Command, string Recorded, string Model)
{
    public bool Same => Recorded == Model;
}

/// <summary>
/// Replays a console log on the model: insmod, rmmod, holdvm (opens /dev/kvm, creates a VM and vCPUs), reads and writes of MSRs, lsmod, parameters, kernel messages.
/// Every line is compared: exit codes, error texts, messages in order, users of modules, descriptors.
/// </summary>
internal sealed partial class ConsoleReplay
{
    private static readonly ConcurrentDictionary<string, Lazy<IReadOnlyList<ConsoleCheck>>> replays = new();
    private static readonly string[] notOurs = ["msr", "setvmxe", "irqbypass"];

    private readonly KernelHost kernel;
    private readonly List<ConsoleCheck> checks = [];
    private readonly List<string> messages = [];
    private string command = "boot", heading = "";
    private int logged, vmxeSetOn = -1;
    private HostProcess? holder;
    private int holderVm;

    private ConsoleReplay(KernelHost kernel) => this.kernel = kernel;

    public static IReadOnlyList<ConsoleCheck> Of(HostCase host) =>
        replays.GetOrAdd(host.Log, static (_, h) => new Lazy<IReadOnlyList<ConsoleCheck>>(() => Run(h)), host).Value;

    private static List<ConsoleCheck> Run(HostCase host)
    {
        CpuModel model = host.Model();
        using KernelHost kernel = KernelHost.Create(
            new MachineOptions { Processors = [.. Enumerable.Range(0, 2).Select(i => new ProcessorOptions(model) { Bios = host.Firmware(i) })] }, new HostOptions { CpuCount = 2 });
        if (host.VmxonFaults is { } cpu)
            kernel.Machine.Processors[cpu].InstructionFaults.Add("VMXON", InstructionResult.Faulted(Fault.Gp()));
        var replay = new ConsoleReplay(kernel);
        string[] lines = File.ReadAllLines(Path.Combine(AppContext.BaseDirectory, "Data", "hosts", host.Log + ".log"));
        if (!lines.Contains("$ insmod /lib/kvm/kvm.ko"))
            kernel.Host.Modules.Insert(kernel.Kvm).Should().Be((KvmResult)0);
        replay.Replay(lines);
        return replay.checks;
    }

    private void Replay(string[] lines)
    {
        logged = kernel.Host.Log.Records.Count;
        for (int i = 0; i < lines.Length; i++)
        {
            string line = lines[i];
            if (line.StartsWith("## ", StringComparison.Ordinal))
            {
                EndOfMessages();
                command = heading = line[3..];
                if (heading.StartsWith("EFER / VM_HSAVE_PA", StringComparison.Ordinal))
                {
                    // Not on the console: the module is loaded anew.
                    Remove(VendorName);
                    Insert(VendorName, "");
                }
            }
            else if (line.StartsWith("$ ", StringComparison.Ordinal))
            {
                int end = Array.FindIndex(lines, i, static l => l.StartsWith("  -> rc ", StringComparison.Ordinal));
                EndOfMessages();
                command = line[2..];
                Command(lines[(i + 1)..end], int.Parse(lines[end][8..], CultureInfo.InvariantCulture));
                i = end;
            }
            else if (line.StartsWith("    dmesg: ", StringComparison.Ordinal) || line.StartsWith("    ... ", StringComparison.Ordinal))
            {
                messages.Add(line[4..]);
            }
            else if (line.StartsWith("Module  ", StringComparison.Ordinal))
            {
                int n = lines[(i + 1)..].TakeWhile(static l => Module().IsMatch(l)).Count();
                ListModules(lines[(i + 1)..(i + 1 + n)]);
                i += n;
            }
            else
            {
                Output(line);
            }
        }

        EndOfMessages();
        EndOfHolder();
    }

    private void Command(string[] output, int rc)
    {
        string[] words = command.Split(' ');
        switch (words[0])
        {
            case "insmod" when words[1].EndsWith("setvmxe.ko", StringComparison.Ordinal):
                vmxeSetOn = words[2][^1] - '0';
                OnCpu(vmxeSetOn, static cpu => cpu.Cr4SetBits(X86Const.X86_CR4_VMXE));
                messages.Add("not ours");
                break;
            case "rmmod" when words[1] == "setvmxe":
                OnCpu(vmxeSetOn, static cpu => cpu.Cr4ClearBits(X86Const.X86_CR4_VMXE));
                break;
            case "insmod" or "rmmod" when words[1].Contains("irqbypass", StringComparison.Ordinal):
                break;
            case "insmod":
                string module = Path.GetFileNameWithoutExtension(words[1]).Replace('-', '_');
                if (rc == 0)
                    Remove(module); // not on the console
                KvmResult r = Insert(module, string.Join(' ', words[2..]));
                if (r.IsError)
                    Insert(module, string.Join(' ', words[2..])).Should().Be(r); // insmod has two system calls for it
                Check(string.Join('\n', output), r.IsOk ? "" : $"insmod: can't insert '{words[1]}': {InsmodText(r.Errno)}");
                Check($"rc {rc}", $"rc {(int)r.Errno}");
                break;
            case "rmmod":
                if (rc == 0 && words[1] == "kvm")
                    Remove(VendorName); // not on the console
                KvmResult removed = kernel.Host.Modules.Remove(words[1]);
                Check(string.Join('\n', output), removed.IsOk ? "" : $"rmmod: can't unload module '{words[1]}': {Text(removed.Errno)}");
                Check($"rc {rc}", $"rc {(removed.IsOk ? 0 : 1)}");
                break;
            case "holdvm":
                foreach (string line in output)
                    HoldVm(line);
                EndOfHolder();
                break;
            case "msr":
                int cpu = int.Parse(words[2], CultureInfo.InvariantCulture);
                bool ok = false;
                OnCpu(cpu, c => ok = c.WrmsrSafe(Number(words[3]), NumberLong(words[4])));
                Check(string.Join('\n', output), ok ? $"msr {words[3]} cpu{cpu} <- {words[4]} ok" : $"msr {words[3]} cpu{cpu} write error Input/output error");
                break;
            default:
                throw new NotSupportedException(command);
        }
    }

    private void Output(string line)
    {
        if (line.StartsWith("holdvm: ", StringComparison.Ordinal))
            HoldVm(line);
        else if (line == "after close:")
            EndOfHolder();
        else if (MsrRead().Match(line) is { Success: true } read)
            ReadMsr(line, read);
        else if (MsrWrite().Match(line) is { Success: true } write)
            WriteMsr(line, write);
        else if (ParameterWrite().Match(line) is { Success: true } parameter)
            WriteParameter(line, parameter);
        else if (line.StartsWith(" a", StringComparison.Ordinal))
            Check(line.Trim(), string.Join(' ', Vendor!.Parameters.All.OrderBy(static p => p.Name, StringComparer.Ordinal).Select(static p => $"{p.Name}={p.Text}")));
        else if (line.StartsWith("ls: /dev/kvm", StringComparison.Ordinal))
            Check(line, kernel.Host.Devices.Find("/dev/kvm") is null ? "ls: /dev/kvm: No such file or directory" : "a device");
        else if (line.StartsWith("crw", StringComparison.Ordinal))
            Check(string.Join(' ', line.Split(' ', StringSplitOptions.RemoveEmptyEntries)[..6]), kernel.Host.Devices.Find("/dev/kvm") is { } d ? $"{Mode(d.Mode)} 1 0 0 {d.Major}, {d.Minor}" : "no device");
        else if (line is "10:232" or "MAJOR=10" or "MINOR=232" or "DEVNAME=kvm")
            Check(line, kernel.Host.Devices.Find("/dev/kvm") is { } d ? line.Length == 6 ? $"{d.Major}:{d.Minor}" : line[..(line.IndexOf('=') + 1)] + (line[1] == 'A' ? $"{d.Major}" : line[1] == 'I' ? $"{d.Minor}" : "kvm") : "");
        else if (line is "svm" or "no svm/vmx flag")
            Check(line, kernel.X86.BootCpuHas(X86Feature.VMX) ? "vmx" : kernel.X86.BootCpuHas(X86Feature.SVM) ? "svm" : "no svm/vmx flag");
        else if (line is "0" or "2" or "4" && heading == "cpuinfo flag:")
            Check(line, $"{2 * Enumerable.Range(0, 2).Count(HasVmx)}");
        else if (line.StartsWith("[ ", StringComparison.Ordinal))
            Check(line[(line.IndexOf(']', StringComparison.Ordinal) + 2)..], kernel.Host.Log.Records.FirstOrDefault(static r => r.Text.Contains("VMX (", StringComparison.Ordinal)).Text ?? "");
        else if (heading == "kvm threads:" && line.Contains("[kvm-", StringComparison.Ordinal))
            Check(line[line.IndexOf('[', StringComparison.Ordinal)..], "");
        else if (!(line.Length == 0 || line.StartsWith("model name", StringComparison.Ordinal) || line.StartsWith("vmx flags", StringComparison.Ordinal) || line.EndsWith(':')
            || line.EndsWith("Permission denied", StringComparison.Ordinal) || line.EndsWith("grep -i kvm", StringComparison.Ordinal)))
            throw new NotSupportedException(line);
    }

    private void ReadMsr(string line, Match read)
    {
        ulong value = 0;
        bool ok = false;
        OnCpu(int.Parse(read.Groups[2].Value, CultureInfo.InvariantCulture), c => ok = c.RdmsrSafe(Number(read.Groups[1].Value), out value));
        // VM_HSAVE_PA: the address of a page.
        string shown = read.Groups[1].Value == "0xc0010117" && value != 0 && !line.EndsWith("= 0x0", StringComparison.Ordinal) ? line[(line.IndexOf("= ", StringComparison.Ordinal) + 2)..] : $"0x{value:x}";
        Check(line, $"msr {read.Groups[1].Value} cpu{read.Groups[2].Value} {(ok ? $"= {shown}" : "read error Input/output error")}");
    }

    private void WriteMsr(string line, Match write)
    {
        bool ok = false;
        OnCpu(int.Parse(write.Groups[2].Value, CultureInfo.InvariantCulture), c => ok = c.WrmsrSafe(Number(write.Groups[1].Value), NumberLong(write.Groups[3].Value)));
        Check(line, $"msr {write.Groups[1].Value} cpu{write.Groups[2].Value} <- {write.Groups[3].Value} {(ok ? "ok" : "error")}");
    }

    private void WriteParameter(string line, Match write)
    {
        string module = write.Groups[1].Value, name = write.Groups[2].Value;
        ModuleParameters parameters = kernel.Host.Modules.Find(module)!.Parameters;
        string before = parameters.Find(name)!.Text;
        KvmResult r = parameters.Write(name, write.Groups[4].Value);
        string error = r.Errno == Errno.EINVAL ? " sh: write error: Invalid argument" : "";
        Check(line, $"/sys/module/{module}/parameters/{name}: '{before}' write '{write.Groups[4].Value}' rc {(r.IsOk ? 0 : 1)} -> '{parameters.Find(name)!.Text}'{error}");
    }

    /// <summary>Names, users and users' names as lsmod shows them; sizes are those of a build.</summary>
    private void ListModules(string[] lines)
    {
        List<string> recorded = [];
        foreach (string[] words in lines.Select(static l => l.Split(' ', StringSplitOptions.RemoveEmptyEntries)).Where(static w => !notOurs.Contains(w[0])))
            recorded.Add($"{words[0]} {words[2]}{(words.Length > 3 ? " " + words[3] : "")}");
        if (recorded.All(static m => m.EndsWith(" 0", StringComparison.Ordinal) || m.StartsWith("kvm ", StringComparison.Ordinal)))
            EndOfHolder();
        IReadOnlyList<HostModule> loaded = kernel.Host.Modules.Loaded;
        Check(string.Join(", ", recorded), string.Join(", ", loaded.Reverse().Select(m => $"{m.Name} {m.RefCount}{string.Concat(loaded.Where(u => u.DependsOn.Contains(m.Name)).Select(static u => " " + u.Name))}")));
    }

    /// <summary>One line of a program that opens /dev/kvm, creates a VM, then vCPUs.</summary>
    private void HoldVm(string line)
    {
        if (line.StartsWith("holdvm: open", StringComparison.Ordinal))
            EndOfHolder();
        holder ??= kernel.Host.CreateProcess("holdvm");
        using Host.KernelScope _ = kernel.Host.Enter(holder.Task);
        if (holder.Files.Open.Count == 0)
        {
            // standard input, output and error
            for (int i = 0; i < 3; i++)
                holder.Eventfd(0, 0);
        }

        string what = line[8..line.IndexOf(" = ", StringComparison.Ordinal)];
        KvmResult r = what switch
        {
            "open /dev/kvm" => holder.Open("/dev/kvm"),
            "KVM_CREATE_VM" => holder.Ioctl(3, KVM_CREATE_VM),
            _ => holder.Ioctl(holderVm, KVM_CREATE_VCPU, NumberLong(what["KVM_CREATE_VCPU ".Length..])),
        };
        if (what == "KVM_CREATE_VM")
            holderVm = r.Value;
        Check(line.TrimEnd(), $"holdvm: {what} = {(r.IsOk ? r.Value : $"-1 {r.Errno}")}");
    }

    private void EndOfHolder()
    {
        holder?.Exit();
        holder = null;
    }

    /// <summary>The kernel's messages since the last command are those of the console, in order.</summary>
    private void EndOfMessages()
    {
        IReadOnlyList<LogRecord> records = kernel.Host.Log.Records;
        List<string> model = [.. records.Skip(logged).Select(static r => "dmesg: " + r.Text)];
        logged = records.Count;
        if (messages is not ["not ours", ..] && (messages.Count != 0 || model.Count != 0))
        {
            // Of a missing kvm.ko the console shows three symbols of some hundred, the model one message for all.
            if (messages.Exists(static m => m.Contains("Unknown symbol", StringComparison.Ordinal)))
                Check(string.Join('\n', messages), string.Join('\n', model));
            else
                CheckEach(messages, model);
        }

        messages.Clear();
    }

    private void CheckEach(List<string> recorded, List<string> model)
    {
        int next = 0;
        foreach (string message in recorded)
        {
            int at = model.IndexOf(message, next);
            for (; at > next; next++)
                Check("", model[next]);
            Check(message, at < 0 ? "" : message);
            next = at < 0 ? next : at + 1;
        }

        for (; next < model.Count; next++)
            Check("", model[next]);
    }

    private void Check(string recorded, string model) => checks.Add(new ConsoleCheck(heading, command, recorded, model));

    private HostModule? Vendor => kernel.Host.Modules.Find("kvm_intel") ?? kernel.Host.Modules.Find("kvm_amd");

    private string VendorName => Vendor?.Name ?? (kernel.Machine.Processors[0].Model.Vendor == CpuVendor.Intel ? "kvm_intel" : "kvm_amd");

    private KvmResult Insert(string name, string parameters)
    {
        // The recorded kernel has nested virtualization on by default, the model's kvm_intel off (D-VMX-1).
        if (name == "kvm_intel" && !parameters.Contains("nested=", StringComparison.Ordinal))
            parameters += " nested=1";
        return kernel.Host.Modules.Insert(name switch { "kvm" => kernel.Kvm, "kvm_intel" => new KvmIntel(kernel.Arch), _ => new KvmAmd(kernel.Arch) }, parameters);
    }

    private void Remove(string name)
    {
        if (kernel.Host.Modules.IsLoaded(name))
            kernel.Host.Modules.Remove(name).Should().Be((KvmResult)0);
    }

    private bool HasVmx(int cpu)
    {
        bool has = false;
        OnCpu(cpu, c => has = c.CpuData.Has(X86Feature.VMX));
        return has;
    }

    private void OnCpu(int cpu, Action<HostX86Cpu> action) => kernel.Host.SmpCallFunctionSingle(cpu, _ => action(kernel.X86.ThisCpu)).Should().Be((KvmResult)0);

    private static string Mode(int mode) => "c" + string.Concat(Enumerable.Range(0, 9).Select(i => (mode >> 8 - i & 1) != 0 ? "rwx"[i % 3] : '-'));

    private static string InsmodText(Errno errno) => errno == Errno.ENOENT ? "unknown symbol in module, or unknown parameter" : Text(errno);

    private static string Text(Errno errno) => errno switch
    {
        Errno.EOPNOTSUPP => "Operation not supported",
        Errno.EEXIST => "File exists",
        Errno.EINVAL => "Invalid argument",
        Errno.EAGAIN => "Resource temporarily unavailable",
        _ => errno.ToString(),
    };

    private static uint Number(string text) => (uint)NumberLong(text);

    private static ulong NumberLong(string text) => text.StartsWith("0x", StringComparison.Ordinal) ? ulong.Parse(text[2..], NumberStyles.HexNumber, CultureInfo.InvariantCulture) : ulong.Parse(text, CultureInfo.InvariantCulture);

    [GeneratedRegex(@"^\w+ +\d+ +\d+( |$)")]
    private static partial Regex Module();

    [GeneratedRegex(@"^msr (0x\w+) cpu(\d) (?:= |read)")]
    private static partial Regex MsrRead();

    [GeneratedRegex(@"^msr (0x\w+) cpu(\d) <- (0x\w+) ok$")]
    private static partial Regex MsrWrite();

    [GeneratedRegex(@"^/sys/module/(\w+)/parameters/(\w+): '(.*)' write '(.*)' rc \d -> '")]
    private static partial Regex ParameterWrite();
}

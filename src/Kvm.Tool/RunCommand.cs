using System.CommandLine;
using System.Globalization;
using System.IO.Pipelines;
using System.Net;
using Kvm.Client;
using Kvm.Vmm;
using Kvm.Vmm.Boot;
using Kvm.Vmm.Statistics;

namespace Kvm.Tool;

/// <summary><c>kvm run</c>: boots a Linux kernel, a multiboot image or firmware, its first serial port on standard output.</summary>
internal static class RunCommand
{
    public const string DefaultCommandLine = "console=ttyS0 earlyprintk=ttyS0,115200 nokaslr panic=-1";

    /// <summary>More than that many threads, taking turns, make no progress to speak of.</summary>
    private const int MostProcessors = 64;

    public static Command Build() => Build("run", "Boot a Linux kernel or firmware; its serial console is standard input and output (on a terminal: Ctrl-A x leaves, Ctrl-A h helps)", stat: false);

    /// <summary><c>kvm stat</c>: the same, and afterwards what KVM did.</summary>
    public static Command BuildStat() => Build("stat", "Run a guest as kvm run does, then tell its VM exits by reason and time, its exits to userspace and KVM's counters", stat: true);

    /// <summary><c>kvm debug</c>: the same, with gdb at the controls.</summary>
    public static Command BuildDebug() => Build("debug", "Run a guest as kvm run does, under gdb: it waits for a connection at its first instruction", stat: false, debug: true);

    private static Command Build(string name, string description, bool stat, bool debug = false)
    {
        Option<string> cpu = Options.Cpu(), backend = Options.Backend();
        Option<string[]> parameter = Options.Parameter();
        Option<string> engine = Options.Engine();
        Option<MemorySize> memory = Options.Memory("512M");
        Option<int> smp = Options.Count("--smp", "The guest's processors", standard: 1, most: MostProcessors);
        var kernel = new Option<FileInfo?>("--kernel") { Description = "A Linux bzImage (samples/linux/fetch-kernel.sh fetches one) or a multiboot image", HelpName = "file" };
        var initrd = new Option<FileInfo?>("--initrd") { Description = "An initial RAM disk", HelpName = "file" };
        var append = new Option<string?>("--append") { Description = $"The kernel's command line [default for Linux: {DefaultCommandLine}]", HelpName = "text" };
        Option<string> entry = new Option<string>("--entry") { Description = "Which of a bzImage's entry points: 64-, 32- or 16-bit code", DefaultValueFactory = _ => "64" }.OneOf("64", "32", "16");
        Option<double> timeout = Options.Timeout();
        Option<string> irqchip = new Option<string>("--irqchip")
        {
            Description = "Whose interrupt controllers and timer: the kernel's (kernel), this program's (user), the kernel's where it has some (auto)",
            DefaultValueFactory = _ => "auto",
        }.OneOf("auto", "kernel", "user");
        var hyperv = new Option<bool>("--hyperv") { Description = "Show the guest Hyper-V instead of KVM" };
        var stats = new Option<bool>("--stats") { Description = "Afterwards say how long it took, and count the exits" };
        var trace = new Option<FileInfo?>("--trace") { Description = "Write KVM's tracepoint events there, in the layout of ftrace's trace file", HelpName = "file" };
        var save = new Option<FileInfo?>("--save") { Description = "When the run ends (by --timeout, Ctrl-C or by itself), save the machine there", HelpName = "file" };
        var restore = new Option<FileInfo?>("--restore") { Description = "Go on with a machine that --save has saved", HelpName = "file" };
        Option<IPEndPoint> listen = Options.Listen();
        var devices = new DeviceOptions();
        var firmware = new FirmwareOptions();

        var command = new Command(name, description) { kernel, cpu, backend, engine, parameter, smp, memory, initrd, append, entry, irqchip, hyperv, timeout, trace, save, restore };
        if (!stat) command.Add(stats);
        if (debug) command.Add(listen);
        devices.AddTo(command);
        firmware.AddTo(command);
        command.Validators.Add(result =>
        {
            if (result.GetResult(kernel) is null && result.GetResult(firmware.Image) is null && result.GetResult(restore) is null)
                result.AddError("nothing to run: give a kernel with --kernel, firmware with --firmware, or a saved machine with --restore");
            if (result.GetResult(restore) is not null && (result.GetResult(kernel) is not null || result.GetResult(firmware.Image) is not null))
                result.AddError("--restore: the saved machine has its kernel already; leave out --kernel and --firmware");
        });
        command.Validators.Add(result =>
        {
            if (result.GetValue(hyperv) && result.GetValue(irqchip) == "user") result.AddError("--hyperv: its timers need the kernel's interrupt controllers; leave out --irqchip user");
        });
        command.Validators.Add(result =>
        {
            if (result.GetValue(smp) > 1 && result.GetValue(irqchip) == "user") result.AddError("--smp: more than one processor needs the kernel's interrupt controllers; leave out --irqchip user");
        });
        command.Validators.Add(result =>
        {
            if ((result.GetResult(save) is not null || result.GetResult(restore) is not null) && devices.IsAny(result))
                result.AddError("--save and --restore: what disks, network cards and other virtio devices are about is not saved; leave them out");
        });
        command.SetAction(result =>
        {
            FileInfo? kernelFile = result.GetValue(kernel);
            byte[] image = kernelFile is null ? [] : Inputs.ReadFile(kernelFile, "kernel", "samples/linux/fetch-kernel.sh fetches one");
            byte[] ramdisk = result.GetValue(initrd) is { } file ? Inputs.ReadFile(file, "initrd", "give an existing file with --initrd") : [];
            string? line = result.GetValue(append);
            using FirmwareGuest? machine = firmware.Read(result);
            using SavedMachine? saved = result.GetValue(restore) is { } from ? SavedMachine.Open(from) : null;
            Action<Pc>? boot = saved is not null ? null
                : machine is not null ? machine.Loader(kernelFile, image, line ?? DefaultCommandLine, ramdisk)
                : KernelLoader(kernelFile!, image, (LinuxEntry)int.Parse(result.GetRequiredValue(entry), CultureInfo.InvariantCulture), line, result.GetValue(initrd), ramdisk);
            int processors = saved?.Processors ?? result.GetValue(smp);
            IKvmBackend chosen = Backends.Create(result.GetRequiredValue(backend), result.GetRequiredValue(cpu), processors + 1, parameters: result.GetValue(parameter), engine: result.GetValue(engine));
            FileInfo? events = result.GetValue(trace);
            if (chosen == KvmBackend.Native && (stat || events is not null))
                throw new ToolException(ExitCode.Usage, $"{(stat ? "kvm stat" : "--trace")} sees the events of the model only; a real kernel's are below /sys/kernel/tracing");
            using EventLog? log = events is null ? null : new EventLog(Inputs.CreateFile(events, "trace"));
            using GuestDevices hardware = devices.Read(result);
            var options = new PcOptions
            {
                Processors = processors,
                Memory = result.GetValue(memory).Bytes,
                Irqchip = result.GetValue(irqchip) switch { "kernel" => true, "user" => false, _ => null },
                Hyperv = result.GetValue(hyperv),
                FirmwareOutput = machine?.DebugOutput,
                PhysicalBits = machine is null ? null : FirmwareGuest.PhysicalBits,
            };
            void Load(KvmSystem kvm, Pc pc)
            {
                boot?.Invoke(pc);
                saved?.Restore(kvm, pc);
            }

            return Run(chosen, (kernelFile ?? result.GetValue(firmware.Image) ?? result.GetValue(restore))!.Name, Load, hardware,
                saved?.Make(options) ?? options, result.GetValue(timeout), stat || result.GetValue(stats), stat, debug ? result.GetValue(listen) : null, result.GetValue(save));
        });
        return command;
    }

    /// <summary>Runs a step of loading that file; what is wrong with it becomes one line.</summary>
    internal static T Bootable<T>(FileInfo file, Func<T> step)
    {
        try
        {
            return step();
        }
        catch (BootException e)
        {
            throw new ToolException(ExitCode.BadFile, $"cannot boot {file}: {e.Message}");
        }
    }

    /// <summary>Looks at the image before anything is built; what is returned loads it.</summary>
    private static Action<Pc> KernelLoader(FileInfo file, byte[] image, LinuxEntry entry, string? commandLine, FileInfo? initrdFile, byte[] initrd)
    {
        bool multiboot = MultibootLoader.IsMultiboot(image);
        bool pvh = !multiboot && PvhLoader.IsPvh(image);
        if (!multiboot) CheckInitrd(initrdFile, initrd);
        BzImage? linux = multiboot || pvh ? null : Bootable(file, () => BzImage.Parse(image));
        return pc => Bootable(file, () =>
        {
            if (pvh) pc.LoadPvh(image, commandLine ?? DefaultCommandLine, initrd);
            else if (linux is null) pc.LoadMultiboot(image, $"{file.Name} {commandLine}".TrimEnd(), initrd);
            else pc.LoadLinux(linux, entry, commandLine ?? DefaultCommandLine, initrd);
            return true;
        });
    }

    private static void CheckInitrd(FileInfo? file, byte[] initrd)
    {
        if (file is not null && InitrdImage.FindFault(initrd) is { } fault)
            throw new ToolException(ExitCode.BadFile, $"cannot use the initrd {file}: {fault}; samples/linux/build-initramfs.sh builds one");
    }

    /// <summary>Shows the guest to <c>kvm top</c>; where that can't be, says so and runs it all the same.</summary>
    private static StatisticsServer? Publish(Pc pc, string name, string backend)
    {
        try
        {
            return new StatisticsServer(pc, name, backend);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or KvmException)
        {
            Console.Error.WriteLine($"kvm: kvm top will not show this guest: {e.Message}");
            return null;
        }
    }

    private static int Run(IKvmBackend backend, string name, Action<KvmSystem, Pc> load, GuestDevices devices, PcOptions options, double timeout, bool stats, bool times,
        IPEndPoint? gdb, FileInfo? save)
    {
        using var stdout = new StandardOutput();
        using var bios = new FirstWords();
        PipeWriter output = PipeWriter.Create(stdout, new StreamPipeWriterOptions(leaveOpen: true));
        using KvmSystem kvm = Backends.Open(backend);
        using GuestConsole console = GuestConsole.Open();
        using var pc = new Pc(kvm, options with { Output = output, Input = console.Input, DebugOutput = PipeWriter.Create(bios) });
        devices.AddTo(pc);
        load(kvm, pc);
        console.Connect(pc);
        ExitStatistics? statistics = stats ? new ExitStatistics(pc) : null;
        using VmExitTimes? vmExits = times ? new VmExitTimes() : null;
        using StatisticsServer? published = Publish(pc, name, backend.Name);
        using DebugSession? session = gdb is null ? null : new DebugSession(pc, gdb);
        using var interrupt = new CancelKey(pc.Stop);
        long start = TimeProvider.System.GetTimestamp();
        GuestStop stop = pc.Run(timeout > 0 ? TimeSpan.FromSeconds(timeout) : null);
        TimeSpan elapsed = TimeProvider.System.GetElapsedTime(start);
        console.Dispose();
        if (save is not null) SavedMachine.Save(save, kvm, pc);
        // Setup code that gives up says so through the BIOS; a kernel that prints to the serial port has said it all there.
        if (stdout.Written == 0 && bios.Text.Length > 0) Console.Error.WriteLine($"kvm: the guest printed through its BIOS: {bios.Text}");
        Console.Error.WriteLine($"kvm: {backend.Name}: {stop}");
        vmExits?.Write(Console.Error);
        statistics?.Write(Console.Error, elapsed);
        return GuestExit.Code(stop);
    }
}

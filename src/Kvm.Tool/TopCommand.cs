using System.CommandLine;
using System.Globalization;
using Kvm.Vmm.Statistics;
using Spectre.Console;
using Spectre.Console.Rendering;

namespace Kvm.Tool;

/// <summary><c>kvm top</c>: the guests of this user that run now, and what KVM does for them, a second at a time.</summary>
internal static class TopCommand
{
    public static Command Build()
    {
        var pid = new Argument<int?>("pid") { Description = "Only this process's guest, with all its counters", Arity = ArgumentArity.ZeroOrOne };
        Option<int> interval = Options.Count("--interval", "Seconds between two looks", 1, 3600);
        var once = new Option<bool>("--once") { Description = "Look once, and print; so it does too where the output is not a terminal" };
        var command = new Command("top", "Show the guests that kvm run has running, and their exits a second") { pid, interval, once };
        command.SetAction(result =>
        {
            var wait = TimeSpan.FromSeconds(result.GetValue(interval));
            int? only = result.GetValue(pid);
            return result.GetValue(once) || Console.IsOutputRedirected ? Once(only, wait) : Live(only, wait);
        });
        return command;
    }

    /// <summary>Two looks, and what happened between them.</summary>
    private static int Once(int? pid, TimeSpan wait)
    {
        IReadOnlyList<GuestSnapshot> before = Guests(pid);
        if (before.Count == 0) return Nobody(pid);
        Thread.Sleep(wait);
        AnsiConsole.Write(Show(before, Guests(pid), pid));
        return ExitCode.Success;
    }

    private static int Live(int? pid, TimeSpan wait)
    {
        IReadOnlyList<GuestSnapshot> before = Guests(pid);
        if (before.Count == 0 && pid is not null) return Nobody(pid);
        AnsiConsole.Live(new Text("…")).AutoClear(true).Start(live =>
        {
            bool quit = false;
            while (!quit)
            {
                IReadOnlyList<GuestSnapshot> now = Guests(pid);
                live.UpdateTarget(new Rows(Show(before, now, pid), new Text("q quits")));
                before = now;
                quit = KeyPressed(wait);
            }
        });
        return ExitCode.Success;
    }

    /// <summary>Waits, and says whether the user wants to leave.</summary>
    private static bool KeyPressed(TimeSpan wait)
    {
        long start = TimeProvider.System.GetTimestamp();
        while (TimeProvider.System.GetElapsedTime(start) < wait)
        {
            if (!Console.IsInputRedirected && Console.KeyAvailable) return Console.ReadKey(intercept: true).KeyChar is 'q' or 'Q';
            Thread.Sleep(50);
        }

        return false;
    }

    private static int Nobody(int? pid)
    {
        Console.Error.WriteLine(pid is null ? $"kvm: no guest of yours runs (none has a socket in {GuestDirectory.Path})" : $"kvm: process {pid} has no guest of yours");
        return ExitCode.BadFile;
    }

    private static IReadOnlyList<GuestSnapshot> Guests(int? pid) => [.. GuestDirectory.Read().Where(g => pid is null || g.Pid == pid)];

    private static IRenderable Show(IReadOnlyList<GuestSnapshot> before, IReadOnlyList<GuestSnapshot> now, int? pid)
    {
        (GuestSnapshot Old, GuestSnapshot New)[] both = [.. now.Select(n => (Old: before.FirstOrDefault(b => (b.Pid, b.Name) == (n.Pid, n.Name)) ?? n, New: n))];
        var overview = Overview(both);
        return pid is null ? overview : new Rows([overview, .. both.Select(b => Counters(b.Old, b.New))]);
    }

    private static Table Overview((GuestSnapshot Old, GuestSnapshot New)[] guests)
    {
        Table table = New("pid", "guest", "on", "vCPUs", "memory", "exits/s", "to user/s", "interrupts/s", "halted");
        foreach ((GuestSnapshot old, GuestSnapshot @new) in guests)
        {
            double seconds = Seconds(old, @new);
            double halted = @new.Vcpus.Count == 0 ? 0 : 1e-9 * Change(old, @new, v => Value(v, "halt_wait_ns")) / (seconds * @new.Vcpus.Count);
            Row(table, @new.Pid, @new.Name, @new.Backend, @new.Vcpus.Count, $"{@new.Memory >> 20} MiB", Change(old, @new, v => Value(v, "exits")) / seconds,
                Change(old, @new, v => v.UserExits.Values.Sum()) / seconds, Change(old, @new, v => Value(v, "irq_injections")) / seconds, $"{(int)(100 * Math.Clamp(halted, 0, 1))} %");
        }

        return table;
    }

    /// <summary>Every counter that is not 0, of the VM and of all vCPUs together.</summary>
    private static Table Counters(GuestSnapshot old, GuestSnapshot @new)
    {
        Table table = New("counter", "total", "a second");
        double seconds = Seconds(old, @new);
        foreach ((string name, ulong value) in @new.Vm.Where(c => c.Value != 0)) Row(table, name, value, (value - old.Vm.GetValueOrDefault(name)) / seconds);
        foreach (string name in @new.Vcpus.SelectMany(v => v.Kvm.Keys).Distinct())
        {
            long total = @new.Vcpus.Sum(v => Value(v, name));
            if (total != 0) Row(table, name, total, Change(old, @new, v => Value(v, name)) / seconds);
        }

        foreach (string name in @new.Vcpus.SelectMany(v => v.UserExits.Keys).Distinct().Order(StringComparer.Ordinal))
            Row(table, name, @new.Vcpus.Sum(v => v.UserExits.GetValueOrDefault(name)), Change(old, @new, v => v.UserExits.GetValueOrDefault(name)) / seconds);
        return table;
    }

    private static Table New(params string[] columns)
    {
        var table = new Table { Border = TableBorder.None };
        foreach (string column in columns) table.AddColumn(new TableColumn(column).PadRight(3).NoWrap());
        return table;
    }

    /// <summary>Rates are shown as whole numbers.</summary>
    private static void Row(Table table, params object[] cells) =>
        table.AddRow([.. cells.Select(c => new Text(Convert.ToString(c is double rate ? Math.Round(rate) : c, CultureInfo.InvariantCulture)!))]);

    private static double Seconds(GuestSnapshot old, GuestSnapshot @new) => Math.Max(1e-9 * (@new.Nanoseconds - old.Nanoseconds), 1e-9);

    private static double Change(GuestSnapshot old, GuestSnapshot @new, Func<VcpuSnapshot, long> value) => @new.Vcpus.Sum(value) - old.Vcpus.Sum(value);

    private static long Value(VcpuSnapshot vcpu, string name) => (long)vcpu.Kvm.GetValueOrDefault(name);
}

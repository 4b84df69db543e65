using System.CommandLine;
using System.Diagnostics;
using Kvm.Client;
using Kvm.Conformance;

namespace Kvm.Tool;

/// <summary><c>kvm conformance</c>: replays recordings of real kernels and compares the answers.</summary>
internal static class ConformanceCommand
{
    private static readonly Argument<FileInfo[]> s_files = new("file")
    {
        Description = "Recordings: a header line, then a scenario a line (.jsonl, .jsonl.gz)",
        Arity = ArgumentArity.OneOrMore,
    };

    private static readonly Option<string> s_backend = Options.Backend();

    private static readonly Option<string?> s_cpu = new("--cpu")
    {
        Description = "The model's machine: intel or amd, each like the recorded one, or a processor that kvm doctor lists; without it, the recording's vendor",
        HelpName = "model",
    };

    private static readonly Option<string?> s_only = new("--only") { Description = "Scenarios whose names contain this", HelpName = "text" };

    private static readonly Option<FileInfo?> s_known = new("--known")
    {
        Description = "Known failures: recording, scenario, class, reason, with tabs between them; without it, those that this program knows of",
        HelpName = "file",
    };

    private static readonly Option<bool> s_all = new("--all") { Description = "List every scenario, and answers that are not portable" };

    public static Command Build()
    {
        var command = new Command("conformance", "Replay recordings of real kernels and compare every answer") { s_files, s_backend, s_cpu, s_only, s_known, s_all };
        command.SetAction(Run);
        return command;
    }

    private static int Run(ParseResult parsed)
    {
        IReadOnlyList<KnownFailure> known = parsed.GetValue(s_known) is { } list ? Load(list, static path => KnownFailure.Read(new StringReader(File.ReadAllText(path)))) : KnownFailure.All;
        List<(FileInfo File, Recording Recording)> recordings = [.. parsed.GetValue(s_files)!.Select(static file => (file, Load(file, Recording.Load)))];
        bool agree = true;
        foreach ((FileInfo file, Recording recording) in recordings)
            agree &= Replay(parsed, file.Name, recording, [.. known.Where(k => k.Recording == recording.Key)]);
        return agree ? ExitCode.Success : ExitCode.Differs;
    }

    private static bool Replay(ParseResult parsed, string file, Recording recording, KnownFailure[] known)
    {
        string backend = parsed.GetValue(s_backend)!, cpu = parsed.GetValue(s_cpu) ?? (recording.Module == "kvm_amd" ? "amd" : "intel");
        Func<IKvmBackend> kernel = backend == "native" ? static () => KvmBackend.Native : () => RecordedMachine.Model(cpu);
        using (Backends.Open(Backends.Checked(kernel, cpu)))
        {
            // It can be opened; every scenario opens its own.
        }

        string? only = parsed.GetValue(s_only);
        bool all = parsed.GetValue(s_all);
        Scenario[] chosen = [.. recording.Scenarios.Where(s => only is null || s.Name.Contains(only, StringComparison.OrdinalIgnoreCase))];
        Console.WriteLine($"{file}: {recording.Module} of Linux {recording.Kernel}, {chosen.Length} scenarios, against {(backend == "native" ? "this host's /dev/kvm" : $"the model, {cpu}")}");
        var count = new Tally();
        var progress = new Progress(chosen.Length);
        foreach (Scenario scenario in chosen)
        {
            progress.Next(scenario.Name);
            ReplayResult result = Replayer.Replay(scenario, kernel);
            KnownFailure? reason = known.FirstOrDefault(k => k.Scenario == scenario.Name);
            count.Add(scenario, result, reason);
            if (Report(scenario, result, reason, all) is not { } line) continue;
            progress.Clear();
            Console.WriteLine(line);
        }

        progress.Clear();
        Console.WriteLine(count.ToString());
        return count.Failed == 0;
    }

    private static string? Report(Scenario scenario, ReplayResult result, KnownFailure? reason, bool all)
    {
        string what = result.Unsupported is { } op ? $"this runner cannot perform '{op}' here" : string.Join("; ", result.Differences.Take(6));
        if (!result.Passed && scenario.Portable && reason is null) return $"FAIL   {scenario.Name}: {what}";
        if (result.Passed && scenario.Portable && reason is not null) return $"pass   {scenario.Name}, although it is a known failure: {reason.What}";
        if (!all) return null;
        if (!result.Passed) return $"{(scenario.Portable ? "known" : "differs")}  {scenario.Name}: {what}{(reason is null ? "" : $" ({reason.Class}: {reason.What})")}";
        return result.DifferencesNotPortable.Count == 0 ? $"pass   {scenario.Name}" : $"pass   {scenario.Name}; not portable: {string.Join("; ", result.DifferencesNotPortable.Take(6))}";
    }

    private static T Load<T>(FileInfo file, Func<string, T> load)
    {
        try
        {
            return load(file.FullName);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or InvalidDataException)
        {
            throw new ToolException(ExitCode.BadFile, e is FileNotFoundException or DirectoryNotFoundException ? $"{file}: there is no such file" : $"{file}: {e.Message}");
        }
    }

    private sealed class Tally
    {
        private int _portable, _passed, _known, _unexpected, _others, _othersPassed;
        private long _answers, _agreed, _own, _ownAgreed;

        public int Failed { get; private set; }

        public void Add(Scenario scenario, ReplayResult result, KnownFailure? reason)
        {
            _answers += result.Agreed + result.Differences.Count;
            _agreed += result.Agreed;
            _own += result.AgreedNotPortable + result.DifferencesNotPortable.Count;
            _ownAgreed += result.AgreedNotPortable;
            if (!scenario.Portable)
            {
                _others++;
                _othersPassed += result.Passed ? 1 : 0;
                return;
            }

            _portable++;
            _passed += result.Passed ? 1 : 0;
            _unexpected += result.Passed && reason is not null ? 1 : 0;
            if (result.Passed) return;
            if (reason is null) Failed++;
            else _known++;
        }

        public override string ToString() =>
            $"{_passed} of {_portable} portable scenarios agree, {Failed} fail, {_known} are known failures{(_unexpected > 0 ? $", {_unexpected} passed although listed as failures" : "")}; " +
            $"{_othersPassed} of {_others} that are not portable agree; {_agreed} of {_answers} portable answers and {_ownAgreed} of {_own} others are the same";
    }

    /// <summary>On a terminal: which scenario runs. Silent in a pipe.</summary>
    private sealed class Progress(int whole)
    {
        private readonly bool _terminal = !Console.IsErrorRedirected;
        private long _shown;
        private int _done;

        public void Next(string name)
        {
            _done++;
            if (!_terminal || Stopwatch.GetElapsedTime(_shown).TotalMilliseconds < 100) return;
            _shown = Stopwatch.GetTimestamp();
            Console.Error.Write($"\r\x1b[K{_done}/{whole} {name}");
        }

        public void Clear()
        {
            if (_terminal) Console.Error.Write("\r\x1b[K");
        }
    }
}

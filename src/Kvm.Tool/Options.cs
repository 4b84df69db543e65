using System.CommandLine;
using System.CommandLine.Parsing;
using System.Globalization;
using System.Net;
using Kvm.Emulator;

namespace Kvm.Tool;

/// <summary>Options that several commands have, and checks whose messages name the option, what was given and what would do.</summary>
internal static class Options
{
    /// <summary>A week: longer than anybody waits, shorter than timers can be.</summary>
    private const double LongestTimeout = 7 * 24 * 3600;

    public static Option<string> Backend() => new Option<string>("--backend")
    {
        Description = "model: the software KVM in this process; native: this host's /dev/kvm",
        DefaultValueFactory = _ => "model",
    }.OneOf("model", "native");

    public static Option<string> Engine() => new Option<string>("--engine")
    {
        Description = "Who executes the model's instructions: interpreter, or native (hot code is translated to the host's) [default: as KVM_ENGINE says, else interpreter]",
    }.OneOf("interpreter", "native");

    public static Option<string> Cpu()
    {
        var cpu = new Option<string>("--cpu")
        {
            Description = "The model's processor: intel, amd, or a name that kvm doctor lists",
            DefaultValueFactory = _ => "intel",
            HelpName = "model",
        };
        cpu.CompletionSources.Add(["intel", "amd", .. CpuModel.Names]);
        return cpu;
    }

    /// <summary>Parameters of the model's modules, any number of them.</summary>
    public static Option<string[]> Parameter() => new("--parameter")
    {
        Description = "A parameter of the model's KVM modules: ept=0, npt=0, unrestricted_guest=0, kvm.mmio_caching=N…",
        HelpName = "name=value",
        DefaultValueFactory = _ => [],
    };

    public static Option<MemorySize> Memory(string standard) => new("--memory")
    {
        Description = "The guest's RAM: 4M or more, whole pages",
        HelpName = "size",
        DefaultValueFactory = _ => MemorySize.Parse(standard, out string _)!.Value,
        CustomParser = result =>
        {
            MemorySize? size = MemorySize.Parse(result.Tokens[0].Value, out string error);
            if (size is null) result.AddError($"--memory {result.Tokens[0].Value}: {error}");
            return size ?? default;
        },
    };

    /// <summary>Seconds; 0 for no limit.</summary>
    public static Option<double> Timeout() => new("--timeout")
    {
        Description = "Stop the guest after so many seconds; 0: never",
        HelpName = "seconds",
        DefaultValueFactory = _ => 0,
        CustomParser = result =>
        {
            string text = result.Tokens[0].Value;
            if (double.TryParse(text, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out double seconds) && seconds <= LongestTimeout) return seconds;
            result.AddError($"--timeout {text}: not a number of seconds from 0 to {LongestTimeout}, such as 2.5");
            return 0;
        },
    };

    /// <summary>Where a debugger can connect.</summary>
    public static Option<IPEndPoint> Listen() => new("--listen")
    {
        Description = "Where gdb connects: a port of this machine's loopback interface (0: any that is free), or address:port",
        HelpName = "[address:]port",
        DefaultValueFactory = _ => new IPEndPoint(IPAddress.Loopback, 1234),
        CustomParser = result =>
        {
            string text = result.Tokens[0].Value;
            IPEndPoint? endpoint = DebugSession.Parse(text);
            if (endpoint is null) result.AddError($"--listen {text}: not a port from 0 to 65535, such as 1234 or 127.0.0.1:1234");
            return endpoint ?? new IPEndPoint(IPAddress.Loopback, 0);
        },
    };

    /// <summary>A number from 1 to <paramref name="most"/>.</summary>
    public static Option<int> Count(string name, string description, int standard, int most) => new(name)
    {
        Description = description,
        HelpName = "number",
        DefaultValueFactory = _ => standard,
        CustomParser = result =>
        {
            string text = result.Tokens[0].Value;
            if (int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int number) && number >= 1 && number <= most) return number;
            result.AddError($"{name} {text}: not a number from 1 to {most}");
            return standard;
        },
    };

    /// <summary>Takes these words only.</summary>
    public static Option<string> OneOf(this Option<string> option, params string[] words)
    {
        option.HelpName = string.Join('|', words);
        option.CompletionSources.Add(words);
        option.Validators.Add(result => Check(result, option.Name, words));
        return option;
    }

    /// <summary>Takes these words only.</summary>
    public static void OneOf(this Argument<string> argument, string command, params string[] words)
    {
        argument.CompletionSources.Add(words);
        argument.Validators.Add(result => Check(result, command, words));
    }

    private static void Check(SymbolResult result, string name, string[] words)
    {
        if (result.Tokens is [{ Value: var word }] && !words.Contains(word)) result.AddError($"{name} {word}: not one of {string.Join(", ", words)}");
    }
}

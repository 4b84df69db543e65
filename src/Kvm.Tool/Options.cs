using System.CommandLine;

namespace Kvm.Tool;

/// <summary>Options that several commands have.</summary>
internal static class Options
{
    public static Option<string> Backend()
    {
        var option = new Option<string>("--backend") { Description = "model: the software KVM; native: this host's /dev/kvm", DefaultValueFactory = _ => "model" };
        option.AcceptOnlyFromAmong("model", "native");
        return option;
    }

    public static Option<string> Cpu() =>
        new("--cpu") { Description = "intel, amd, or the name of a processor model (kvm doctor lists them); the model back end only", DefaultValueFactory = _ => "intel" };

    public static Option<ulong> Memory(string standard) => new("--memory")
    {
        Description = $"The guest's RAM, such as 512M or 2G [default: {standard}]",
        DefaultValueFactory = _ => Sizes.TryParse(standard, out ulong bytes) ? bytes : 0,
        CustomParser = result =>
        {
            string text = result.Tokens[0].Value;
            if (!Sizes.TryParse(text, out ulong bytes) || bytes < 4 << 20 || bytes % 4096 != 0)
                result.AddError($"--memory {text}: not a memory size; write whole pages, at least 4M, such as 512M or 2G");
            return bytes;
        },
    };

    public static Option<double> Timeout() => new("--timeout") { Description = "Stop the guest after so many seconds; 0: never", DefaultValueFactory = _ => 0 };
}

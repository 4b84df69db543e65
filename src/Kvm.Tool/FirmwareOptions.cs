using System.CommandLine;
using System.CommandLine.Parsing;
using Kvm.Vmm.Devices;

namespace Kvm.Tool;

/// <summary>The options of <c>kvm run</c> that are about firmware.</summary>
internal sealed class FirmwareOptions
{
    private readonly Option<FileInfo?> _variables = new("--vars")
    {
        Description = "What UEFI firmware keeps its variables in: a flash below the firmware; changes are written to the file (OVMF_VARS.fd of the ovmf package, a copy of your own)",
        HelpName = "file",
    };

    private readonly Option<FileInfo?> _debug = new("--debugcon") { Description = "Write to this file what firmware writes to its debug console, port 0x402", HelpName = "file" };

    private readonly Option<string[]> _files = new("--fw-cfg")
    {
        Description = "A file for the firmware's eyes, such as floppyimg/boot=disk.img: a floppy image that SeaBIOS boots from; may be repeated",
        HelpName = "name=file",
        Arity = ArgumentArity.OneOrMore,
    };

    public FirmwareOptions()
    {
        _files.Validators.Add(CheckFiles);
        Image.Aliases.Add("--bios");
    }

    /// <summary>--firmware.</summary>
    public Option<FileInfo?> Image { get; } = new("--firmware")
    {
        Description = "Firmware to start from the reset vector: SeaBIOS, OVMF (samples/firmware/fetch.sh fetches them); --kernel is then offered to the firmware",
        HelpName = "file",
    };

    /// <summary>Adds the options, and what they need of each other.</summary>
    public void AddTo(Command command)
    {
        foreach (Option option in (Option[])[Image, _variables, _debug, _files]) command.Options.Add(option);
        command.Validators.Add(result =>
        {
            if (result.GetResult(Image) is not null) return;
            foreach (Option option in (Option[])[_variables, _debug, _files])
            {
                if (result.GetResult(option) is { Implicit: false }) result.AddError($"{option.Name} is for firmware: name that with --firmware");
            }
        });
    }

    /// <summary>Opens the files; null: no firmware was asked for.</summary>
    /// <exception cref="ToolException">One of them can't be read or written, or is no firmware.</exception>
    public FirmwareGuest? Read(ParseResult result) => result.GetValue(Image) is not { } image ? null : FirmwareGuest.Open(image, result.GetValue(_variables), result.GetValue(_debug), result.GetValue(_files) ?? []);

    private static void CheckFiles(OptionResult result)
    {
        var names = new HashSet<string>();
        foreach (string text in result.Tokens.Select(t => t.Value))
        {
            int equals = text.IndexOf('=', StringComparison.Ordinal);
            if (equals < 1 || equals == text.Length - 1) result.AddError($"--fw-cfg {text}: not a name, '=' and a file, such as floppyimg/boot=disk.img");
            else if (equals > FwCfg.LongestName || !System.Text.Ascii.IsValid(text.AsSpan(0, equals))) result.AddError($"--fw-cfg {text}: the name has more than {FwCfg.LongestName} ASCII characters");
            else if (!names.Add(text[..equals])) result.AddError($"--fw-cfg {text}: that name was given before");
        }
    }
}

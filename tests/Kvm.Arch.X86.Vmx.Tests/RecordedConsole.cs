using System.Globalization;

namespace Kvm.Arch.X86.Vmx.Tests;

/// <summary>A command on a real host whose firmware or processor is in the way: exit code, what it printed, what the kernel logged.</summary>
internal sealed record RecordedCommand(string Line, int Rc, IReadOnlyList<string> Output, IReadOnlyList<string> Dmesg);

/// <summary>Console logs of real hosts.</summary>
internal static class RecordedConsole
{
    public static IReadOnlyList<string> Lines(string name) => File.ReadAllLines(Path.Combine(AppContext.BaseDirectory, "Data", name + ".txt"));

    /// <summary>Messages of the boot, without their time.</summary>
    public static IReadOnlyList<string> BootMessages(string name) =>
        [.. Lines(name).Where(static l => l.StartsWith("[ ", StringComparison.Ordinal)).Select(static l => l[(l.IndexOf(']', StringComparison.Ordinal) + 2)..])];

    public static IReadOnlyList<RecordedCommand> Commands(string name)
    {
        List<RecordedCommand> commands = [];
        string? line = null;
        int rc = 0;
        List<string> output = [], dmesg = [];
        foreach (string text in Lines(name).Append("$ end"))
        {
            if (text.StartsWith("$ ", StringComparison.Ordinal))
            {
                if (line != null)
                    commands.Add(new RecordedCommand(line, rc, output, dmesg));
                line = text[2..];
                (rc, output, dmesg) = (0, [], []);
            }
            else if (text.StartsWith("  -> rc ", StringComparison.Ordinal))
            {
                rc = int.Parse(text[8..], CultureInfo.InvariantCulture);
            }
            else if (text.StartsWith("    dmesg: ", StringComparison.Ordinal))
            {
                // insmod tries two system calls: the same message twice.
                if (!dmesg.Contains(text[11..]))
                    dmesg.Add(text[11..]);
            }
            else
            {
                output.Add(text);
            }
        }
        return commands;
    }
}

using System.Diagnostics;
using System.Globalization;
using System.Text;

namespace Kvm.Core.Tracing;

/// <content>The text of ftrace's function_graph tracer.</content>
public sealed partial class FunctionTraceSession
{
    /// <summary>The beginning or the end of a call, or both where it called nothing that is traced.</summary>
    private readonly record struct GraphLine(long At, int Cpu, int Depth, string Text, long Duration);

    /// <summary>
    /// All calls in the order in which they happened, as <c>trace_pipe</c> shows them with <c>echo function_graph &gt; current_tracer</c>: CPU, duration, calls. The
    /// durations are those of the model in this process.
    /// </summary>
    /// <param name="root">Which of the roots to show; null: all.</param>
    public string FormatGraph(Func<FunctionTraceNode, bool>? root = null)
    {
        var lines = new List<GraphLine>();
        foreach ((_, IReadOnlyList<FunctionTraceNode> roots) in Groups)
        {
            foreach (FunctionTraceNode call in roots.Where(root ?? (static _ => true))) Collect(lines, call, 0);
        }

        var text = new StringBuilder("""
            # tracer: function_graph
            #
            # CPU  DURATION                  FUNCTION CALLS
            # |     |   |                     |   |   |   |

            """.ReplaceLineEndings("\n"));
        foreach (GraphLine line in lines.OrderBy(l => l.At))
        {
            text.Append(CultureInfo.InvariantCulture, $"{line.Cpu,2}) ");
            AppendDuration(text, line.Duration);
            text.Append(' ', line.Depth * 2).Append(line.Text).Append('\n');
        }

        return text.ToString();
    }

    private static void Collect(List<GraphLine> lines, FunctionTraceNode node, int depth)
    {
        string name = ModuleOf(node.Name) is { } module ? $"{node.Name} [{module}]" : node.Name;
        long duration = Math.Max(node.EndTicks - node.StartTicks, 0);
        if (node.Children.Count == 0)
        {
            lines.Add(new GraphLine(node.StartTicks, node.Cpu, depth, name + "();", duration));
            return;
        }

        lines.Add(new GraphLine(node.StartTicks, node.Cpu, depth, name + "() {", -1));
        foreach (FunctionTraceNode child in node.Children) Collect(lines, child, depth + 1);
        lines.Add(new GraphLine(node.EndTicks, node.Cpu, depth, "}", duration));
    }

    /// <summary>Microseconds in seven digits; before them the mark of long calls.</summary>
    private static void AppendDuration(StringBuilder text, long ticks)
    {
        if (ticks < 0)
        {
            text.Append(' ', 14).Append("|  ");
            return;
        }

        long ns = (long)(ticks * (1e9 / Stopwatch.Frequency));
        char mark = ns switch
        {
            > 1_000_000_000 => '$',
            > 100_000_000 => '@',
            > 10_000_000 => '*',
            > 1_000_000 => '#',
            > 100_000 => '!',
            > 10_000 => '+',
            _ => ' ',
        };
        string number = string.Create(CultureInfo.InvariantCulture, $"{ns / 1000}.{ns % 1000:d3}");
        if (number.Length > 8) number = number[..Math.Max(8, number.IndexOf('.'))].TrimEnd('.');
        text.Append(mark).Append(' ').Append(number).Append(" us ").Append(' ', Math.Max(8 - number.Length, 0)).Append("|  ");
    }
}

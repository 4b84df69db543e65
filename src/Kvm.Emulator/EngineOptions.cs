namespace Kvm.Emulator;

/// <summary>Which engine a machine has, and how it goes about it.</summary>
/// <remarks>
/// The environment variable KVM_ENGINE names it for programs that don't: <c>interpreter</c> or <c>native</c>, and behind it, with commas,
/// <c>strict</c> and <c>threshold=N</c>.
/// </remarks>
public sealed record EngineOptions
{
    /// <summary>As KVM_ENGINE says; the interpreter without it.</summary>
    public static EngineOptions Default { get; } = Parse(Environment.GetEnvironmentVariable("KVM_ENGINE"));

    public ExecutionEngine Engine { get; init; }

    /// <summary>
    /// Native: the arithmetic flags are exact whenever anybody could look, faults and interrupts included. Otherwise those that the guest's
    /// code overwrites before it reads them may be older there.
    /// </summary>
    public bool StrictFlags { get; init; }

    /// <summary>Native: executions after which a block is translated.</summary>
    public int Threshold { get; init; } = 32;

    /// <summary>Native: memory for code, per processor; when it is full everything is translated anew as it is needed. A multiple of the host's page size.</summary>
    internal int CodeBytes { get; init; } = 64 << 20;

    /// <summary>What a text like <c>native,strict,threshold=0</c> means; words that mean nothing are passed over.</summary>
    public static EngineOptions Parse(string? text)
    {
        var options = new EngineOptions();
        foreach (string word in (text ?? "").Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries))
        {
            if (word.Equals("native", StringComparison.OrdinalIgnoreCase))
                options = options with { Engine = ExecutionEngine.Native };
            else if (word.Equals("strict", StringComparison.OrdinalIgnoreCase))
                options = options with { StrictFlags = true };
            else if (word.StartsWith("threshold=", StringComparison.OrdinalIgnoreCase)
                && int.TryParse(word.AsSpan("threshold=".Length), global::System.Globalization.CultureInfo.InvariantCulture, out int threshold))
            {
                options = options with { Threshold = Math.Max(0, threshold) };
            }
        }
        return options;
    }
}

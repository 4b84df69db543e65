namespace Kvm.Emulator;

/// <summary>
/// Makes instructions of one processor fail by mnemonic and count (ARCHITECTURE D11): VMXON, VMCLEAR, VMPTRLD, VMWRITE, VMLAUNCH, INVEPT, VMRUN, WRMSR …
/// An armed instruction reports the given result and does nothing else.
/// </summary>
/// <remarks>Armed and consulted through <see cref="Processor.InstructionFaults"/>; thread-safe; the processor tests one reference when nothing was ever armed.</remarks>
public sealed class InstructionFaults
{
    private readonly Lock gate = new();
    private readonly List<Rule> rules = [];

    private sealed class Rule
    {
        public required string Mnemonic;
        public int Skip;
        public int Count;
        public InstructionResult Result;
    }

    /// <summary>Lets <paramref name="skip"/> executions of <paramref name="mnemonic"/> pass, then makes <paramref name="count"/> of them end with <paramref name="result"/>.</summary>
    public void Add(string mnemonic, InstructionResult result, int skip = 0, int count = 1)
    {
        ArgumentNullException.ThrowIfNull(mnemonic);
        lock (gate)
            rules.Add(new Rule { Mnemonic = mnemonic, Result = result, Skip = skip, Count = count });
    }

    public void Clear()
    {
        lock (gate)
            rules.Clear();
    }

    /// <summary>Called at each execution; true when this one fails.</summary>
    public bool Take(string mnemonic, out InstructionResult result)
    {
        result = default;
        lock (gate)
        {
            foreach (Rule rule in rules)
            {
                if (rule.Mnemonic != mnemonic || rule.Count == 0)
                    continue;
                if (rule.Skip > 0)
                {
                    rule.Skip--;
                    continue;
                }
                rule.Count--;
                result = rule.Result;
                return true;
            }
        }
        return false;
    }
}

namespace Kvm.Emulator;

/// <summary>What tags the translations of a context, and the mode bits that decide how entries turn into rights.</summary>
internal readonly record struct TlbKey(ushort Tag, ushort Pcid, uint Mode, uint Pkru, ulong NestedRoot);

/// <summary>Whose rights a table holds.</summary>
internal enum Privilege
{
    Supervisor = 0,
    User = 1,
    /// <summary>Supervisor with RFLAGS.AC overriding SMAP.</summary>
    SupervisorAc = 2,
}

/// <summary>The tables of one address-space tag: supervisor, user, and supervisor with SMAP overridden.</summary>
internal sealed class TlbContext : IDisposable
{
    private readonly TlbTable?[] tables = new TlbTable?[3];

    public TlbKey Key { get; set; }
    public bool Valid { get; set; }
    public ulong LastUse { get; set; }

    public TlbTable Table(Privilege privilege) => tables[(int)privilege] ??= new TlbTable();
    public ReadOnlySpan<TlbTable?> Tables => tables;

    public void Clear()
    {
        foreach (TlbTable? table in tables)
            table?.Clear();
    }

    public void ClearNonGlobal()
    {
        foreach (TlbTable? table in tables)
            table?.ClearNonGlobal();
    }

    public void ClearLinear(ulong linear, bool globalOnly)
    {
        foreach (TlbTable? table in tables)
            table?.ClearLinear(linear, globalOnly);
    }

    public void Dispose()
    {
        foreach (TlbTable? table in tables)
            table?.Dispose();
    }
}

namespace Kvm.Emulator;

public sealed unsafe partial class Mmu
{
    private const int ContextCount = 12;
    private readonly TlbContext[] contexts = new TlbContext[ContextCount];
    private TlbContext current;
    /// <summary>The context before the current one: world switches alternate between two.</summary>
    private TlbContext? previous;
    private ulong useCounter;

    /// <summary>How often another context became the current one.</summary>
    internal ulong Switches { get; private set; }

    /// <summary>PCID of the current address space; 0 while CR4.PCIDE = 0.</summary>
    internal ushort CurrentPcid => (state->Cr4 & Cr4.PCIDE) != 0 ? (ushort)(state->Cr3 & 0xfff) : (ushort)0;
    private ushort CurrentTag => cpu.NonRoot?.TlbTag ?? 0;

    /// <summary>CR0, CR3, CR4, EFER, CPL, AC, the TLB tag or the nested root may have changed: selects the table in State->Tlb. Flushes nothing.</summary>
    public void OnContextChange()
    {
        TlbKey key = CurrentKey();
        if (key != current.Key || !current.Valid)
        {
            TlbContext left = current;
            current = previous is { Valid: true } && previous.Key == key ? previous : Select(key);
            current.LastUse = ++useCounter;
            previous = left;
            Switches++;
        }
        UseTable(current.Table(CurrentPrivilege));
    }

    private void UseTable(TlbTable table)
    {
        state->Tlb = table.Entries;
        if (cpu.NativeEngine is not null)
            state->Jumps = table.UseJumps();
        CurrentTable = table;
    }

    /// <summary>The table in State->Tlb.</summary>
    internal TlbTable CurrentTable { get; private set; }

    /// <summary>Generated code is gone: no jump cache leads to it any more.</summary>
    internal void ForgetJumps()
    {
        foreach (TlbContext context in contexts)
            foreach (TlbTable? table in context.Tables)
                table?.Jumps?.Clear();
    }

    private TlbKey CurrentKey()
    {
        uint mode = 0, pkru = 0;
        ushort pcid = 0;
        if ((state->Cr0 & Cr0.PG) != 0)
        {
            mode = 1
                | (uint)(state->Cr4 & (Cr4.PSE | Cr4.PAE | Cr4.LA57 | Cr4.SMEP | Cr4.SMAP | Cr4.PKE))
                | ((state->Cr0 & Cr0.WP) != 0 ? 2u : 0)
                | ((state->Efer & Efer.NXE) != 0 ? 4u : 0)
                | ((state->Efer & Efer.LMA) != 0 ? 8u : 0);
            pcid = CurrentPcid;
            if ((state->Cr4 & Cr4.PKE) != 0 && (state->Efer & Efer.LMA) != 0)
                pkru = state->Pkru;
        }
        NonRootMode? guest = cpu.NonRoot;
        return guest is null ? new TlbKey(0, pcid, mode, pkru, 0) : new TlbKey(guest.TlbTag, pcid, mode, pkru, guest.NestedRoot);
    }

    private TlbContext Select(in TlbKey key)
    {
        TlbContext victim = contexts[0];
        foreach (TlbContext context in contexts)
        {
            if (context.Valid && context.Key == key)
                return context;
            if (!context.Valid ? victim.Valid || context.LastUse < victim.LastUse : victim.Valid && context.LastUse < victim.LastUse)
                victim = context;
        }
        victim.Clear();
        victim.Key = key;
        victim.Valid = true;
        return victim;
    }

    /// <summary>Drops every translation of every address space.</summary>
    public void FlushAll()
    {
        foreach (TlbContext context in contexts)
            context.Clear();
    }

    /// <summary>Drops the translations of a VPID or ASID, all PCIDs; optionally not the global ones.</summary>
    public void FlushTag(ushort tag, bool keepGlobal)
    {
        foreach (TlbContext context in contexts)
        {
            if (!context.Valid || context.Key.Tag != tag)
                continue;
            if (keepGlobal)
                context.ClearNonGlobal();
            else
                context.Clear();
        }
    }

    /// <summary>Drops the non-global translations of one PCID of a tag: MOV to CR3.</summary>
    internal void FlushPcid(ushort tag, ushort pcid)
    {
        foreach (TlbContext context in contexts)
            if (context.Valid && context.Key.Tag == tag && context.Key.Pcid == pcid)
                context.ClearNonGlobal();
    }

    /// <summary>INVLPG in the current address space: this PCID's translations of the page, and global ones of any PCID.</summary>
    internal void FlushLinearCurrent(ulong linear) => FlushLinearPcid(CurrentTag, CurrentPcid, linear, global: true);

    /// <summary>Drops one page of one PCID (INVPCID type 0 keeps global translations).</summary>
    internal void FlushLinearPcid(ushort tag, ushort pcid, ulong linear, bool global)
    {
        foreach (TlbContext context in contexts)
        {
            if (!context.Valid || context.Key.Tag != tag)
                continue;
            if (context.Key.Pcid == pcid)
                context.ClearLinear(linear, globalOnly: false);
            else if (global)
                context.ClearLinear(linear, globalOnly: true);
        }
    }

    /// <summary>Drops one page's translations of a VPID or ASID, whatever the PCID: INVVPID type 0, INVLPGA.</summary>
    public void FlushLinear(ushort tag, ulong linear)
    {
        foreach (TlbContext context in contexts)
            if (context.Valid && context.Key.Tag == tag)
                context.ClearLinear(linear, globalOnly: false);
    }

    /// <summary>Drops every translation derived from an EPT or NPT root (address bits only are compared): INVEPT.</summary>
    public void FlushNested(ulong root)
    {
        foreach (TlbContext context in contexts)
            if (context.Valid && (context.Key.NestedRoot ^ root) >> 12 == 0)
                context.Clear();
    }

    /// <summary>Code of the physical page has been decoded: removes its write tags from every table of this processor.</summary>
    public void RevokeWrites(ulong physicalPage)
    {
        byte* host = memory.Pointer(physicalPage & ~0xfffUL);
        if (host == null)
            return;
        foreach (TlbContext context in contexts)
            foreach (TlbTable? table in context.Tables)
                table?.RevokeWrites((ulong)host);
    }
}

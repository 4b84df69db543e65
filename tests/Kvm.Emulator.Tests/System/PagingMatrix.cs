namespace Kvm.Emulator.Tests;

/// <summary>Every bit of every paging-structure entry × access × privilege × WP, NX, SMEP, SMAP, AC, protection keys, in every paging mode, against <see cref="PagingOracle"/>.</summary>
public sealed unsafe class PagingMatrix
{
    private const ulong Linear4 = 0x0000_5678_9abc_d123, Linear5 = 0x00de_5678_9abc_d123, Linear32 = 0x9abc_d123;
    private const ulong Frame = BareMachine.Data;

    private static readonly (MemoryAccess, MemoryAccessor)[] AllAccesses =
        [.. from access in Enum.GetValues<MemoryAccess>() from accessor in Enum.GetValues<MemoryAccessor>() where (access, accessor) != (MemoryAccess.Fetch, MemoryAccessor.Implicit) select (access, accessor)];

    private static ulong Linear(PagingMode mode) => mode switch { PagingMode.FiveLevel => Linear5, PagingMode.FourLevel => Linear4, _ => Linear32 };
    private static int Levels(PagingMode mode) => PagingOracle.Levels(mode);

    /// <summary>A machine that can be put into any setup, and whose path to one linear address is under the test's control.</summary>
    private sealed class Rig : IDisposable
    {
        private readonly Dictionary<(int, bool, bool, bool), BareMachine> machines = [];
        private BareMachine m = null!;
        private PagingSetup s = null!;
        private int levels;

        public void Use(PagingSetup setup)
        {
            s = setup;
            levels = Levels(setup.Mode);
            var key = (s.PhysicalBits, s.Pke, s.Gigabyte, s.Pse36);
            if (!machines.TryGetValue(key, out m!))
                machines[key] = m = new BareMachine(Model(setup));
            m.Long();
            CpuState* state = m.State;
            state->Cr0 = Cr0.PE | Cr0.PG | Cr0.ET | Cr0.NE | (s.Wp ? Cr0.WP : 0);
            state->Cr4 = (s.Mode == PagingMode.Legacy32 ? (s.Pse ? Cr4.PSE : 0) : Cr4.PAE) | Cr4.PGE | (s.Smep ? Cr4.SMEP : 0) | (s.Smap ? Cr4.SMAP : 0)
                | (s.Mode == PagingMode.FiveLevel ? Cr4.LA57 : 0) | (s.Pke ? Cr4.PKE : 0);
            bool longMode = s.Mode >= PagingMode.FourLevel;
            state->Efer = (longMode ? Efer.LME | Efer.LMA : 0) | (s.Nxe ? Efer.NXE : 0);
            state->Cr3 = BareMachine.Tables;
            state->Pkru = s.Pkru;
            state->Rflags = s.Ac ? 2 | Flags.AC : 2;
            if (!longMode)
                m.Cpu.Segment(Seg.CS) = new SegmentCache { Limit = uint.MaxValue, AccessRights = 0xc09b };
            if (s.Mode == PagingMode.Pae)
                state->Pdpte[(int)(Linear32 >> 30)] = BareMachine.Tables | 1;
            m.Cpu.UpdateMode();
            m.Cpu.Mmu.FlushAll();
        }

        private static CpuModel Model(PagingSetup s)
        {
            CpuModel model = (s.Amd ? CpuModel.AmdZen : CpuModel.IntelSkylake).With(physicalBits: s.PhysicalBits, linearBits: s.Mode == PagingMode.FiveLevel ? 57 : 48);
            uint leaf7 = (s.Mode == PagingMode.FiveLevel ? 1u << 16 : 0) | (s.Pke ? 1u << 3 : 0);
            model = model.WithCpuid(7, 0, new CpuidLeaf(0, 0, leaf7, 0));
            if (!s.Gigabyte)
                model = model.WithCpuid(0x80000001, 0, default, new CpuidLeaf(0, 0, 0, 1 << 26));
            return s.Pse36 ? model : model.WithCpuid(1, 0, default, new CpuidLeaf(0, 0, 0, 1 << 17));
        }

        /// <summary>Entry of the root (index 0) down to the page table.</summary>
        private ulong* Slot(int index)
        {
            int level = levels - index;
            ulong table = BareMachine.Tables + ((ulong)index * 0x1000);
            if (s.Mode == PagingMode.Legacy32)
                return (ulong*)((uint*)m.At(table) + (Linear32 >> (level == 2 ? 22 : 12) & 0x3ff));
            return m.Qword(table) + (Linear(s.Mode) >> (3 + (9 * level)) & 0x1ff);
        }

        public void Write(IReadOnlyList<ulong> entries)
        {
            for (int i = 0; i < entries.Count; i++)
            {
                if (s.Mode == PagingMode.Legacy32)
                    *(uint*)Slot(i) = (uint)entries[i];
                else
                    *Slot(i) = entries[i];
            }
        }

        public ulong Read(int index) => s.Mode == PagingMode.Legacy32 ? *(uint*)Slot(index) : *Slot(index);

        public void Flush() => m.Cpu.Mmu.FlushAll();

        /// <summary>The page fault's error code, null: allowed.</summary>
        public uint? Perform(MemoryAccess access, MemoryAccessor accessor)
        {
            ulong linear = Linear(s.Mode);
            m.State->Cpl = accessor == MemoryAccessor.User ? (byte)3 : (byte)0;
            m.Cpu.UpdateMode();
            bool implicitly = accessor == MemoryAccessor.Implicit;
            bool ok = access switch
            {
                MemoryAccess.Fetch => m.Cpu.Mmu.FetchPage(linear, out _) != null,
                MemoryAccess.Read => m.Cpu.Mmu.ReadLinear(linear, 1, out _, implicitly),
                _ => m.Cpu.Mmu.WriteLinear(linear, 1, 0x5a, implicitly),
            };
            if (ok)
                return null;
            Fault fault = m.Pending;
            if (fault.Vector != Fault.PF || fault.Address != linear)
                Assert.Fail($"{fault}, expected a page fault at {linear:x}");
            return fault.ErrorCode;
        }

        public void Dispose()
        {
            foreach (BareMachine machine in machines.Values)
                machine.Dispose();
        }
    }

    /// <summary>A path that allows everything, ending in a page of the given level.</summary>
    private static List<ulong> Path(PagingMode mode, int leafLevel)
    {
        int levels = Levels(mode);
        var entries = new List<ulong>();
        for (int index = 0; index < levels; index++)
        {
            int level = levels - index;
            if (level == leafLevel)
            {
                // A large page maps frame 0, or the one that holds the RAM.
                entries.Add(leafLevel == 1 ? Frame | 7 : 0x87);
                break;
            }
            entries.Add((BareMachine.Tables + ((ulong)(index + 1) * 0x1000)) | 7);
        }
        return entries;
    }

    private static IEnumerable<int> Bits(PagingSetup s, int level, bool leaf)
    {
        foreach (int bit in (int[])[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])
            if (bit != 7 || level is 1 or >= 4 || (level == 3 && !leaf && !s.Gigabyte))
                yield return bit;
        if (leaf && level > 1)
            foreach (int bit in (int[])[12, 13, 20, 21, 28, 29])
                if (bit < (s.Mode == PagingMode.Legacy32 ? 22 : 3 + (9 * level)) && !(s.Mode == PagingMode.Legacy32 && bit is > 12 and < 21))
                    yield return bit;
        if (s.Mode == PagingMode.Legacy32)
        {
            if (leaf && level == 2)
                for (int bit = 13; bit < 22; bit++)
                    yield return bit;
            yield break;
        }
        for (int bit = s.PhysicalBits; bit < 64; bit++)
            yield return bit;
    }

    private static IEnumerable<PagingSetup> Setups(PagingMode mode, bool amd)
    {
        bool[] both = [false, true];
        foreach (bool wp in both)
            foreach (bool nxe in both)
                foreach (bool smep in both)
                    foreach (int smap in (int[])[0, 1, 2])
                    {
                        var s = new PagingSetup(mode) { Wp = wp, Nxe = nxe, Smep = smep, Smap = smap > 0, Ac = smap == 2, Amd = amd };
                        yield return s;
                        if (mode >= PagingMode.FourLevel)
                            foreach (uint pkru in (uint[])[0, 1, 2, 3, 0x5555_5554, 0xaaaa_aaa8])
                                yield return s with { Pke = true, Pkru = pkru };
                        if (mode == PagingMode.Legacy32 && !nxe)
                        {
                            yield return s with { Pse = false };
                            yield return s with { Pse36 = false };
                            yield return s with { PhysicalBits = 36 };
                        }
                        if (mode >= PagingMode.FourLevel && !nxe)
                            yield return s with { Gigabyte = false, PhysicalBits = 46 };
                    }
    }

    public static TheoryData<PagingMode, bool> Modes => new()
    {
        { PagingMode.Legacy32, false }, { PagingMode.Legacy32, true }, { PagingMode.Pae, false }, { PagingMode.Pae, true },
        { PagingMode.FourLevel, false }, { PagingMode.FourLevel, true }, { PagingMode.FiveLevel, false }, { PagingMode.FiveLevel, true },
    };

    private static IEnumerable<int> LeafLevels(PagingSetup s)
    {
        yield return 1;
        if (s.Pse || s.Mode != PagingMode.Legacy32)
            yield return 2;
        if (s.Mode >= PagingMode.FourLevel && s.Gigabyte)
            yield return 3;
    }

    /// <summary>Each bit of each entry flipped on its own, and each pair of rights bits in two entries.</summary>
    private static IEnumerable<List<ulong>> Variations(PagingSetup s, List<ulong> path)
    {
        int levels = Levels(s.Mode);
        yield return path;
        for (int i = 0; i < path.Count; i++)
            foreach (int bit in Bits(s, levels - i, i == path.Count - 1))
                yield return [.. path.Select((e, n) => n == i ? e ^ (1UL << bit) : e)];
        foreach (int bit in (int[])[1, 2])
            for (int i = 0; i < path.Count; i++)
                yield return [.. path.Select((e, n) => (n == i ? e & ~6UL : e) ^ (n == path.Count - 1 ? 1UL << bit : 0))];
    }

    [Theory]
    [MemberData(nameof(Modes))]
    public void Each_bit_of_each_entry(PagingMode mode, bool amd)
    {
        long cases = 0;
        using var rig = new Rig();
        foreach (PagingSetup s in Setups(mode, amd))
        {
            rig.Use(s);
            foreach (int leafLevel in LeafLevels(s))
                foreach (List<ulong> entries in Variations(s, Path(mode, leafLevel)))
                    cases += CheckAll(rig, s, entries);
        }
        cases.Should().BeGreaterThan(10_000);
    }

    private static int CheckAll(Rig rig, PagingSetup s, List<ulong> entries)
    {
        foreach ((MemoryAccess access, MemoryAccessor accessor) in AllAccesses)
        {
            rig.Write(entries);
            rig.Flush();
            uint? expected = PagingOracle.Fault(s, entries, access, accessor);
            uint? found = rig.Perform(access, accessor);
            if (found != expected)
                Assert.Fail($"{s}: {accessor} {access} through {Text(entries)}: error code {found:x}, the manual says {expected:x}");
            CheckFlags(rig, s, entries, access, expected is null);
        }
        return AllAccesses.Length;
    }

    private static string Text(List<ulong> entries) => string.Join(' ', entries.Select(e => e.ToString("x16", null)));

    /// <summary>A successful access sets A on the way and D for a write; a fault sets no D.</summary>
    private static void CheckFlags(Rig rig, PagingSetup s, List<ulong> entries, MemoryAccess access, bool allowed)
    {
        int levels = Levels(s.Mode);
        int leaf = Enumerable.Range(0, entries.Count).First(i => i == entries.Count - 1 || PagingOracle.Maps(s, levels - i, entries[i]));
        for (int i = 0; i <= leaf; i++)
        {
            ulong old = entries[i], now = rig.Read(i);
            ulong wanted = !allowed ? old : old | 0x20 | (i == leaf && access == MemoryAccess.Write ? 0x40UL : 0);
            if (allowed ? now != wanted : (now & ~0x20UL) != (old & ~0x20UL))
                Assert.Fail($"{s}: {access} through {Text(entries)} left entry {i} as {now:x}, expected {wanted:x}");
        }
    }

    /// <summary>What the TLB keeps of one access gives no other access rights that it does not have.</summary>
    [Theory]
    [MemberData(nameof(Modes))]
    public void An_access_after_another_is_judged_alike_with_and_without_a_flush(PagingMode mode, bool amd)
    {
        using var rig = new Rig();
        // Rights only: what the other bits do to a walk is the other test's.
        foreach (PagingSetup s in Setups(mode, amd).Where(s => s.Wp == s.Smep))
        {
            rig.Use(s);
            foreach (int leafLevel in LeafLevels(s))
                foreach (List<ulong> entries in Variations(s, Path(mode, leafLevel)).Where(e => Differs(e, Path(mode, leafLevel), 0x8000_0000_0000_0147)))
                    foreach ((MemoryAccess first, MemoryAccessor firstBy) in AllAccesses)
                    {
                        rig.Write(entries);
                        rig.Flush();
                        rig.Perform(first, firstBy);
                        foreach ((MemoryAccess access, MemoryAccessor accessor) in AllAccesses)
                        {
                            uint? expected = PagingOracle.Fault(s, entries, access, accessor), found = rig.Perform(access, accessor);
                            if (found != expected)
                                Assert.Fail($"{s}: {accessor} {access} after {firstBy} {first} through {Text(entries)}: error code {found:x}, expected {expected:x}");
                        }
                    }
        }
    }

    private static bool Differs(List<ulong> entries, List<ulong> path, ulong mask) => entries.Zip(path).All(e => ((e.First ^ e.Second) & ~mask) == 0);

    /// <summary>MOV to CR3 with PAE paging: a present page-directory-pointer entry with a reserved bit is #GP(0), an absent one may hold anything.</summary>
    [Fact]
    public void PAE_pointers_are_checked_when_they_are_loaded()
    {
        using var m = new BareMachine(CpuModel.IntelSkylake.With(physicalBits: 40));
        m.Protected();
        m.State->Cr4 = Cr4.PAE;
        m.State->Cr3 = 0x110000;
        m.State->Cr0 |= Cr0.PG;
        ulong* table = m.Qword(0x110020);
        for (int i = 0; i < 4; i++)
            for (int bit = 0; bit < 64; bit++)
                foreach (bool present in (bool[])[false, true])
                {
                    new Span<ulong>(table, 4).Clear();
                    table[i] = (1UL << bit) & ~1UL | (present ? 1UL : 0);
                    bool reserved = bit is 1 or 2 or >= 5 and <= 8 or >= 40;
                    m.Cpu.WriteCr(3, 0x110020).Ok.Should().Be(!present || !reserved, "entry {0}, bit {1}, present {2}", i, bit, present);
                }
    }
}

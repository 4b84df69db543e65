namespace Kvm.Emulator;

/// <summary>
/// The performance counters of one processor: retired instructions, core cycles (one to an instruction, as this processor runs) and, on Intel, cycles at the TSC's rate.
/// Events of other kinds can be selected and never happen. An overflow with its interrupt enabled is an NMI: software has the local APIC's entry for it say so.
/// </summary>
/// <remarks>
/// SDM vol. 3B, "Architectural Performance Monitoring" version 2; APM vol. 2, "Performance Monitoring Counters" (four legacy counters, six with PerfCtrExtCore). Nothing is counted
/// instruction by instruction: counters take over what the run loop has retired when somebody looks, the privilege or the mode changes, or one overflows, before which the loop stops
/// by itself (<see cref="Allowance"/>). DIVERGES: D-HW-9
/// </remarks>
internal sealed unsafe class PerformanceMonitor
{
    private const uint K7Select0 = 0xc0010000, K7Counter0 = 0xc0010004, CoreSelect0 = 0xc0010200;
    private const uint Counter0 = 0xc1, Select0 = 0x186, Fixed0 = 0x309, FixedControl = 0x38d, GlobalStatus = 0x38e, GlobalControl = 0x38f, GlobalOverflow = 0x390, FullWidth0 = 0x4c1;
    private const uint PerfCapabilities = 0x345;
    private const ulong User = 1 << 16, Os = 1 << 17, Edge = 1 << 18, Interrupt = 1 << 20, Enable = 1 << 22, Invert = 1 << 23, GuestOnly = 1UL << 40, HostOnly = 1UL << 41;
    /// <summary>Turns that a counter of time is not looked at.</summary>
    private const ulong Unwatched = 1 << 16;

    private enum Source : byte { None, Instructions, Reference }

    private struct Counter
    {
        internal ulong Value, Select;
        internal Source Source;
        /// <summary>It counts in the present mode.</summary>
        internal bool Runs;
    }

    private readonly Processor cpu;
    private readonly bool intel, fullWidth;
    private readonly int general, all;
    private readonly ulong mask;
    private readonly Counter[] counters;
    private ulong fixedControl, globalControl, globalStatus;
    private ulong settled, settledTicks, limit = ulong.MaxValue;
    private ulong? deferredControl;
    private bool user, guest, timed, running, wanted, exact, inside;
    private ulong exactRip;

    private PerformanceMonitor(Processor cpu)
    {
        this.cpu = cpu;
        CpuModel model = cpu.Model;
        intel = model.Vendor == CpuVendor.Intel;
        CpuidLeaf leaf = model.Leaf(0xa);
        general = intel ? (int)(leaf.Eax >> 8 & 0xff) : model.FeatureExtEcx(23) ? 6 : 4;
        all = general + (intel ? (int)(leaf.Edx & 0x1f) : 0);
        mask = (1UL << (intel ? (int)(leaf.Eax >> 16 & 0xff) : 48)) - 1;
        fullWidth = intel && model.Feature1Ecx(15) && (model.Msrs.GetValueOrDefault(PerfCapabilities) & 1 << 13) != 0;
        counters = new Counter[all];
        Reset();
    }

    /// <summary>The counters of a model that has some; null otherwise.</summary>
    internal static PerformanceMonitor? Of(Processor cpu) => cpu.Model.PerformanceCounters ? new PerformanceMonitor(cpu) : null;

    /// <summary>MSRs of counters, whether or not they count.</summary>
    internal static bool IsCounter(uint msr) => msr is (>= Counter0 and < Counter0 + 8) or (>= Select0 and < Select0 + 8) or (>= Fixed0 and < Fixed0 + 4) or (>= K7Select0 and < K7Counter0 + 4) or (>= CoreSelect0 and < CoreSelect0 + 12);

    /// <summary>Some counter is on, in this mode or another.</summary>
    internal bool Active { get; private set; }

    /// <summary>The run loop has to come to <see cref="Boundary"/> at its next turn.</summary>
    internal bool Attention => Active | wanted | deferredControl.HasValue;

    internal void Reset()
    {
        Array.Clear(counters);
        fixedControl = globalStatus = 0;
        globalControl = intel ? (1UL << general) - 1 : 0;
        for (int i = general; i < all; i++)
            counters[i].Source = i - general == 2 ? Source.Reference : Source.Instructions;
        settled = cpu.State->InstructionsRetired;
        Update();
    }

    // ---- the run loop's part ----

    /// <summary>The run loop begins: until <see cref="Leave"/> only it knows how many instructions were retired.</summary>
    internal void Enter() => running = true;

    internal void Leave(ulong retired)
    {
        Boundary(retired);
        running = false;
    }

    /// <summary>Between two instructions: the counters follow a change of mode and overflow when they are due.</summary>
    internal void Boundary(ulong retired)
    {
        bool isUser = cpu.State->Cpl == 3, isGuest = cpu.NonRoot is not null;
        if (isUser == user && isGuest == guest && !wanted && deferredControl is null && retired - settled < limit)
            return;
        Settle(retired);
        (user, guest) = (isUser, isGuest);
        if (deferredControl is { } control)
        {
            globalControl = control;
            deferredControl = null;
        }

        Update();
        exact = wanted;
        exactRip = cpu.State->Rip;
        wanted = inside = false;
    }

    /// <summary>Instructions that may be retired until the next boundary.</summary>
    internal ulong Allowance(ulong retired) => limit - Math.Min(limit, retired - settled);

    /// <summary>
    /// Before an instruction that looks at a counter: true when all before it are counted. Otherwise it begins again at a boundary, where they are.
    /// </summary>
    internal bool Exact()
    {
        if (!running)
            return true;
        inside = exact && exactRip == cpu.State->Rip;
        exact = false;
        wanted = !inside;
        return inside;
    }

    private void Settle(ulong retired)
    {
        ulong instructions = retired - settled, ticks = 0;
        settled = retired;
        if (timed)
        {
            ulong now = cpu.ReadTsc();
            ticks = now - settledTicks;
            settledTicks = now;
        }

        for (int i = 0; i < counters.Length; i++)
        {
            ref Counter counter = ref counters[i];
            if (!counter.Runs)
                continue;
            counter.Value += counter.Source == Source.Reference ? ticks : instructions;
            if (counter.Value > mask)
            {
                counter.Value &= mask;
                Overflow(i);
            }
        }
    }

    private void Overflow(int i)
    {
        if (intel)
            globalStatus |= Bit(i);
        if (i < general ? (counters[i].Select & Interrupt) != 0 : (fixedControl >> 4 * (i - general) & 8) != 0)
            cpu.RaiseNmi();
    }

    /// <summary>Which counters run in this mode, and how far they are from overflowing.</summary>
    private void Update()
    {
        bool active = false, wasTimed = timed;
        timed = false;
        limit = ulong.MaxValue;
        for (int i = 0; i < all; i++)
        {
            ref Counter counter = ref counters[i];
            bool on = counter.Source != Source.None && On(i);
            active |= on;
            counter.Runs = on && InMode(i);
            if (!counter.Runs)
                continue;
            bool reference = counter.Source == Source.Reference;
            timed |= reference;
            limit = Math.Min(limit, reference ? Unwatched : mask + 1 - counter.Value);
        }

        Active = active;
        if (timed && !wasTimed)
            settledTicks = cpu.ReadTsc();
    }

    private ulong Bit(int i) => i < general ? 1UL << i : 1UL << (32 + i - general);

    private bool On(int i)
    {
        if (i >= general)
            return (globalControl & Bit(i)) != 0 && (fixedControl >> 4 * (i - general) & 3) != 0;
        return (counters[i].Select & Enable) != 0 && (!intel || (globalControl & Bit(i)) != 0);
    }

    private bool InMode(int i)
    {
        if (i >= general)
            return (fixedControl >> 4 * (i - general) & (user ? 2UL : 1)) != 0;
        ulong select = counters[i].Select;
        if ((select & (user ? User : Os)) == 0)
            return false;
        bool filtered = !intel && (cpu.State->Efer & Efer.SVME) != 0;
        return (select & (GuestOnly | HostOnly)) switch
        {
            GuestOnly when filtered => guest,
            HostOnly when filtered => !guest,
            _ => true,
        };
    }

    /// <summary>A threshold (CMASK) compares with one instruction to a cycle; edges of what goes on all the time are not seen.</summary>
    private Source SourceOf(ulong select)
    {
        ulong threshold = select >> 24 & 0xff;
        if ((select & Edge) != 0 || (threshold != 0 && ((select & Invert) != 0 ? threshold <= 1 : threshold > 1)))
            return Source.None;
        return intel
            ? (select & 0xffff) switch { 0xc0 or 0x3c => Source.Instructions, 0x13c => Source.Reference, _ => Source.None }
            : (select & 0xf_0000_00ff) switch { 0xc0 or 0x76 => Source.Instructions, _ => Source.None };
    }

    // ---- MSRs: false = not one of these, or #GP ----

    internal bool Owns(uint msr) => Find(msr, out _) || (intel && msr is FixedControl or GlobalStatus or GlobalControl or GlobalOverflow);

    internal ulong Read(uint msr)
    {
        Settle(running ? settled : cpu.State->InstructionsRetired);
        return msr switch
        {
            FixedControl when intel => fixedControl,
            GlobalStatus when intel => globalStatus,
            GlobalControl when intel => deferredControl ?? globalControl,
            GlobalOverflow when intel => 0,
            _ => Find(msr, out int i) ? IsSelect(msr) ? counters[i].Select : counters[i].Value : 0,
        };
    }

    internal bool Write(uint msr, ulong value)
    {
        if (running && !inside && msr == GlobalControl && intel)
        {
            // VM exit or entry in the midst of a run: what was retired before it is still to be counted.
            if ((value & ~Controls) != 0)
                return false;
            deferredControl = value;
            return true;
        }

        Settle(running ? settled : cpu.State->InstructionsRetired);
        bool ok = intel ? WriteIntel(msr, value) : WriteAmd(msr, value);
        Update();
        return ok;
    }

    private ulong Controls => ((1UL << general) - 1) | ((1UL << (all - general)) - 1) << 32;

    private bool WriteIntel(uint msr, ulong value)
    {
        switch (msr)
        {
            case FixedControl:
                for (int i = 0; i < all - general; i++)
                {
                    if ((value >> 4 * i & 4) != 0)
                        return false;
                }

                return value >> 4 * (all - general) == 0 && Set(out fixedControl, value);
            case GlobalStatus:
                return false;
            case GlobalControl:
                deferredControl = null;
                return (value & ~Controls) == 0 && Set(out globalControl, value);
            case GlobalOverflow:
                if ((value & ~(Controls | 3UL << 62)) != 0)
                    return false;
                globalStatus &= ~value;
                return true;
        }

        Find(msr, out int at);
        if (IsSelect(msr))
        {
            counters[at].Source = SourceOf(value);
            return (value & 0xffff_ffff_0020_0000) == 0 && Set(out counters[at].Select, value);
        }

        if (msr >= FullWidth0)
            return (value & ~mask) == 0 && Set(out counters[at].Value, value);
        counters[at].Value = (at < general ? (ulong)(int)value : value) & mask;
        return true;
    }

    private bool WriteAmd(uint msr, ulong value)
    {
        const ulong reserved = 0xffff_fcf0_0028_0000;
        Find(msr, out int at);
        if (!IsSelect(msr))
            return Set(out counters[at].Value, value & mask);
        if ((value & reserved) != 0)
            return false;
        counters[at].Source = SourceOf(value);
        return Set(out counters[at].Select, value);
    }

    private static bool Set(out ulong target, ulong value)
    {
        target = value;
        return true;
    }

    private bool IsSelect(uint msr) => intel ? msr is >= Select0 and < Select0 + 64 : msr < K7Counter0 || (msr >= CoreSelect0 && (msr & 1) == 0);

    private bool Find(uint msr, out int at)
    {
        at = intel
            ? msr switch
            {
                >= Fixed0 and < Fixed0 + 16 => general + (int)(msr - Fixed0),
                >= FullWidth0 and < FullWidth0 + 64 when fullWidth => General(msr - FullWidth0),
                >= Select0 and < Select0 + 64 => General(msr - Select0),
                >= Counter0 and < Counter0 + 64 => General(msr - Counter0),
                _ => int.MaxValue,
            }
            : msr switch
            {
                >= K7Select0 and < K7Counter0 => (int)(msr - K7Select0),
                >= K7Counter0 and < K7Counter0 + 4 => (int)(msr - K7Counter0),
                >= CoreSelect0 and < CoreSelect0 + 12 when general == 6 => (int)(msr - CoreSelect0) / 2,
                _ => int.MaxValue,
            };
        return at < all;
    }

    private int General(uint i) => i < general ? (int)i : int.MaxValue;
}

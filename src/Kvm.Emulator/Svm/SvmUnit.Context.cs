using System.Runtime.CompilerServices;

namespace Kvm.Emulator.Svm;

/// <summary>What the processor keeps between runs so that an exit and re-entry stay cheap (ARCHITECTURE D3): page pointers, and the translation context of the last guest.</summary>
internal sealed unsafe partial class SvmUnit
{
    private const int PageCacheSize = 16;

    private struct CachedPage
    {
        public ulong Pa;
        public byte* Pointer;
        public uint Epoch;
    }

    private readonly CachedPage[] pageCache = new CachedPage[PageCacheSize];

    internal uint MemoryEpoch => memory.Epoch;

    /// <summary>Host pointer of a physical address, null where there is no RAM.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal byte* Physical(ulong pa)
    {
        ref CachedPage entry = ref pageCache[(int)(pa >> 12) & (PageCacheSize - 1)];
        if (entry.Pa == (pa & ~0xfffUL) && entry.Epoch == memory.Epoch && entry.Pointer != null)
            return entry.Pointer + (pa & 0xfff);
        return PhysicalSlow(pa, ref entry);
    }

    private byte* PhysicalSlow(ulong pa, ref CachedPage entry)
    {
        uint epoch = memory.Epoch;
        byte* page = memory.Pointer(pa & ~0xfffUL);
        entry = new CachedPage { Pa = pa & ~0xfffUL, Pointer = page, Epoch = epoch };
        return page == null ? null : page + (pa & 0xfff);
    }

    /// <summary>Everything that State->Mode and State->Tlb are computed from.</summary>
    private struct ContextKey
    {
        public ulong Vmcb, Cr0, Cr3, Cr4, Efer, Xcr0, Flags, NestedRoot, TagAndCpl;
        /// <summary>State of the image of the guest's ES, CS, SS and DS.</summary>
        public uint Segments;
        public ulong Switches;
        public TlbEntry* Tlb;
        public ulong Mode;
    }

    private ContextKey context;
    private bool contextRemembered;

    private ulong ContextFlags => state->Rflags & (Flags.VM | Flags.AC | Flags.TF | Flags.RF);

    private ulong TagAndCpl
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get => (ulong)guest.Tag << 8 | state->Cpl;
    }

    private void FillContext(ref ContextKey key)
    {
        key.Vmcb = vmcbPa;
        key.Cr0 = state->Cr0;
        key.Cr3 = state->Cr3;
        key.Cr4 = state->Cr4;
        key.Efer = state->Efer;
        key.Xcr0 = state->Xcr0;
        key.Flags = ContextFlags;
        key.NestedRoot = guest.Root;
        key.TagAndCpl = TagAndCpl;
        key.Segments = guestData->Generation;
        key.Switches = cpu.Mmu.Switches;
        key.Tlb = state->Tlb;
        key.Mode = state->Mode;
    }

    /// <summary>0 when everything is as in <paramref name="key"/>. Compared in place: a second key would be written in small pieces and read in large ones.</summary>
    private ulong ContextDifference(ref ContextKey key) =>
        (key.Vmcb ^ vmcbPa) | (key.Cr0 ^ state->Cr0) | (key.Cr3 ^ state->Cr3) | (key.Cr4 ^ state->Cr4) | (key.Efer ^ state->Efer) | (key.Xcr0 ^ state->Xcr0) | (key.Flags ^ ContextFlags)
        | (key.NestedRoot ^ guest.Root) | (key.TagAndCpl ^ TagAndCpl) | (key.Switches ^ cpu.Mmu.Switches)
        | ((ulong)key.Tlb ^ (ulong)state->Tlb) | (key.Mode ^ state->Mode)
        | (key.Segments ^ guestData->Generation);

    /// <summary>
    /// The guest exited to kernel code, nothing ran in between, and nothing has changed that its decoding mode and TLB depend on: they are still in place.
    /// Single-stepping and breakpoints always go the long way.
    /// </summary>
    private bool ContextIsLoaded()
    {
        if (!contextRemembered || !cpu.HostContextPending || (state->Dr[7] & 0xff) != 0 || cpu.MonitorTrap || (state->Rflags & (Flags.TF | Flags.RF)) != 0 || state->DebugCtl != 0)
            return false;
        return ContextDifference(ref context) == 0;
    }

    /// <summary>Called while the guest's state is still loaded, and its image is of the segments that were stored.</summary>
    private void RememberContext()
    {
        contextRemembered = cpu.GuestEnteredFromKernel && guestData->Valid;
        if (contextRemembered)
            FillContext(ref context);
    }
}

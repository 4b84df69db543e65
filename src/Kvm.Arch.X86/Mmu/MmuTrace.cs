using System.Text;
using Kvm.Core.Tracing;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86;

/// <summary>Texts of the MMU's tracepoints.</summary>
/// <remarks>mmu/mmutrace.h.</remarks>
internal static class MmuTrace
{
    private static readonly (uint Bit, string Name)[] flags =
        [(PFERR_PRESENT_MASK, "P"), (PFERR_WRITE_MASK, "W"), (PFERR_USER_MASK, "U"), (PFERR_RSVD_MASK, "RSVD"), (PFERR_FETCH_MASK, "F")];

    /// <summary>kvm_mmu_trace_pferr_flags.</summary>
    public static string Flags(uint error)
    {
        var text = new StringBuilder();
        foreach ((uint bit, string name) in flags)
        {
            if ((error & bit) == 0)
                continue;
            if (text.Length != 0)
                text.Append('|');
            text.Append(name);
            error &= ~bit;
        }

        if (error != 0)
            text.Append(text.Length != 0 ? "|" : "").Append("0x").Append(error.ToString("x", System.Globalization.CultureInfo.InvariantCulture));
        return text.ToString();
    }

    /// <summary>r, w, x and u of an entry, as kvm_mmu_set_spte prints them.</summary>
    public static string Rights(SpteMasks masks, ulong spte)
    {
        bool present = masks.Present != 0 || (spte & SpteMasks.PT_PRESENT_MASK) != 0;
        bool exec = masks.X != 0 ? (spte & masks.X) != 0 : (spte & masks.Nx) == 0;
        return $"{(present ? 'r' : '-')}{((spte & SpteMasks.PT_WRITABLE_MASK) != 0 ? 'w' : '-')}{(exec ? 'x' : '-')}{((spte & masks.User) != 0 ? 'u' : '-')}";
    }

    /// <summary>mark_mmio_spte.</summary>
    public static void MarkMmio(ulong sptep, ulong gfn, ulong spte) =>
        Tracepoints.Emit("mark_mmio_spte", $"sptep:{sptep:x16} gfn {gfn:x} access {spte & ACC_ALL:x} gen {SpteMasks.MmioGeneration(spte):x}");

    /// <summary>kvm_mmu_set_spte.</summary>
    public static void SetSpte(SpteMasks masks, ulong sptep, ulong gfn, int level, ulong spte) =>
        Tracepoints.Emit("kvm_mmu_set_spte", $"gfn {gfn:x} spte {spte:x} ({Rights(masks, spte)}) level {level} at {sptep:x}");

    /// <summary>kvm_mmu_spte_requested.</summary>
    public static void Requested(in KvmPageFault fault) =>
        Tracepoints.Emit("kvm_mmu_spte_requested", $"gfn {fault.Gfn:x} pfn {fault.Pfn:x} level {fault.GoalLevel}");

    /// <summary>kvm_tdp_mmu_spte_changed: an entry of a table, by its address.</summary>
    public static unsafe void Changed(KvmMmuPage table, ulong* ptep, ulong old, ulong spte)
    {
        ulong gfn = table.Gfn + ((ulong)(ptep - table.Spt) << (9 * (table.Level - 1)));
        Tracepoints.Emit("kvm_tdp_mmu_spte_changed", $"as id {(table.Smm ? 1 : 0)} gfn {gfn:x} level {table.Level} old_spte {old:x} new_spte {spte:x}");
    }

    /// <summary>The text of a page of the TDP MMU.</summary>
    public static string Page(KvmMmuPage sp, bool adDisabled) =>
        $"sp gen 0 gfn {sp.Gfn:x} l{sp.Level} 8-byte q0 direct wux nxe {(adDisabled ? "!" : "")}ad root {sp.RootCount} sync";
}

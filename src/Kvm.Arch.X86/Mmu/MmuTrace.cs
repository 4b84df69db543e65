using System.Text;
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
}

using System.Runtime.CompilerServices;

namespace Kvm.Emulator;

public sealed unsafe partial class Mmu
{
    /// <summary>Whether the address is canonical under CR4.LA57.</summary>
    internal bool Canonical(ulong linear)
    {
        int shift = (state->Cr4 & Cr4.LA57) != 0 ? 7 : 16;
        return (ulong)((long)(linear << shift) >> shift) == linear;
    }

    /// <summary>Linear addresses have 32 bits outside 64-bit mode.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private ulong Wrap(ulong linear) => (state->Efer & Efer.LMA) != 0 ? linear : (uint)linear;

    /// <summary>
    /// Segment checks only: unusable and type, limit, canonical form, alignment. <see cref="Seg.None"/>: the offset is a linear address.
    /// Faults with #SS(0) for SS, #GP(0) otherwise, #AC(0) for misalignment.
    /// </summary>
    /// <remarks>SDM vol 3A, "Limit Checking", "Type Checking", "Canonicality Checking"; vol 1, "Memory Operand Alignment".</remarks>
    public bool CheckedLinear(Seg segment, ulong offset, int size, AccessKind kind, out ulong linear)
    {
        if (segment == Seg.None)
        {
            linear = offset;
            return true;
        }
        ref SegmentCache s = ref cpu.Segment(segment);
        if (cpu.Code64)
        {
            linear = segment >= Seg.FS ? offset + s.Base : offset;
            if (!Canonical(linear) || !Canonical(linear + (ulong)size - 1))
                return SegmentFault(segment);
        }
        else
        {
            linear = (uint)(offset + s.Base);
            if (!CheckLimit(segment, ref s, offset, size, kind))
                return SegmentFault(segment);
        }
        // Pseudo-descriptors (6 or 10 bytes) are checked as the parts they are moved in.
        if ((state->Mode & (uint)CodeMode.AlignmentCheck) != 0 && (size & (size - 1)) == 0 && (linear & (ulong)(size - 1)) != 0)
        {
            cpu.Raise(new Fault(Fault.AC, true));
            return false;
        }
        return true;
    }

    private bool CheckLimit(Seg segment, ref SegmentCache s, ulong offset, int size, AccessKind kind)
    {
        if ((state->Cr0 & Cr0.PE) != 0 && (state->Rflags & Flags.VM) == 0)
        {
            if (s.Unusable)
                return false;
            uint type = s.AccessRights & 0xf;
            bool code = (type & SegmentRights.Code) != 0;
            if (kind is AccessKind.Write or AccessKind.ReadWrite)
            {
                if (code || (type & SegmentRights.Writable) == 0)
                    return false;
            }
            else if (code && (type & SegmentRights.Readable) == 0 && kind == AccessKind.Read)
            {
                return false;
            }
            if (!code && (type & SegmentRights.ExpandDown) != 0)
            {
                ulong top = s.Db ? 0xffff_ffffUL : 0xffffUL;
                return offset > s.Limit && offset + (ulong)size - 1 <= top;
            }
        }
        return offset + (ulong)size - 1 <= s.Limit && offset <= s.Limit;
    }

    private bool SegmentFault(Seg segment)
    {
        cpu.Raise(new Fault(segment == Seg.SS ? Fault.SS : Fault.GP, true));
        return false;
    }
}

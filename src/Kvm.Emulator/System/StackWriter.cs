namespace Kvm.Emulator;

public sealed unsafe partial class Processor
{
    /// <summary>
    /// Pushes to a stack that is not (yet) the current one, or whose pointer must stay as it is until everything succeeded. Memory is written at once;
    /// registers change with <see cref="Commit"/>.
    /// </summary>
    private struct StackWriter
    {
        private readonly Processor cpu;
        private SegmentCache ss;
        private ulong sp;
        private readonly int cpl;
        /// <summary>Error code of #SS for a push beyond the limit.</summary>
        public uint FaultCode;
        /// <summary>64-bit stack: no segment.</summary>
        public bool Long;

        /// <summary>The current stack.</summary>
        public StackWriter(Processor cpu)
        {
            this.cpu = cpu;
            ss = cpu.Segment(Seg.SS);
            sp = cpu.State->Gpr[4];
            cpl = cpu.State->Cpl;
            Long = cpu.Code64;
        }

        public StackWriter(Processor cpu, in SegmentCache ss, ulong sp, int cpl, uint faultCode)
        {
            this.cpu = cpu;
            this.ss = ss;
            this.sp = sp;
            this.cpl = cpl;
            FaultCode = faultCode;
        }

        private readonly ulong Mask => Long ? ulong.MaxValue : ss.Db ? uint.MaxValue : 0xffffUL;

        /// <summary>Whether the next pushes lie within the segment, or are canonical: what is checked before anything is written. False: #SS is pending.</summary>
        public readonly bool HasRoom(int pushes, int width)
        {
            for (int i = 1; i <= pushes; i++)
            {
                ulong offset = (sp - (ulong)(i * width)) & Mask;
                if (Long ? !cpu.Mmu.Canonical(offset) : !InLimit(offset, width))
                    return StackFault();
            }
            return true;
        }

        public bool Push(ulong value, int width)
        {
            if (!HasRoom(1, width))
                return false;
            ulong mask = Mask, offset = (sp - (ulong)width) & mask;
            ulong linear = Long ? offset : (uint)(ss.Base + offset);
            if (cpl == 3 && (cpu.State->Mode & (uint)CodeMode.AlignmentCheck) != 0 && (linear & (ulong)(width - 1)) != 0)
            {
                cpu.Raise(new Fault(Fault.AC, true));
                return false;
            }
            if (!cpu.Mmu.WriteAs(linear, width, width == 8 ? value : value & ((1UL << (width * 8)) - 1), cpl))
                return false;
            sp = (sp & ~mask) | offset;
            return true;
        }

        private readonly bool InLimit(ulong offset, int width)
        {
            ulong last = offset + (ulong)width - 1;
            bool expandDown = (ss.AccessRights & (SegmentRights.Code | SegmentRights.ExpandDown)) == SegmentRights.ExpandDown && cpu.ProtectedMode && !cpu.Virtual8086;
            return expandDown ? offset > ss.Limit && last <= (ss.Db ? uint.MaxValue : 0xffffUL) : last <= ss.Limit;
        }

        private readonly bool StackFault()
        {
            cpu.Raise(new Fault(Fault.SS, true, FaultCode));
            return false;
        }

        /// <summary>Makes the stack current. The caller sets CPL and calls UpdateMode.</summary>
        public readonly void Commit()
        {
            cpu.Segment(Seg.SS) = ss;
            cpu.State->Gpr[4] = sp;
        }
    }
}

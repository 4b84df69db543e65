using System.Runtime.CompilerServices;

namespace Kvm.Emulator.Vmx;

/// <summary>SDM vol 3C, "The Extended Page Table Mechanism": the walk, violations, misconfigurations, accessed and dirty flags, page-modification log.</summary>
internal sealed unsafe partial class VmxGuest
{
    private const ulong EptRead = 1, EptWrite = 2, EptExecute = 4, EptRights = 7, EptUserExecute = 1UL << 10, EptPage = 1UL << 7, EptAccessed = 1UL << 8, EptDirty = 1UL << 9, EptSuppressVe = 1UL << 63;
    private const ulong EptAddress = 0x000f_ffff_ffff_f000;

    /// <summary>Bits of the exit qualification of an EPT violation.</summary>
    private const ulong ViolationExecute = 4, ViolationUserExecutable = 1 << 6, ViolationLinearValid = 1 << 7, ViolationTranslation = 1 << 8, ViolationNmiUnblocking = 1 << 12;

    private enum PendingExit : byte { None, EptViolation, EptMisconfiguration, PmlFull, ApicAccess, ApicWrite, VirtualizationException }

    private readonly bool executeOnlyEpt, largeEptPages, hugeEptPages, advancedEptInformation;
    /// <summary>"Mode-based execute control for EPT": bit 10 of an entry is the right to execute from user-mode linear addresses.</summary>
    private bool modeBasedExecute;

    private PendingExit pendingExit;
    private ulong pendingQualification, pendingGpa, pendingLinear;
    private bool pendingLinearValid;

    public override bool TranslateGpa(ulong gpa, in NestedAccess access, out NestedTranslation translation)
    {
        translation = default;
        ulong needed = Needed(access);
        ulong present = modeBasedExecute ? EptRights | EptUserExecute : EptRights;
        ulong rights = present;
        ulong table = eptRoot;
        if (gpa >> 48 != 0 && eptLevels == 4)
            return Violation(gpa, access, needed, 0, 0);
        for (int level = eptLevels; ; level--)
        {
            int shift = 3 + (9 * level);
            ulong* entry = Entry(table, (int)(gpa >> shift) & 0x1ff);
            ulong value = entry == null ? ulong.MaxValue : *entry;
            if ((value & present) == 0)
                return Violation(gpa, access, needed, 0, value);
            bool leaf = level == 1 || (level <= 3 && (value & EptPage) != 0);
            if (IsMisconfigured(value, level, leaf))
                return Misconfiguration(gpa, access);
            rights &= value;
            if (!leaf)
            {
                SetFlags(entry, value, EptAccessed);
                table = value & EptAddress;
                continue;
            }
            if ((rights & needed) != needed)
                return Violation(gpa, access, needed, rights, value);
            ulong offsetMask = (1UL << shift) - 1;
            if (eptAccessedDirty && !UpdateLeaf(entry, ref value, (needed & EptWrite) != 0, gpa, access))
                return false;
            ulong hpa = (value & EptAddress & ~offsetMask) | (gpa & offsetMask);
            bool dirty = !eptAccessedDirty || (value & EptDirty) != 0;
            translation = new NestedTranslation(hpa, (rights & EptWrite) != 0, (rights & (EptExecute | EptUserExecute)) != 0, dirty, offsetMask + 1, (rights & EptRead) != 0);
            return true;
        }
    }

    /// <summary>Rights that the access needs. Guest page-table accesses count as writes when accessed and dirty flags for EPT are on.</summary>
    private ulong Needed(in NestedAccess access)
    {
        ulong needed = (access.Read ? EptRead : 0) | (access.Write ? EptWrite : 0);
        if (access.Execute)
            needed |= modeBasedExecute && (access.LinearRights & 1) != 0 ? EptUserExecute : EptExecute;
        if (access.PageWalk && (eptAccessedDirty || access.WalkWritesAd))
            needed |= EptRead | EptWrite;
        return needed;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private ulong* Entry(ulong table, int index)
    {
        byte* page = unit.Physical(table);
        return page == null ? null : (ulong*)page + index;
    }

    /// <summary>"EPT Misconfigurations": write or write-execute without read, execute-only where not supported, reserved bits, reserved memory types.</summary>
    private bool IsMisconfigured(ulong entry, int level, bool leaf)
    {
        ulong executable = modeBasedExecute ? EptExecute | EptUserExecute : EptExecute;
        if ((entry & (EptRead | EptWrite)) == EptWrite || ((entry & EptRead) == 0 && (entry & executable) != 0 && !executeOnlyEpt))
            return true;
        if ((entry & EptAddress) >> cpu.PhysicalAddressBits != 0)
            return true;
        if (!leaf)
            return (entry & (level >= 4 ? 0xf8UL : 0x78UL)) != 0;
        if (level == 3 && (!hugeEptPages || (entry & 0x3fff_f000) != 0))
            return true;
        if (level == 2 && (!largeEptPages || (entry & 0x1f_f000) != 0))
            return true;
        return (entry >> 3 & 7) is 2 or 3 or 7;
    }

    /// <summary>Sets accessed (and dirty) in a leaf; the first write logs the page. False: the log is full and an exit is pending.</summary>
    private bool UpdateLeaf(ulong* entry, ref ulong value, bool write, ulong gpa, in NestedAccess access)
    {
        if (write && (value & EptDirty) == 0 && Has(SecondaryControls.EnablePml) && !LogDirtyPage(gpa, access))
            return false;
        ulong flags = write ? EptAccessed | EptDirty : EptAccessed;
        SetFlags(entry, value, flags);
        value |= flags;
        return true;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private void SetFlags(ulong* entry, ulong value, ulong flags)
    {
        if (eptAccessedDirty && (value & flags) != flags)
            Interlocked.Or(ref *entry, flags);
    }

    /// <summary>"Page-Modification Logging": the index counts down from 511; when it is out of range, a page-modification-log-full exit comes instead.</summary>
    private bool LogDirtyPage(ulong gpa, in NestedAccess access)
    {
        if (vmcs->GuestPmlIndex > 511)
        {
            pendingExit = PendingExit.PmlFull;
            pendingQualification = NmiUnblocking() ? ViolationNmiUnblocking : 0;
            pendingLinearValid = access.LinearValid;
            cpu.PendingMemoryExit = true;
            return false;
        }
        byte* log = unit.Physical(vmcs->PmlAddress);
        if (log != null)
            ((ulong*)log)[vmcs->GuestPmlIndex] = gpa & ~0xfffUL;
        vmcs->GuestPmlIndex--;
        return true;
    }

    /// <summary>Records a violation. <paramref name="rights"/>: what all levels together permit, 0 when an entry is not present.</summary>
    private bool Violation(ulong gpa, in NestedAccess access, ulong needed, ulong rights, ulong entry)
    {
        ulong qualification = (needed & EptRights) | (rights & EptRights) << 3;
        if ((needed & EptUserExecute) != 0)
            qualification |= ViolationExecute;
        if (modeBasedExecute && (rights & EptUserExecute) != 0)
            qualification |= ViolationUserExecutable;
        if (access.LinearValid)
            qualification |= ViolationLinearValid | (access.PageWalk ? 0 : ViolationTranslation);
        if (advancedEptInformation && access.LinearValid && !access.PageWalk)
            qualification |= (ulong)access.LinearRights << 9;
        if (NmiUnblocking())
            qualification |= ViolationNmiUnblocking;
        RecordMemoryExit(IsConvertible(entry) ? PendingExit.VirtualizationException : PendingExit.EptViolation, qualification, gpa, access);
        return false;
    }

    private bool Misconfiguration(ulong gpa, in NestedAccess access)
    {
        RecordMemoryExit(PendingExit.EptMisconfiguration, 0, gpa, access);
        return false;
    }

    private void RecordMemoryExit(PendingExit exit, ulong qualification, ulong gpa, in NestedAccess access)
    {
        pendingExit = exit;
        pendingQualification = qualification;
        pendingGpa = gpa;
        pendingLinear = access.Linear;
        pendingLinearValid = access.LinearValid;
        cpu.PendingMemoryExit = true;
    }

    /// <summary>"Convertible EPT Violations": #VE instead of an exit when enabled, not suppressed by the entry, in protected mode, outside event delivery, area free.</summary>
    private bool IsConvertible(ulong entry)
    {
        if (!Has(SecondaryControls.EptViolationVe) || (entry & EptSuppressVe) != 0 || !cpu.ProtectedMode || isVectoring)
            return false;
        byte* area = unit.Physical(vmcs->VeInfoAddress);
        return area != null && *(uint*)(area + 4) == 0;
    }

    public override void TakePendingMemoryExit()
    {
        PendingExit exit = pendingExit;
        pendingExit = PendingExit.None;
        cpu.PendingMemoryExit = false;
        switch (exit)
        {
            case PendingExit.EptViolation:
                TakeEptExit(VmxExitReason.EPT_VIOLATION);
                break;
            case PendingExit.EptMisconfiguration:
                TakeEptExit(VmxExitReason.EPT_MISCONFIG);
                break;
            case PendingExit.PmlFull:
                SetResumeFlag();
                Exit(VmxExitReason.PML_FULL, pendingQualification, PendingLength);
                break;
            case PendingExit.ApicAccess:
                SetResumeFlag();
                vmcs->GuestLinearAddress = pendingLinear;
                Exit(VmxExitReason.APIC_ACCESS, pendingQualification, PendingLength);
                break;
            case PendingExit.VirtualizationException:
                DeliverVirtualizationException();
                break;
        }
    }

    private void TakeEptExit(VmxExitReason reason)
    {
        SetResumeFlag();
        vmcs->GuestPhysicalAddress = pendingGpa;
        if (pendingLinearValid)
            vmcs->GuestLinearAddress = pendingLinear;
        Exit(reason, pendingQualification, PendingLength);
    }

    /// <summary>Length of the instruction whose access failed; event delivery is not an instruction.</summary>
    private int PendingLength => isVectoring ? 0 : cpu.PendingLength;

    /// <summary>Fault-like exits outside event delivery save RFLAGS.RF = 1, as the corresponding exception would.</summary>
    private void SetResumeFlag()
    {
        if (!isVectoring)
            cpu.State->Rflags |= Flags.RF;
    }

    /// <summary>"Virtualization Exceptions": fills the information area and delivers vector 20 through the guest's IDT.</summary>
    private void DeliverVirtualizationException()
    {
        byte* area = unit.Physical(vmcs->VeInfoAddress);
        *(uint*)area = (uint)VmxExitReason.EPT_VIOLATION;
        *(uint*)(area + 4) = uint.MaxValue;
        *(ulong*)(area + 8) = pendingQualification;
        *(ulong*)(area + 16) = pendingLinear;
        *(ulong*)(area + 24) = pendingGpa;
        *(ushort*)(area + 32) = vmcs->EptpIndex;
        cpu.PendingFault = new Fault(Fault.VE);
        cpu.DeliverPending();
    }

    // ---- IRET and NMI blocking ----
    private bool iretUnblocked;

    /// <summary>IRET ends NMI blocking before it can fault; remembered for the bit "NMI unblocking due to IRET".</summary>
    private void NoteIret()
    {
        iretUnblocked = cpu.State->NmiBlocked != 0 && IretUnblocksNmi;
        if (iretUnblocked)
            cpu.State->NmiBlocked = 0;
    }

    /// <summary>The IRET has succeeded. Answers whether it ends NMI blocking: not with "NMI exiting" and without virtual NMIs.</summary>
    public override bool IretCompleted()
    {
        iretUnblocked = false;
        return IretUnblocksNmi;
    }

    private bool IretUnblocksNmi => !Has(PinBasedControls.NmiExiting) || Has(PinBasedControls.VirtualNmis);

    /// <summary>The fault or exit that is being recorded is one of an IRET that has ended NMI blocking.</summary>
    private bool NmiUnblocking() => iretUnblocked && !isVectoring;
}

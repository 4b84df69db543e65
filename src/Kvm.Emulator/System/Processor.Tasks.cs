using System.Runtime.InteropServices;

namespace Kvm.Emulator;

/// <summary>What started a task switch, numbered as in the VMX exit qualification.</summary>
internal enum TaskSwitchSource { Call = 0, Iret = 1, Jump = 2, Gate = 3 }

/// <summary>Hardware task switching through 16- and 32-bit TSSs.</summary>
/// <remarks>SDM vol 3A, "Task Switching". Faults up to the load of TR belong to the old task, later ones to the new task.</remarks>
public sealed unsafe partial class Processor
{
    /// <summary>Offsets of the fields of a TSS.</summary>
    private readonly record struct TssLayout(int Width, uint MinimumLimit, uint Ip, uint Flags, uint Gpr, uint Segments, int SegmentCount, uint Ldt, uint Cr3)
    {
        public static readonly TssLayout Tss32 = new(4, (uint)sizeof(TaskState32) - 1, At<TaskState32>(nameof(TaskState32.Eip)), At<TaskState32>(nameof(TaskState32.Eflags)),
            At<TaskState32>(nameof(TaskState32.Registers)), At<TaskState32>(nameof(TaskState32.Es)), 6, At<TaskState32>(nameof(TaskState32.Ldt)), At<TaskState32>(nameof(TaskState32.Cr3)));
        public static readonly TssLayout Tss16 = new(2, (uint)sizeof(TaskState16) - 1, At<TaskState16>(nameof(TaskState16.Ip)), At<TaskState16>(nameof(TaskState16.Flags)),
            At<TaskState16>(nameof(TaskState16.Registers)), At<TaskState16>(nameof(TaskState16.Es)), 4, At<TaskState16>(nameof(TaskState16.Ldt)), 0);

        private static uint At<T>(string field) => (uint)Marshal.OffsetOf<T>(field);
    }

    private static readonly ulong taskTrap = (ulong)Marshal.OffsetOf<TaskState32>(nameof(TaskState32.Trap));
    private static readonly Seg[] tssSegments = [Seg.ES, Seg.CS, Seg.SS, Seg.DS, Seg.FS, Seg.GS];

    /// <summary>
    /// Switches to the task of a TSS selector. Fault: a fault or memory exit is pending (in the context that the manual says). In non-root operation the
    /// selector and descriptor are checked before the exit (SDM vol 3C, "Treatment of Task Switches").
    /// </summary>
    private ExecStatus SwitchTask(ushort selector, TaskSwitchSource source, ulong returnRip, int length, uint ext = 0, bool hasErrorCode = false, uint errorCode = 0, ulong resumeFlag = 0)
    {
        if (!CheckNewTask(selector, source, ext, out Descriptor tss))
            return ExecStatus.Fault;
        if (NonRoot is { } guest && guest.TaskSwitch(length, selector, (int)source, hasErrorCode, errorCode))
            return ExecStatus.Switched;
        return EnterTask(selector, tss, source, returnRip, resumeFlag, ext, hasErrorCode, errorCode) ? ExecStatus.Jumped : ExecStatus.Fault;
    }

    private bool CheckNewTask(ushort selector, TaskSwitchSource source, uint ext, out Descriptor tss)
    {
        tss = default;
        byte vector = source == TaskSwitchSource.Iret ? Fault.TS : Fault.GP;
        if ((selector & 4) != 0 || IsNull(selector))
            return Fail(vector, selector, ext);
        if (!ReadDescriptor(selector, vector, ext, out tss))
            return false;
        bool wantBusy = source == TaskSwitchSource.Iret;
        bool typeOk = !tss.S && (wantBusy ? tss.Type is SegmentRights.TssBusy16 or SegmentRights.TssBusy32 : tss.Type is SegmentRights.TssAvailable16 or SegmentRights.TssAvailable32);
        if (!typeOk)
            return Fail(vector, selector, ext);
        if (!tss.Present)
            return Fail(Fault.NP, selector, ext);
        TssLayout layout = (tss.Type & 8) != 0 ? TssLayout.Tss32 : TssLayout.Tss16;
        return tss.Limit >= layout.MinimumLimit || Fail(Fault.TS, selector, ext);
    }

    private bool EnterTask(ushort selector, Descriptor tss, TaskSwitchSource source, ulong returnRip, ulong resumeFlag, uint ext, bool hasErrorCode, uint errorCode)
    {
        CpuState* s = State;
        TssLayout layout = (tss.Type & 8) != 0 ? TssLayout.Tss32 : TssLayout.Tss16;
        ulong newBase = tss.Base;
        ulong* image = stackalloc ulong[20];
        if (!CheckOldTask())
            return false;
        if (!ReadTaskImage(newBase, layout, image) || !SaveTask(returnRip, source == TaskSwitchSource.Iret, resumeFlag))
            return false;
        ref SegmentCache tr = ref Segment(Seg.TR);
        if (source is TaskSwitchSource.Jump or TaskSwitchSource.Iret && !ClearOldBusy(tr.Selector))
            return false;
        bool nested = source is TaskSwitchSource.Call or TaskSwitchSource.Gate;
        if (nested && !Mmu.WriteLinear(newBase, 2, tr.Selector, supervisor: true))
            return false;
        if (source != TaskSwitchSource.Iret && !SetBusy(selector, ref tss, busy: true))
            return false;

        // The switch is done: from here on faults happen in the new task.
        tr = tss.ToCache(selector);
        tr.AccessRights |= 2;
        s->Cr0 |= Cr0.TS;
        if (!LoadTaskImage(layout, image, nested) || !LoadTaskSegments(layout, image, ext))
            return false;
        UpdateMode();
        if (hasErrorCode && !PushTaskErrorCode(layout.Width, errorCode))
            return false;
        if (!CheckTargetRip(Segment(Seg.CS), s->Rip))
            return false;
        if (layout.Width == 4 && Mmu.ReadLinear(newBase + taskTrap, 2, out ulong trap, supervisor: true) && (trap & 1) != 0)
        {
            s->PendingDebug |= Dr6Bt;
            Reevaluate();
        }
        s->Dr[7] &= ~0x155UL;
        OnDebugRegisters();
        // RF is what the new task's image says.
        resumeFlagArmed = false;
        return true;
    }

    /// <summary>Image: 0 CR3, 1 IP, 2 FLAGS, 3–10 registers, 11–16 segments, 17 LDT.</summary>
    private bool ReadTaskImage(ulong tss, in TssLayout layout, ulong* image)
    {
        int w = layout.Width;
        image[0] = 0;
        if (layout.Cr3 != 0 && !Mmu.ReadLinear(tss + layout.Cr3, 4, out image[0], supervisor: true))
            return false;
        if (!Mmu.ReadLinear(tss + layout.Ip, w, out image[1], supervisor: true) || !Mmu.ReadLinear(tss + layout.Flags, w, out image[2], supervisor: true))
            return false;
        for (uint i = 0; i < 8; i++)
            if (!Mmu.ReadLinear(tss + layout.Gpr + (i * (uint)w), w, out image[3 + i], supervisor: true))
                return false;
        for (uint i = 0; i < 6; i++)
        {
            image[11 + i] = 0;
            if (i < layout.SegmentCount && !Mmu.ReadLinear(tss + layout.Segments + (i * (uint)w), 2, out image[11 + i], supervisor: true))
                return false;
        }
        return Mmu.ReadLinear(tss + layout.Ldt, 2, out image[17], supervisor: true);
    }

    /// <summary>The outgoing TSS must have room for what is saved in it.</summary>
    private bool CheckOldTask()
    {
        ref SegmentCache tr = ref Segment(Seg.TR);
        TssLayout layout = (tr.Type & 8) != 0 ? TssLayout.Tss32 : TssLayout.Tss16;
        uint last = layout.Segments + (uint)(layout.SegmentCount * layout.Width) - 1;
        return tr.Limit >= last || Fail(Fault.TS, tr.Selector, 0);
    }

    /// <summary>RF is in the image of a task that a fault interrupts, so that it can go on past an instruction breakpoint.</summary>
    private bool SaveTask(ulong returnRip, bool clearNt, ulong resumeFlag)
    {
        CpuState* s = State;
        ref SegmentCache tr = ref Segment(Seg.TR);
        TssLayout layout = (tr.Type & 8) != 0 ? TssLayout.Tss32 : TssLayout.Tss16;
        int w = layout.Width;
        ulong flags = (Rflags & ~(clearNt ? Flags.NT | Flags.RF : Flags.RF)) | resumeFlag;
        if (!Mmu.WriteLinear(tr.Base + layout.Ip, w, returnRip, supervisor: true) || !Mmu.WriteLinear(tr.Base + layout.Flags, w, flags, supervisor: true))
            return false;
        for (uint i = 0; i < 8; i++)
            if (!Mmu.WriteLinear(tr.Base + layout.Gpr + (i * (uint)w), w, s->Gpr[i], supervisor: true))
                return false;
        for (uint i = 0; i < layout.SegmentCount; i++)
            if (!Mmu.WriteLinear(tr.Base + layout.Segments + (i * (uint)w), 2, Segment(tssSegments[i]).Selector, supervisor: true))
                return false;
        return true;
    }

    private bool ClearOldBusy(ushort selector)
    {
        if (IsNull(selector))
            return true;
        return ReadDescriptor(selector, Fault.TS, 0, out Descriptor old) && SetBusy(selector, ref old, busy: false);
    }

    private bool LoadTaskImage(in TssLayout layout, ulong* image, bool nested)
    {
        CpuState* s = State;
        bool pagingOk = layout.Width == 2 || (s->Cr0 & Cr0.PG) == 0 || WriteCr3(image[0]);
        s->Rip = image[1];
        ulong mask = layout.Width == 4 ? Flags.All : 0xffff;
        Rflags = (image[2] & mask & Flags.All) | (nested ? Flags.NT : 0);
        for (int i = 0; i < 8; i++)
            s->Gpr[i] = layout.Width == 4 ? (uint)image[3 + i] : (s->Gpr[i] & ~0xffffUL) | (ushort)image[3 + i];
        // Selectors first: a fault finds them loaded, with nothing behind them.
        for (int i = 0; i < 6; i++)
            Segment(tssSegments[i]) = NullSegment((ushort)image[11 + i], 0);
        Segment(Seg.LDTR) = new SegmentCache { Selector = (ushort)image[17], AccessRights = SegmentRights.Unusable };
        s->Cpl = (byte)((s->Rflags & Flags.VM) != 0 ? 3 : image[12] & 3);
        if (pagingOk)
            return true;
        // Page-directory pointers with reserved bits; the manual names no exception for a task switch, MOV to CR3 raises this one.
        if (!PendingMemoryExit)
            Raise(Fault.Gp());
        return false;
    }

    private bool LoadTaskSegments(in TssLayout layout, ulong* image, uint ext)
    {
        CpuState* s = State;
        if (!LoadLdt((ushort)image[17], Fault.TS, ext))
            return false;
        if ((s->Rflags & Flags.VM) != 0)
        {
            foreach (Seg seg in tssSegments)
                LoadRealSegment(seg, Segment(seg).Selector);
            return true;
        }
        ushort cs = (ushort)image[12];
        int cpl = cs & 3;
        if (IsNull(cs))
            return Fail(Fault.TS, 0, ext);
        if (!ReadDescriptor(cs, Fault.TS, ext, out Descriptor code))
            return false;
        if (!code.IsCode || (code.IsConforming ? code.Dpl > cpl : code.Dpl != cpl))
            return Fail(Fault.TS, cs, ext);
        if (!code.Present)
            return Fail(Fault.NP, cs, ext);
        if (!SetAccessed(cs, ref code))
            return false;
        Segment(Seg.CS) = CodeSegment(code, cs, cpl);
        if (!LoadTaskStack((ushort)image[13], cpl, ext))
            return false;
        foreach (int i in (ReadOnlySpan<int>)[0, 3, 4, 5])
        {
            if (!CheckDataSegment(tssSegments[i], (ushort)image[11 + i], cpl, Fault.TS, ext, out SegmentCache data))
                return false;
            Segment(tssSegments[i]) = data;
        }
        return true;
    }

    /// <remarks>Other than for a stack that a gate switches to, presence comes before privilege (SDM vol 3A, "Task Switching", the table of checks).</remarks>
    private bool LoadTaskStack(ushort selector, int cpl, uint ext)
    {
        if (IsNull(selector))
            return Fail(Fault.TS, 0, ext);
        if (!ReadDescriptor(selector, Fault.TS, ext, out Descriptor d))
            return false;
        if (!d.IsWritableData)
            return Fail(Fault.TS, selector, ext);
        if (!d.Present)
            return Fail(Fault.SS, selector, ext);
        if (d.Dpl != cpl || (selector & 3) != cpl)
            return Fail(Fault.TS, selector, ext);
        if (!SetAccessed(selector, ref d))
            return false;
        Segment(Seg.SS) = d.ToCache(selector);
        return true;
    }

    private bool PushTaskErrorCode(int width, uint errorCode)
    {
        var stack = new StackWriter(this);
        if (!stack.Push(errorCode, width))
            return false;
        stack.Commit();
        return true;
    }

    /// <summary>LLDT's load: null makes LDTR unusable; must be a present LDT descriptor of the GDT.</summary>
    private bool LoadLdt(ushort selector, byte vector, uint ext)
    {
        if (IsNull(selector))
        {
            Segment(Seg.LDTR) = new SegmentCache { Selector = selector, AccessRights = SegmentRights.Unusable };
            return true;
        }
        if ((selector & 4) != 0)
            return Fail(vector, selector, ext);
        if (!ReadDescriptor(selector, vector, ext, out Descriptor d))
            return false;
        if (d.S || d.Type != SegmentRights.Ldt)
            return Fail(vector, selector, ext);
        if (!d.Present)
            return Fail(vector == Fault.TS ? Fault.TS : Fault.NP, selector, ext);
        if (LongMode && !ReadDescriptorHigh(selector, vector, ext, ref d))
            return false;
        if (LongMode && !Mmu.Canonical(d.Base))
            return Fail(vector, selector, ext);
        Segment(Seg.LDTR) = d.ToCache(selector);
        return true;
    }

    /// <summary>LTR's load: an available TSS, marked busy.</summary>
    private bool LoadTr(ushort selector)
    {
        if (IsNull(selector))
            return Fail(Fault.GP, 0, 0);
        if ((selector & 4) != 0)
            return Fail(Fault.GP, selector, 0);
        if (!ReadDescriptor(selector, Fault.GP, 0, out Descriptor d))
            return false;
        bool ok = !d.S && (d.Type == SegmentRights.TssAvailable32 || (d.Type == SegmentRights.TssAvailable16 && !LongMode));
        if (!ok)
            return Fail(Fault.GP, selector, 0);
        if (!d.Present)
            return Fail(Fault.NP, selector, 0);
        if (LongMode && !ReadDescriptorHigh(selector, Fault.GP, 0, ref d))
            return false;
        if (LongMode && !Mmu.Canonical(d.Base))
            return Fail(Fault.GP, selector, 0);
        if (!SetBusy(selector, ref d, busy: true))
            return false;
        Segment(Seg.TR) = d.ToCache(selector);
        return true;
    }
}

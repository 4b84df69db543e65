using System.Runtime.InteropServices;

namespace Kvm.Emulator;

/// <summary>The 16-bit task-state segment in memory.</summary>
/// <remarks>SDM vol 3A, "16-Bit Task-State Segment (TSS)".</remarks>
[StructLayout(LayoutKind.Sequential, Pack = 1)]
public unsafe struct TaskState16
{
    public ushort Link, Sp0, Ss0, Sp1, Ss1, Sp2, Ss2, Ip, Flags;
    /// <summary>AX CX DX BX SP BP SI DI.</summary>
    public fixed ushort Registers[8];
    public ushort Es, Cs, Ss, Ds, Ldt;
}

/// <summary>The 32-bit task-state segment in memory. Selectors are in the lower halves of their words.</summary>
/// <remarks>SDM vol 3A, "Task-State Segment (TSS)".</remarks>
[StructLayout(LayoutKind.Sequential, Pack = 1)]
public unsafe struct TaskState32
{
    public uint Link, Esp0, Ss0, Esp1, Ss1, Esp2, Ss2, Cr3, Eip, Eflags;
    /// <summary>EAX ECX EDX EBX ESP EBP ESI EDI.</summary>
    public fixed uint Registers[8];
    public uint Es, Cs, Ss, Ds, Fs, Gs, Ldt;
    /// <summary>Bit 0: #DB when the task is switched to.</summary>
    public ushort Trap;
    public ushort IoMap;
}

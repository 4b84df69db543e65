using System.Runtime.InteropServices;

namespace Kvm.Emulator.Svm;

/// <summary>The control area of a VMCB (offsets 0x000–0x3ff): intercepts, TLB and interrupt control, exit information, event injection.</summary>
[StructLayout(LayoutKind.Explicit, Size = 0x400)]
public unsafe struct VmcbControlArea
{
    /// <summary>Bit n: read of CRn is intercepted.</summary>
    [FieldOffset(0x000)] public ushort InterceptCrRead;
    [FieldOffset(0x002)] public ushort InterceptCrWrite;
    [FieldOffset(0x004)] public ushort InterceptDrRead;
    [FieldOffset(0x006)] public ushort InterceptDrWrite;
    /// <summary>Bit n: exception vector n is intercepted.</summary>
    [FieldOffset(0x008)] public uint InterceptExceptions;
    [FieldOffset(0x00c)] public SvmIntercepts3 Intercepts3;
    [FieldOffset(0x010)] public SvmIntercepts4 Intercepts4;
    [FieldOffset(0x014)] public SvmIntercepts5 Intercepts5;
    /// <summary>The six intercept words: CR, DR, exceptions, word 3, word 4, word 5.</summary>
    [FieldOffset(0x000)] public fixed uint Intercepts[6];
    [FieldOffset(0x03c)] public ushort PauseFilterThreshold;
    [FieldOffset(0x03e)] public ushort PauseFilterCount;
    /// <summary>Physical base of the 12 KiB I/O permission map (low 12 bits ignored).</summary>
    [FieldOffset(0x040)] public ulong IopmBasePa;
    /// <summary>Physical base of the 8 KiB MSR permission map (low 12 bits ignored).</summary>
    [FieldOffset(0x048)] public ulong MsrpmBasePa;
    [FieldOffset(0x050)] public ulong TscOffset;
    [FieldOffset(0x058)] public uint Asid;
    [FieldOffset(0x05c)] public TlbControl TlbControl;
    [FieldOffset(0x060)] public SvmIntControl IntControl;
    /// <summary>Vector of the virtual interrupt (V_INTR_VECTOR, bits 7:0).</summary>
    [FieldOffset(0x064)] public uint IntVector;
    [FieldOffset(0x068)] public SvmIntState IntState;
    [FieldOffset(0x070)] public ulong ExitCode;
    [FieldOffset(0x078)] public ulong ExitInfo1;
    [FieldOffset(0x080)] public ulong ExitInfo2;
    /// <summary>The event whose delivery the exit interrupted, in <see cref="SvmEvent"/> format; error code in <see cref="ExitIntInfoError"/>.</summary>
    [FieldOffset(0x088)] public uint ExitIntInfo;
    [FieldOffset(0x08c)] public uint ExitIntInfoError;
    [FieldOffset(0x090)] public SvmNestedControl NestedControl;
    [FieldOffset(0x098)] public ulong AvicVapicBar;
    [FieldOffset(0x0a0)] public ulong GhcbGpa;
    /// <summary>The event to inject, in <see cref="SvmEvent"/> format.</summary>
    [FieldOffset(0x0a8)] public uint EventInj;
    [FieldOffset(0x0ac)] public uint EventInjError;
    [FieldOffset(0x0b0)] public ulong NestedCr3;
    [FieldOffset(0x0b8)] public SvmVirtualExtensions VirtualExtensions;
    [FieldOffset(0x0c0)] public VmcbClean Clean;
    [FieldOffset(0x0c8)] public ulong NextRip;
    [FieldOffset(0x0d0)] public byte InstructionLength;
    [FieldOffset(0x0d1)] public fixed byte InstructionBytes[15];
    [FieldOffset(0x0e0)] public ulong AvicBackingPage;
    [FieldOffset(0x0f0)] public ulong AvicLogicalId;
    [FieldOffset(0x0f8)] public ulong AvicPhysicalId;
    [FieldOffset(0x108)] public ulong VmsaPa;
    [FieldOffset(0x3e0)] public fixed byte SoftwareReserved[32];
}

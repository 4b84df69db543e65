using System.Runtime.InteropServices;

namespace Kvm.Emulator.Svm;

/// <summary>The state save area of a VMCB (offset 0x400 of the page; field comments give the offset in the page).</summary>
[StructLayout(LayoutKind.Explicit, Size = 0xc00)]
public struct VmcbSaveArea
{
    [FieldOffset(0x000)] public VmcbSegment Es;
    [FieldOffset(0x010)] public VmcbSegment Cs;
    [FieldOffset(0x020)] public VmcbSegment Ss;
    [FieldOffset(0x030)] public VmcbSegment Ds;
    [FieldOffset(0x040)] public VmcbSegment Fs;
    [FieldOffset(0x050)] public VmcbSegment Gs;
    [FieldOffset(0x060)] public VmcbSegment Gdtr;
    [FieldOffset(0x070)] public VmcbSegment Ldtr;
    [FieldOffset(0x080)] public VmcbSegment Idtr;
    [FieldOffset(0x090)] public VmcbSegment Tr;
    [FieldOffset(0x0ca)] public byte Vmpl;
    [FieldOffset(0x0cb)] public byte Cpl;
    [FieldOffset(0x0d0)] public ulong Efer;
    [FieldOffset(0x148)] public ulong Cr4;
    [FieldOffset(0x150)] public ulong Cr3;
    [FieldOffset(0x158)] public ulong Cr0;
    [FieldOffset(0x160)] public ulong Dr7;
    [FieldOffset(0x168)] public ulong Dr6;
    [FieldOffset(0x170)] public ulong Rflags;
    [FieldOffset(0x178)] public ulong Rip;
    [FieldOffset(0x1d8)] public ulong Rsp;
    [FieldOffset(0x1e0)] public ulong SCet;
    [FieldOffset(0x1e8)] public ulong Ssp;
    [FieldOffset(0x1f0)] public ulong IsstAddr;
    [FieldOffset(0x1f8)] public ulong Rax;
    [FieldOffset(0x200)] public ulong Star;
    [FieldOffset(0x208)] public ulong Lstar;
    [FieldOffset(0x210)] public ulong Cstar;
    [FieldOffset(0x218)] public ulong Sfmask;
    [FieldOffset(0x220)] public ulong KernelGsBase;
    [FieldOffset(0x228)] public ulong SysenterCs;
    [FieldOffset(0x230)] public ulong SysenterEsp;
    [FieldOffset(0x238)] public ulong SysenterEip;
    [FieldOffset(0x240)] public ulong Cr2;
    [FieldOffset(0x268)] public ulong GPat;
    [FieldOffset(0x270)] public ulong DebugCtl;
    [FieldOffset(0x278)] public ulong BrFrom;
    [FieldOffset(0x280)] public ulong BrTo;
    [FieldOffset(0x288)] public ulong LastExcpFrom;
    [FieldOffset(0x290)] public ulong LastExcpTo;
    [FieldOffset(0x2e0)] public ulong SpecCtrl;
}

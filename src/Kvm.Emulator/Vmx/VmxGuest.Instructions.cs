using Kvm.Emulator.Engine;

namespace Kvm.Emulator.Vmx;

/// <summary>SDM vol 3C, "Instructions That Cause VM Exits".</summary>
internal sealed unsafe partial class VmxGuest
{
    private ulong pauseFirst, pauseLast;

    public override bool Cpuid(int length) => Exit(VmxExitReason.CPUID, 0, length);
    public override bool Invd(int length) => Exit(VmxExitReason.INVD, 0, length);
    public override bool Xsetbv(int length) => Exit(VmxExitReason.XSETBV, 0, length);
    /// <summary>RSM outside SMM is #UD in non-root operation as elsewhere.</summary>
    public override bool Rsm(int length) => false;

    public override bool Hlt(int length) => Has(PrimaryControls.HltExiting) && Exit(VmxExitReason.HLT, 0, length);
    public override bool Wbinvd(int length) => Has(SecondaryControls.WbinvdExiting) && Exit(VmxExitReason.WBINVD, 0, length);
    public override bool Monitor(int length) => Has(PrimaryControls.MonitorExiting) && Exit(VmxExitReason.MONITOR_INSTRUCTION, 0, length);
    public override bool Mwait(int length, bool monitorArmed) =>
        Has(PrimaryControls.MwaitExiting) && Exit(VmxExitReason.MWAIT_INSTRUCTION, monitorArmed ? 1UL : 0, length);
    public override bool Rdpmc(int length) => Has(PrimaryControls.RdpmcExiting) && Exit(VmxExitReason.RDPMC, 0, length);
    public override bool Invlpg(int length, ulong linear) => Has(PrimaryControls.InvlpgExiting) && Exit(VmxExitReason.INVLPG, linear, length);
    public override bool Rdtsc(int length, bool rdtscp) =>
        Has(PrimaryControls.RdtscExiting) && Exit(rdtscp ? VmxExitReason.RDTSCP : VmxExitReason.RDTSC, 0, length);

    /// <summary>PAUSE: "PAUSE exiting" at any privilege level, else the pause loop of CPL 0 (PLE_Gap between two, PLE_Window since the first).</summary>
    public override bool Pause(int length)
    {
        if (Has(PrimaryControls.PauseExiting))
            return Exit(VmxExitReason.PAUSE_INSTRUCTION, 0, length);
        if (!Has(SecondaryControls.PauseLoopExiting) || cpu.State->Cpl != 0)
            return false;
        ulong now = cpu.ReadTsc();
        bool newLoop = pauseFirst == 0 || now - pauseLast > vmcs->PleGap;
        pauseLast = now;
        if (newLoop)
            pauseFirst = now;
        return !newLoop && now - pauseFirst > vmcs->PleWindow && Exit(VmxExitReason.PAUSE_INSTRUCTION, 0, length);
    }

    public override bool Rdmsr(int length, uint index) => MsrExits(index, 0) && Exit(VmxExitReason.MSR_READ, 0, length);
    public override bool Wrmsr(int length, uint index, ulong value) => MsrExits(index, 2048) && Exit(VmxExitReason.MSR_WRITE, 0, length);

    /// <summary>MSR bitmap: 1 KiB each for low reads, high reads, low writes, high writes. MSRs outside both ranges always exit.</summary>
    private bool MsrExits(uint index, int offset)
    {
        if (msrBitmap == null)
            return true;
        if (index >= 0xc000_0000)
        {
            index -= 0xc000_0000;
            offset += 1024;
        }
        return index > 0x1fff || (msrBitmap[offset + (int)(index >> 3)] >> (int)(index & 7) & 1) != 0;
    }

    public override bool Rdrand(int length, bool seed, byte register, byte width)
    {
        if (!Has(seed ? SecondaryControls.RdseedExiting : SecondaryControls.RdrandExiting))
            return false;
        vmcs->VmxInstructionInfo = (uint)(register << 3) | (uint)(width >> 2) << 11;
        return Exit(seed ? VmxExitReason.RDSEED : VmxExitReason.RDRAND, 0, length);
    }

    public override bool Invpcid(int length, in MemoryOperand operand, ulong descriptorLinear, byte typeRegister) =>
        Has(PrimaryControls.InvlpgExiting) && ExitWithOperand(VmxExitReason.INVPCID, length, operand, (uint)typeRegister << 28);

    public override bool Xsaves(int length, bool restore, ulong requestedFeatures)
    {
        if ((requestedFeatures & vmcs->XssExitBitmap) == 0)
            return false;
        vmcs->VmxInstructionInfo = 0;
        return Exit(restore ? VmxExitReason.XRSTORS : VmxExitReason.XSAVES, 0, length);
    }

    public override bool DescriptorTable(int length, DescriptorTableInstruction which, in MemoryOperand operand, byte register)
    {
        if (!Has(SecondaryControls.DescriptorTableExiting))
            return false;
        bool tables = which <= DescriptorTableInstruction.Lidt;
        uint identity = which switch
        {
            DescriptorTableInstruction.Sidt or DescriptorTableInstruction.Str => 1,
            DescriptorTableInstruction.Lgdt or DescriptorTableInstruction.Lldt => 2,
            DescriptorTableInstruction.Lidt or DescriptorTableInstruction.Ltr => 3,
            _ => 0,
        };
        uint info = identity << 28;
        if (tables)
            info |= operand.OperandSize >= 4 ? 1u << 11 : 0;
        else if (!operand.Memory)
            info |= (uint)register << 3;
        return ExitWithOperand(tables ? VmxExitReason.GDTR_IDTR : VmxExitReason.LDTR_TR, length, operand, info);
    }

    /// <summary>PUSHF, POPF, INT n, IRET … do not exit; an IRET may end NMI blocking, which later faults of the same instruction report.</summary>
    public override bool Simple(int length, SimpleIntercept which, ulong info = 0)
    {
        if (which == SimpleIntercept.Iret)
            NoteIret();
        return false;
    }

    public override bool Io(int length, in IoAccess access)
    {
        if (Has(PrimaryControls.UseIoBitmaps) ? !IoBitmapExits(access.Port, access.Size) : !Has(PrimaryControls.UnconditionalIoExiting))
            return false;
        ulong qualification = (uint)(access.Size - 1) | (access.In ? 8u : 0) | (access.String ? 0x10u : 0) | (access.Rep ? 0x20u : 0)
            | (access.Immediate ? 0x40u : 0) | (uint)access.Port << 16;
        if (access.String)
        {
            vmcs->GuestLinearAddress = access.Linear;
            if (unit.Capabilities.ReportsInsOutsInformation)
                vmcs->VmxInstructionInfo = (uint)(access.AddressSize >> 2) << 7 | (access.In ? 0 : (uint)access.Segment << 15);
        }
        return Exit(VmxExitReason.IO_INSTRUCTION, qualification, length);
    }

    /// <summary>Any of the ports has its bit set, or the access wraps around the 16-bit port space.</summary>
    private bool IoBitmapExits(ushort port, int size)
    {
        for (int i = 0; i < size; i++)
        {
            int p = port + i;
            byte* bitmap = p < 0x8000 ? ioBitmapA : ioBitmapB;
            if (p > 0xffff || bitmap == null || (bitmap[(p & 0x7fff) >> 3] >> (p & 7) & 1) != 0)
                return true;
        }
        return false;
    }

    public override bool VirtualizationInstruction(int length, VirtualizationInstruction which, in MemoryOperand operand, byte register1, byte register2)
    {
        switch (which)
        {
            case Emulator.VirtualizationInstruction.Vmcall: return Exit(VmxExitReason.VMCALL, 0, length);
            case Emulator.VirtualizationInstruction.Vmlaunch: return Exit(VmxExitReason.VMLAUNCH, 0, length);
            case Emulator.VirtualizationInstruction.Vmresume: return Exit(VmxExitReason.VMRESUME, 0, length);
            case Emulator.VirtualizationInstruction.Vmxoff: return Exit(VmxExitReason.VMOFF, 0, length);
            case Emulator.VirtualizationInstruction.Getsec: return Exit(VmxExitReason.GETSEC, 0, length);
            case Emulator.VirtualizationInstruction.Vmfunc: return Exit(VmxExitReason.VMFUNC, 0, length);
            case Emulator.VirtualizationInstruction.Vmclear: return ExitWithOperand(VmxExitReason.VMCLEAR, length, operand, 0);
            case Emulator.VirtualizationInstruction.Vmptrld: return ExitWithOperand(VmxExitReason.VMPTRLD, length, operand, 0);
            case Emulator.VirtualizationInstruction.Vmptrst: return ExitWithOperand(VmxExitReason.VMPTRST, length, operand, 0);
            case Emulator.VirtualizationInstruction.Vmxon: return ExitWithOperand(VmxExitReason.VMON, length, operand, 0);
            case Emulator.VirtualizationInstruction.Vmread:
                return ExitWithOperand(VmxExitReason.VMREAD, length, operand, (operand.Memory ? 0 : (uint)register1 << 3) | (uint)register2 << 28);
            case Emulator.VirtualizationInstruction.Vmwrite:
                return ExitWithOperand(VmxExitReason.VMWRITE, length, operand, (operand.Memory ? 0 : (uint)register1 << 3) | (uint)register2 << 28);
            case Emulator.VirtualizationInstruction.Invept: return ExitWithOperand(VmxExitReason.INVEPT, length, operand, (uint)register2 << 28);
            case Emulator.VirtualizationInstruction.Invvpid: return ExitWithOperand(VmxExitReason.INVVPID, length, operand, (uint)register2 << 28);
            default: return false;
        }
    }

    /// <summary>An exit with VM-exit instruction information about a ModRM operand; the qualification is the displacement (RIP-relative: the address).</summary>
    private bool ExitWithOperand(VmxExitReason reason, int length, in MemoryOperand operand, uint info)
    {
        ulong qualification = 0;
        if (operand.Memory)
        {
            bool ripRelative = operand.Base == Op.RipBase;
            info |= operand.Scale | (uint)(operand.AddressSize >> 2) << 7 | (uint)operand.Segment << 15;
            info |= operand.Index == Op.NoRegister ? 1u << 22 : (uint)operand.Index << 18;
            info |= operand.Base == Op.NoRegister || ripRelative ? 1u << 27 : (uint)operand.Base << 23;
            qualification = (ulong)operand.Displacement + (ripRelative ? cpu.State->Rip + (uint)length : 0);
        }
        else
        {
            info |= 1u << 10;
        }
        vmcs->VmxInstructionInfo = info;
        return Exit(reason, qualification, length);
    }
}

namespace Kvm.Emulator.Svm;

/// <summary>Instruction intercepts (APM vol 2, "Instruction Intercepts", "IOIO Intercepts", "MSR Intercepts").</summary>
internal sealed unsafe partial class SvmGuest
{
    private const ulong MovCr = 1UL << 63;

    public override bool Cpuid(int length) => Intercepted(SvmIntercepts3.Cpuid) && Exit(SvmExitCode.Cpuid, length);
    public override bool Hlt(int length) => Intercepted(SvmIntercepts3.Hlt) && Exit(SvmExitCode.Hlt, length);
    public override bool Invd(int length) => Intercepted(SvmIntercepts3.Invd) && Exit(SvmExitCode.Invd, length);
    public override bool Wbinvd(int length) => Intercepted(SvmIntercepts4.Wbinvd) && Exit(SvmExitCode.Wbinvd, length);
    public override bool Monitor(int length) => Intercepted(SvmIntercepts4.Monitor) && Exit(SvmExitCode.Monitor, length);
    public override bool Rdpmc(int length) => Intercepted(SvmIntercepts3.Rdpmc) && Exit(SvmExitCode.Rdpmc, length);
    public override bool Rdrand(int length, bool seed, byte register, byte width) => false;
    public override bool Xsetbv(int length) => Intercepted(SvmIntercepts4.Xsetbv) && Exit(SvmExitCode.Xsetbv, length);
    public override bool Rsm(int length) => Intercepted(SvmIntercepts3.Rsm) && Exit(SvmExitCode.Rsm, length);
    public override bool Xsaves(int length, bool restore, ulong requestedFeatures) => false;

    public override bool Rdtsc(int length, bool rdtscp) => rdtscp
        ? Intercepted(SvmIntercepts4.Rdtscp) && Exit(SvmExitCode.Rdtscp, length)
        : Intercepted(SvmIntercepts3.Rdtsc) && Exit(SvmExitCode.Rdtsc, length);

    /// <summary>The unconditional intercept wins over the one that asks for an armed monitor.</summary>
    public override bool Mwait(int length, bool monitorArmed)
    {
        if (Intercepted(SvmIntercepts4.Mwait))
            return Exit(SvmExitCode.Mwait, length);
        return monitorArmed && Intercepted(SvmIntercepts4.MwaitArmed) && Exit(SvmExitCode.MwaitConditional, length);
    }

    /// <summary>
    /// With pause filtering an internal counter, loaded by VMRUN, counts down and only its underflow exits; a PAUSE that comes later than the threshold
    /// (in cycles) after the one before reloads it.
    /// </summary>
    public override bool Pause(int length)
    {
        if (!Intercepted(SvmIntercepts3.Pause))
            return false;
        if (pauseReload != 0)
        {
            if (pauseThreshold != 0)
            {
                ulong now = cpu.ReadTsc();
                if (now - lastPause > pauseThreshold)
                    pauseCount = pauseReload;
                lastPause = now;
            }
            if (pauseCount != 0)
            {
                pauseCount--;
                return false;
            }
        }
        return Exit(SvmExitCode.Pause, length);
    }

    public override bool Rdmsr(int length, uint index) => Intercepted(SvmIntercepts3.Msr) && MsrIntercepted(index, 0) && Exit(SvmExitCode.Msr, length);
    public override bool Wrmsr(int length, uint index, ulong value)
        => Intercepted(SvmIntercepts3.Msr) && MsrIntercepted(index, 1) && Exit(SvmExitCode.Msr, length, info1: 1);

    /// <summary>Two bits an MSR, read then write, in three ranges of 0x2000 MSRs; MSRs in none of them are always intercepted.</summary>
    private bool MsrIntercepted(uint index, int write)
    {
        uint bit;
        if (index < 0x2000)
            bit = index * 2;
        else if (index - 0xc000_0000 < 0x2000)
            bit = (0x800 * 8) + ((index - 0xc000_0000) * 2);
        else if (index - 0xc001_0000 < 0x2000)
            bit = (0x1000 * 8) + ((index - 0xc001_0000) * 2);
        else
            return true;
        uint offset = (bit >> 3) & 0xfff;
        byte* page = bit >> 15 == 0 ? msrMap0 : msrMap1;
        return page == null || (page[offset] >> (int)((bit & 7) + (uint)write) & 1) != 0;
    }

    public override bool Invlpg(int length, ulong linear)
        => Intercepted(SvmIntercepts3.Invlpg) && Exit(SvmExitCode.Invlpg, length, hasAssists ? linear : 0);

    public override bool Invpcid(int length, in MemoryOperand operand, ulong descriptorLinear, byte typeRegister)
        => (intercepts5 & SvmIntercepts5.Invpcid) != 0 && Exit(SvmExitCode.Invpcid, length, descriptorLinear, state->Gpr[typeRegister & 15]);

    public override bool DescriptorTable(int length, DescriptorTableInstruction which, in MemoryOperand operand, byte register)
    {
        (SvmIntercepts3 bit, SvmExitCode code) = which switch
        {
            DescriptorTableInstruction.Sgdt => (SvmIntercepts3.ReadGdtr, SvmExitCode.GdtrRead),
            DescriptorTableInstruction.Sidt => (SvmIntercepts3.ReadIdtr, SvmExitCode.IdtrRead),
            DescriptorTableInstruction.Lgdt => (SvmIntercepts3.WriteGdtr, SvmExitCode.GdtrWrite),
            DescriptorTableInstruction.Lidt => (SvmIntercepts3.WriteIdtr, SvmExitCode.IdtrWrite),
            DescriptorTableInstruction.Sldt => (SvmIntercepts3.ReadLdtr, SvmExitCode.LdtrRead),
            DescriptorTableInstruction.Str => (SvmIntercepts3.ReadTr, SvmExitCode.TrRead),
            DescriptorTableInstruction.Lldt => (SvmIntercepts3.WriteLdtr, SvmExitCode.LdtrWrite),
            _ => (SvmIntercepts3.WriteTr, SvmExitCode.TrWrite),
        };
        return Intercepted(bit) && Exit(code, length);
    }

    public override bool Simple(int length, SimpleIntercept which, ulong info = 0) => which switch
    {
        SimpleIntercept.Pushf => Intercepted(SvmIntercepts3.Pushf) && Exit(SvmExitCode.Pushf, length),
        SimpleIntercept.Popf => Intercepted(SvmIntercepts3.Popf) && Exit(SvmExitCode.Popf, length),
        SimpleIntercept.IntN => Intercepted(SvmIntercepts3.IntN) && Exit(SvmExitCode.Swint, length, hasAssists ? info & 0xff : 0),
        SimpleIntercept.Iret => Intercepted(SvmIntercepts3.Iret) && Exit(SvmExitCode.Iret, length),
        SimpleIntercept.Icebp => Intercepted(SvmIntercepts4.Icebp) && Exit(SvmExitCode.Icebp, length),
        SimpleIntercept.ReadCr0Smsw => (interceptCr & 1) != 0 && Exit(SvmExitCode.Cr0Read, length),
        SimpleIntercept.FerrFreeze => Intercepted(SvmIntercepts3.FerrFreeze) && Exit(SvmExitCode.FerrFreeze, length),
        _ => false,
    };

    public override bool Io(int length, in IoAccess access)
    {
        if (!Intercepted(SvmIntercepts3.Ioio) || !IoIntercepted(access.Port, access.Size))
            return false;
        ulong info = ((ulong)access.Port << 16) | ((ulong)access.Size << 4) | (access.In ? 1UL : 0);
        info |= access.AddressSize switch { 2 => 1UL << 7, 4 => 1UL << 8, _ => 1UL << 9 };
        if (access.String)
        {
            info |= 4;
            if (access.Rep)
                info |= 8;
            if (hasAssists && access.Segment <= Seg.GS)
                info |= (ulong)access.Segment << 10;
        }
        return Exit(SvmExitCode.Ioio, length, info, NextRip(length));
    }

    /// <summary>An access is intercepted when the bit of any of its ports is set; three bits past port 0xffff serve accesses that wrap over it.</summary>
    private bool IoIntercepted(ushort port, int size)
    {
        for (uint p = port; p < (uint)port + (uint)size; p++)
        {
            byte* page = (p >> 15) switch { 0 => ioMap0, 1 => ioMap1, _ => ioMap2 };
            if (page == null || (page[(p >> 3) & 0xfff] >> (int)(p & 7) & 1) != 0)
                return true;
        }
        return false;
    }

    public override bool WriteCr(int length, int register, byte gpr, ref ulong value, out bool handled)
    {
        handled = false;
        if ((interceptCr >> (16 + register) & 1) != 0)
            return Exit((SvmExitCode)((ulong)SvmExitCode.Cr0Write + (uint)register), length, hasAssists ? MovCr | gpr : 0);
        if (register == 0 && Intercepted(SvmIntercepts3.Cr0SelectiveWrite) && ((state->Cr0 ^ value) & ~0xaUL) != 0)
            return Exit(SvmExitCode.Cr0SelectiveWrite, length, hasAssists ? MovCr | gpr : 0);
        if (register == 8 && value <= 15)
        {
            // V_TPR follows CR8 either way; with V_INTR_MASKING the physical TPR does not. Larger values are the caller's #GP.
            virtualTpr = (byte)value;
            handled = virtualMasking;
            RequestReevaluation();
        }
        return false;
    }

    public override bool ReadCr(int length, int register, byte gpr, ref ulong value)
    {
        if ((interceptCr >> register & 1) != 0)
            return Exit((SvmExitCode)((ulong)SvmExitCode.Cr0Read + (uint)register), length, hasAssists ? MovCr | gpr : 0);
        if (register == 8 && virtualMasking)
            value = virtualTpr;
        return false;
    }

    public override bool Clts(int length, out bool handled)
    {
        handled = false;
        return (interceptCr >> 16 & 1) != 0 && Exit(SvmExitCode.Cr0Write, length);
    }

    /// <summary>LMSW counts as a selective CR0 write whatever value it loads.</summary>
    public override bool Lmsw(int length, ref ushort source, bool memory, ulong linear)
    {
        if ((interceptCr >> 16 & 1) != 0)
            return Exit(SvmExitCode.Cr0Write, length);
        return Intercepted(SvmIntercepts3.Cr0SelectiveWrite) && Exit(SvmExitCode.Cr0SelectiveWrite, length);
    }

    public override bool MoveDr(int length, int register, bool write, byte gpr)
    {
        if ((interceptDr >> (register + (write ? 16 : 0)) & 1) == 0)
            return false;
        return Exit((SvmExitCode)((ulong)(write ? SvmExitCode.Dr0Write : SvmExitCode.Dr0Read) + (uint)register), length, hasAssists ? gpr : 0u);
    }

    public override ulong VisibleCr0(ulong cr0) => cr0;

    /// <summary>The VMX instructions don't exist here; unintercepted SVM instructions are executed by their own handlers.</summary>
    public override bool VirtualizationInstruction(int length, VirtualizationInstruction which, in MemoryOperand operand, byte register1, byte register2)
    {
        return which switch
        {
            Emulator.VirtualizationInstruction.Vmrun => Intercepted(SvmIntercepts4.Vmrun) && Exit(SvmExitCode.Vmrun, length),
            Emulator.VirtualizationInstruction.Vmmcall => Intercepted(SvmIntercepts4.Vmmcall) && Exit(SvmExitCode.Vmmcall, length),
            Emulator.VirtualizationInstruction.Vmload => Intercepted(SvmIntercepts4.Vmload) && Exit(SvmExitCode.Vmload, length),
            Emulator.VirtualizationInstruction.Vmsave => Intercepted(SvmIntercepts4.Vmsave) && Exit(SvmExitCode.Vmsave, length),
            Emulator.VirtualizationInstruction.Stgi => Intercepted(SvmIntercepts4.Stgi) && Exit(SvmExitCode.Stgi, length),
            Emulator.VirtualizationInstruction.Clgi => Intercepted(SvmIntercepts4.Clgi) && Exit(SvmExitCode.Clgi, length),
            Emulator.VirtualizationInstruction.Skinit => Intercepted(SvmIntercepts4.Skinit) && Exit(SvmExitCode.Skinit, length),
            Emulator.VirtualizationInstruction.Invlpga => Intercepted(SvmIntercepts3.Invlpga) && Exit(SvmExitCode.Invlpga, length),
            _ => false,
        };
    }

    /// <summary>VMLOAD and VMSAVE address guest-physical memory (virtual VMLOAD/VMSAVE).</summary>
    internal bool VirtualizesVmloadVmsave => virtualVmloadVmsave;

    /// <summary>STGI and CLGI act on V_GIF: true when it was so.</summary>
    internal bool SetVirtualGif(bool value)
    {
        if (!virtualGifEnabled)
            return false;
        virtualGif = value;
        RequestReevaluation();
        return true;
    }

    public override bool TaskSwitch(int length, ushort selector, int source, bool hasErrorCode, uint errorCode)
    {
        if (!Intercepted(SvmIntercepts3.TaskSwitch))
            return false;
        ulong info2 = source switch { 1 => 1UL << 36, 2 => 1UL << 38, _ => 0 };
        if (hasErrorCode)
            info2 |= (1UL << 44) | errorCode;
        return Exit(SvmExitCode.TaskSwitch, length, selector, info2);
    }
}

using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Kvm.Emulator.Svm;

/// <summary>The SVM state of one processor and what its SVM instructions do.</summary>
/// <remarks>APM vol 3, "VMRUN", "VMLOAD", "VMSAVE", "STGI", "CLGI", "INVLPGA", "SKINIT".</remarks>
internal sealed unsafe partial class SvmUnit : IDisposable
{
    internal SvmUnit(Processor cpu)
    {
        this.cpu = cpu;
        state = cpu.State;
        memory = cpu.Machine.Memory;
        guest = new SvmGuest(cpu, this);
        Capabilities = SvmCapabilities.Of(cpu.Model);
        PhysicalLimit = 1UL << cpu.Model.PhysicalAddressBits;
        ComputeReserved(cpu.Model);
        chipSave = (Vmcb*)NativeMemory.AlignedAlloc(Vmcb.PageSize, Vmcb.PageSize);
        NativeMemory.Clear(chipSave, Vmcb.PageSize);
        images = (byte*)NativeMemory.AlignedAlloc(Images * ImageBytes, 64);
        NativeMemory.Clear(images, Images * ImageBytes);
        guestData = Image(images, 0);
        hostData = Image(images, 1);
        guestSystem = Image(images, 2);
        hostSystem = Image(images, 3);
    }

    private readonly Processor cpu;
    private readonly CpuState* state;
    private readonly PhysicalMemory memory;
    private readonly SvmGuest guest;
    /// <summary>Takes the host state when VM_HSAVE_PA does not point at RAM.</summary>
    private readonly Vmcb* chipSave;
    private readonly byte* images;

    /// <summary>What the processor model announces.</summary>
    internal SvmCapabilities Capabilities { get; set; }

    /// <summary>First address that the processor can't form.</summary>
    internal ulong PhysicalLimit { get; }

    /// <summary>Global interrupt flag.</summary>
    internal bool Gif { get; private set; } = true;

    internal bool Has(SvmFeatures feature) => (Capabilities.Features & feature) != 0;

    private bool SvmeClear => (state->Efer & Efer.SVME) == 0;

    /// <summary>#UD without EFER.SVME, in real and virtual-8086 mode; then #GP(0) above CPL 0.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private InstructionResult CheckPrivilege(bool enabled)
    {
        if (!enabled || (state->Cr0 & Cr0.PE) == 0 || (state->Rflags & Flags.VM) != 0)
            return InstructionResult.Faulted(Fault.Ud);
        return state->Cpl != 0 ? InstructionResult.Faulted(Fault.Gp()) : InstructionResult.Success;
    }

    /// <summary>The checks before the intercept: what every SVM instruction but VMMCALL starts with.</summary>
    internal InstructionResult CheckPrivilege() => CheckPrivilege(!SvmeClear);

    /// <summary>STGI and SKINIT also exist without EFER.SVME where the processor has SVM lock (they are how a secure loader starts).</summary>
    internal InstructionResult CheckPrivilegeStgi() => CheckPrivilege(!SvmeClear || Has(SvmFeatures.SvmLock));

    /// <summary>rAX of VMRUN, VMLOAD and VMSAVE: a page of RAM the processor can address; null when it is none.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private Vmcb* VmcbAt(ulong pa) => (pa & 0xfff) == 0 && pa < PhysicalLimit ? (Vmcb*)Physical(pa) : null;

    /// <summary>VMRUN executed by C# kernel code: runs the guest until #VMEXIT.</summary>
    internal InstructionResult Vmrun(ulong pa)
    {
        if (!Begin("VMRUN", CheckPrivilege(), out InstructionResult result))
            return Report("VMRUN", pa, 0, result);
        Vmcb* v = VmcbAt(pa);
        if (v == null)
            return Report("VMRUN", pa, 0, InstructionResult.Faulted(Fault.Gp()));
        Report("VMRUN", pa, 0, InstructionResult.Success);
        cpu.GuestEnteredFromKernel = true;
        Enter(v, pa, state->Rip);
        while (cpu.NonRoot != null)
            Run();
        cpu.GuestEnteredFromKernel = false;
        return InstructionResult.Success;
    }

    /// <summary>VMRUN of the instruction stream, after <see cref="CheckPrivilege()"/> and the intercept. The next instruction of the host is at <paramref name="hostRip"/>.</summary>
    internal InstructionResult VmrunFromStream(ulong pa, ulong hostRip)
    {
        if (!Begin("VMRUN", InstructionResult.Success, out InstructionResult result))
            return Report("VMRUN", pa, 0, result);
        Vmcb* v = VmcbAt(pa);
        if (v == null)
            return Report("VMRUN", pa, 0, InstructionResult.Faulted(Fault.Gp()));
        Report("VMRUN", pa, 0, InstructionResult.Success);
        Enter(v, pa, hostRip);
        return InstructionResult.Success;
    }

    /// <summary>
    /// One turn of the engine for C# code that waits for #VMEXIT. A guest that halted, shut down or was stopped without an intercept sits there until
    /// a physical event reaches this processor.
    /// </summary>
    private void Run()
    {
        if (cpu.Run() != StopReason.HostReached && cpu.NonRoot != null)
            Thread.Yield();
    }

    internal InstructionResult Vmload(ulong pa)
    {
        if (!Begin("VMLOAD", CheckPrivilege(), out InstructionResult result))
            return Report("VMLOAD", pa, 0, result);
        return Report("VMLOAD", pa, 0, VmloadUnchecked(pa));
    }

    internal InstructionResult Vmsave(ulong pa)
    {
        if (!Begin("VMSAVE", CheckPrivilege(), out InstructionResult result))
            return Report("VMSAVE", pa, 0, result);
        return Report("VMSAVE", pa, 0, VmsaveUnchecked(pa));
    }

    internal InstructionResult VmloadUnchecked(ulong pa)
    {
        Vmcb* v = VmcbAt(pa);
        if (v == null)
            return InstructionResult.Faulted(Fault.Gp());
        LoadSystemState(&v->Save, SystemImage(pa));
        return InstructionResult.Success;
    }

    internal InstructionResult VmsaveUnchecked(ulong pa)
    {
        Vmcb* v = VmcbAt(pa);
        if (v == null)
            return InstructionResult.Faulted(Fault.Gp());
        SaveSystemState(&v->Save, SystemImage(pa));
        return InstructionResult.Success;
    }

    /// <summary>STGI (true) and CLGI (false).</summary>
    internal InstructionResult SetGif(bool value)
    {
        string mnemonic = value ? "STGI" : "CLGI";
        if (!Begin(mnemonic, value ? CheckPrivilegeStgi() : CheckPrivilege(), out InstructionResult result))
            return Report(mnemonic, 0, 0, result);
        SetGifUnchecked(value);
        return Report(mnemonic, 0, 0, InstructionResult.Success);
    }

    internal void SetGifUnchecked(bool value)
    {
        Gif = value;
        // What comes after this look makes its own request.
        if (value && (cpu.InterruptPending || cpu.NmiPending || cpu.InitPending || state->PendingDebug != 0))
            cpu.Reevaluate();
    }

    internal InstructionResult Invlpga(ulong linear, uint asid)
    {
        if (!Begin("INVLPGA", CheckPrivilege(), out InstructionResult result))
            return Report("INVLPGA", linear, asid, result);
        cpu.Mmu.FlushLinear((ushort)asid, linear);
        return Report("INVLPGA", linear, asid, InstructionResult.Success);
    }

    internal InstructionResult Skinit(uint slb) => Report("SKINIT", slb, 0, InstructionResult.Faulted(Fault.Ud));

    /// <summary>False when the instruction ends here: by an armed failure or the fault in <paramref name="check"/>.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private bool Begin(string mnemonic, InstructionResult check, out InstructionResult result)
    {
        result = check;
        return check.Ok && !cpu.TakeInstructionFault(mnemonic, out result);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal InstructionResult Report(string mnemonic, ulong operand, ulong value, InstructionResult result)
    {
        cpu.Observer?.Virtualization(cpu, mnemonic, operand, value, result);
        return result;
    }

    /// <summary>INIT and power-up: GIF = 1; the SVM MSRs keep their values over INIT (VM_CR and VM_HSAVE_PA are set with the other MSRs).</summary>
    internal void Reset(bool init)
    {
        Gif = true;
        if (init)
            return;
        TscRatio = DefaultTscRatio;
        svmKey = 0;
        shadowPa = ulong.MaxValue;
        contextRemembered = false;
    }

    public void Dispose()
    {
        NativeMemory.AlignedFree(chipSave);
        NativeMemory.AlignedFree(images);
        if (shadow != null)
            NativeMemory.AlignedFree(shadow);
        shadow = null;
    }
}

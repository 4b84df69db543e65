using Kvm.Emulator.Engine;

namespace Kvm.Emulator.Vmx;

/// <summary>
/// The VMX instructions of the instruction stream. Order everywhere: #UD (no VMX operation, wrong mode), VM exit in non-root operation, #GP(0) above CPL 0,
/// faults of the memory operand, then the instruction itself, whose outcome becomes RFLAGS.
/// </summary>
/// <remarks>SDM vol 3C, "VMX Instruction Reference".</remarks>
internal static unsafe class VmxInstructions
{
    /// <summary>Real mode, virtual-8086 mode, or compatibility mode: no VMX instruction but VMCALL and VMFUNC exists there.</summary>
    private static bool WrongMode(Processor p) => !p.ProtectedMode || p.Virtual8086 || (p.LongMode && !p.Code64);

    private static MemoryOperand Operand(Processor p, Op* op) =>
        new(op->HasMemory, op->Segment, op->Base, op->Index, op->Scale, op->AddressWidth, op->Disp, op->HasMemory ? p.EffectiveAddress(op) : 0, op->Width);

    /// <summary>The checks common to all but VMXON, VMCALL and VMFUNC. False: <paramref name="status"/> ends the instruction.</summary>
    private static bool Begin(Processor p, Op* op, VirtualizationInstruction which, byte register1, byte register2, out ExecStatus status)
    {
        status = ExecStatus.Next;
        if (!p.InVmxOperation || WrongMode(p))
            status = p.RaiseUd();
        else if (p.NonRoot is { } guest)
            status = guest.VirtualizationInstruction(op->Length, which, Operand(p, op), register1, register2) ? ExecStatus.Switched : p.RaiseUd();
        else if (p.State->Cpl != 0)
            status = p.RaiseGp();
        else
            return true;
        return false;
    }

    /// <summary>VMsucceed, VMfailInvalid, VMfailValid as RFLAGS; or the fault.</summary>
    private static ExecStatus Finish(Processor p, in InstructionResult result)
    {
        if (result.IsFault)
            return p.Raise(result.Fault);
        LazyFlags.Set(p.State, LazyFlags.All, result.CF ? LazyFlags.CF : result.ZF ? LazyFlags.ZF : 0);
        return ExecStatus.NextEndBlock;
    }

    private static bool ReadAddress(Processor p, Op* op, out ulong pa) => p.Mmu.Read(op->Segment, p.EffectiveAddress(op), 8, out pa);

    internal static ExecStatus Vmxon(Processor p, Op* op)
    {
        if (!p.Model.HasVmx || !op->HasMemory || WrongMode(p) || (p.State->Cr4 & Cr4.VMXE) == 0)
            return p.RaiseUd();
        if (p.InVmxOperation)
            return Begin(p, op, VirtualizationInstruction.Vmxon, 0, 0, out ExecStatus status) ? Finish(p, p.Vmx.Vmxon(0)) : status;
        if (p.State->Cpl != 0 || !p.Vmx.VmxonAllowed())
            return p.RaiseGp();
        return ReadAddress(p, op, out ulong pa) ? Finish(p, p.Vmx.Vmxon(pa)) : ExecStatus.Fault;
    }

    internal static ExecStatus Vmxoff(Processor p, Op* op) =>
        Begin(p, op, VirtualizationInstruction.Vmxoff, 0, 0, out ExecStatus status) ? Finish(p, p.Vmx.Vmxoff()) : status;

    internal static ExecStatus Vmclear(Processor p, Op* op)
    {
        if (!Begin(p, op, VirtualizationInstruction.Vmclear, 0, 0, out ExecStatus status))
            return status;
        return ReadAddress(p, op, out ulong pa) ? Finish(p, p.Vmx.Vmclear(pa)) : ExecStatus.Fault;
    }

    internal static ExecStatus Vmptrld(Processor p, Op* op)
    {
        if (!Begin(p, op, VirtualizationInstruction.Vmptrld, 0, 0, out ExecStatus status))
            return status;
        return ReadAddress(p, op, out ulong pa) ? Finish(p, p.Vmx.Vmptrld(pa)) : ExecStatus.Fault;
    }

    internal static ExecStatus Vmptrst(Processor p, Op* op)
    {
        if (!Begin(p, op, VirtualizationInstruction.Vmptrst, 0, 0, out ExecStatus status))
            return status;
        InstructionResult result = p.Vmx.Vmptrst(out ulong pa);
        if (result.Ok && !p.Mmu.Write(op->Segment, p.EffectiveAddress(op), 8, pa))
            return ExecStatus.Fault;
        return Finish(p, result);
    }

    internal static ExecStatus Vmread(Processor p, Op* op)
    {
        int width = p.Code64 ? 8 : 4;
        ulong field = p.ReadRegister(op->Reg, width);
        bool shadow = p.NonRoot is VmxGuest guest && p.InVmxOperation && !WrongMode(p) && guest.ShadowsRead(field);
        if (shadow)
        {
            if (p.State->Cpl != 0)
                return p.RaiseGp();
        }
        else if (!Begin(p, op, VirtualizationInstruction.Vmread, op->Rm, op->Reg, out ExecStatus status))
        {
            return status;
        }
        InstructionResult result = p.Vmx.Vmread(field, shadow, out ulong value);
        if (!result.Ok)
            return Finish(p, result);
        if (!op->HasMemory)
            p.WriteRegister(op->Rm, width, value);
        else if (!p.Mmu.Write(op->Segment, p.EffectiveAddress(op), width, value))
            return ExecStatus.Fault;
        return Finish(p, result);
    }

    internal static ExecStatus Vmwrite(Processor p, Op* op)
    {
        int width = p.Code64 ? 8 : 4;
        ulong field = p.ReadRegister(op->Reg, width);
        bool shadow = p.NonRoot is VmxGuest guest && p.InVmxOperation && !WrongMode(p) && guest.ShadowsWrite(field);
        if (shadow)
        {
            if (p.State->Cpl != 0)
                return p.RaiseGp();
        }
        else if (!Begin(p, op, VirtualizationInstruction.Vmwrite, op->Rm, op->Reg, out ExecStatus status))
        {
            return status;
        }
        ulong value;
        if (!op->HasMemory)
            value = p.ReadRegister(op->Rm, width);
        else if (!p.Mmu.Read(op->Segment, p.EffectiveAddress(op), width, out value))
            return ExecStatus.Fault;
        return Finish(p, p.Vmx.Vmwrite(field, value, shadow));
    }

    internal static ExecStatus Invept(Processor p, Op* op) => Invalidate(p, op, VirtualizationInstruction.Invept);
    internal static ExecStatus Invvpid(Processor p, Op* op) => Invalidate(p, op, VirtualizationInstruction.Invvpid);

    /// <summary>The type is checked before the 16-byte descriptor is read.</summary>
    private static ExecStatus Invalidate(Processor p, Op* op, VirtualizationInstruction which)
    {
        bool ept = which == VirtualizationInstruction.Invept;
        if (!p.InVmxOperation || !(ept ? p.Vmx.InveptSupported : p.Vmx.InvvpidSupported))
            return p.RaiseUd();
        if (!Begin(p, op, which, op->Reg, op->Reg, out ExecStatus status))
            return status;
        ulong type = p.ReadRegister(op->Reg, p.Code64 ? 8 : 4);
        ulong low = 0, high = 0;
        if (ept ? p.Vmx.InveptTypeSupported(type) : p.Vmx.InvvpidTypeSupported(type))
        {
            ulong offset = p.EffectiveAddress(op);
            if (!p.Mmu.Read(op->Segment, offset, 8, out low) || !p.Mmu.Read(op->Segment, offset + 8, 8, out high))
                return ExecStatus.Fault;
        }
        return Finish(p, ept ? p.Vmx.Invept(type, low, high) : p.Vmx.Invvpid(type, low, high));
    }

    internal static ExecStatus Vmlaunch(Processor p, Op* op) => Enter(p, op, launch: true);
    internal static ExecStatus Vmresume(Processor p, Op* op) => Enter(p, op, launch: false);

    private static ExecStatus Enter(Processor p, Op* op, bool launch)
    {
        if (!Begin(p, op, launch ? VirtualizationInstruction.Vmlaunch : VirtualizationInstruction.Vmresume, 0, 0, out ExecStatus status))
            return status;
        InstructionResult result = p.Vmx.EnterFromStream(launch);
        return result.Ok ? ExecStatus.Switched : Finish(p, result);
    }

    /// <summary>VMCALL exits from non-root operation in every mode; in root operation it fails.</summary>
    internal static ExecStatus Vmcall(Processor p, Op* op)
    {
        if (!p.InVmxOperation)
            return p.RaiseUd();
        if (p.NonRoot is { } guest)
            return guest.VirtualizationInstruction(op->Length, VirtualizationInstruction.Vmcall, default, 0, 0) ? ExecStatus.Switched : p.RaiseUd();
        if (WrongMode(p))
            return p.RaiseUd();
        return p.State->Cpl != 0 ? p.RaiseGp() : Finish(p, p.Vmx.Vmcall());
    }

    internal static ExecStatus Vmfunc(Processor p, Op* op) => p.NonRoot is VmxGuest guest ? guest.Vmfunc(op->Length) : p.RaiseUd();

    /// <summary>GETSEC without an SMX-capable model is #UD; in non-root operation it always exits.</summary>
    internal static ExecStatus Getsec(Processor p, Op* op)
    {
        if ((p.State->Cr4 & Cr4.SMXE) == 0)
            return p.RaiseUd();
        if (p.NonRoot is VmxGuest guest && guest.VirtualizationInstruction(op->Length, VirtualizationInstruction.Getsec, default, 0, 0))
            return ExecStatus.Switched;
        // CAPABILITIES (EAX = 0, EBX = 0) reports that there is no chipset; every other leaf needs one.
        if ((uint)p.State->Gpr[0] != 0)
            return p.RaiseGp();
        p.WriteRegister(0, 4, 0);
        return ExecStatus.NextEndBlock;
    }
}

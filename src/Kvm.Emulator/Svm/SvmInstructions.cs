using Kvm.Emulator.Engine;

namespace Kvm.Emulator.Svm;

/// <summary>
/// The SVM instructions of the instruction stream. Order everywhere: #UD (no SVM, EFER.SVME clear, wrong mode), #GP(0) above CPL 0, the intercept,
/// then what the operand can raise.
/// </summary>
internal static unsafe class SvmInstructions
{
    /// <summary>rAX by address size.</summary>
    private static ulong Rax(Processor p, Op* op) => op->AddressWidth switch
    {
        2 => (ushort)p.State->Gpr[0],
        4 => (uint)p.State->Gpr[0],
        _ => p.State->Gpr[0],
    };

    private static ExecStatus Finish(Processor p, InstructionResult result, ExecStatus done) => result.IsFault ? p.Raise(result.Fault) : done;

    private static bool Intercepted(Processor p, Op* op, VirtualizationInstruction which)
        => p.NonRoot is SvmGuest g && g.VirtualizationInstruction(op->Length, which, default, 0, 0);

    internal static ExecStatus Vmrun(Processor p, Op* op)
    {
        if (!p.Model.HasSvm)
            return p.RaiseUd();
        InstructionResult check = p.Svm.CheckPrivilege();
        if (check.IsFault)
            return p.Raise(check.Fault);
        if (Intercepted(p, op, VirtualizationInstruction.Vmrun))
            return ExecStatus.Switched;
        return Finish(p, p.Svm.VmrunFromStream(Rax(p, op), p.State->Rip + op->Length), ExecStatus.Switched);
    }

    /// <summary>VMMCALL has no privilege check; without its intercept it is #UD.</summary>
    internal static ExecStatus Vmmcall(Processor p, Op* op)
        => p.Model.HasSvm && Intercepted(p, op, VirtualizationInstruction.Vmmcall) ? ExecStatus.Switched : p.RaiseUd();

    internal static ExecStatus Vmload(Processor p, Op* op) => LoadSave(p, op, VirtualizationInstruction.Vmload);
    internal static ExecStatus Vmsave(Processor p, Op* op) => LoadSave(p, op, VirtualizationInstruction.Vmsave);

    private static ExecStatus LoadSave(Processor p, Op* op, VirtualizationInstruction which)
    {
        if (!p.Model.HasSvm)
            return p.RaiseUd();
        InstructionResult check = p.Svm.CheckPrivilege();
        if (check.IsFault)
            return p.Raise(check.Fault);
        if (Intercepted(p, op, which))
            return ExecStatus.Switched;
        bool load = which == VirtualizationInstruction.Vmload;
        ulong pa = Rax(p, op);
        if (p.NonRoot is SvmGuest { VirtualizesVmloadVmsave: true } guest)
        {
            if ((pa & 0xfff) != 0)
                return p.RaiseGp();
            // Guest-physical: VMLOAD reads and VMSAVE writes the page through nested paging.
            if (!guest.TranslateGpa(pa, new NestedAccess(load, !load, false, true, false, false, 0, false), out NestedTranslation translation))
            {
                p.PendingMemoryExit = true;
                return ExecStatus.Fault;
            }
            pa = translation.Hpa;
        }
        return Finish(p, load ? p.Svm.Vmload(pa) : p.Svm.Vmsave(pa), load ? ExecStatus.NextEndBlock : ExecStatus.Next);
    }

    internal static ExecStatus Stgi(Processor p, Op* op) => Gif(p, op, true);
    internal static ExecStatus Clgi(Processor p, Op* op) => Gif(p, op, false);

    private static ExecStatus Gif(Processor p, Op* op, bool value)
    {
        if (!p.Model.HasSvm)
            return p.RaiseUd();
        InstructionResult check = value ? p.Svm.CheckPrivilegeStgi() : p.Svm.CheckPrivilege();
        if (check.IsFault)
            return p.Raise(check.Fault);
        if (Intercepted(p, op, value ? VirtualizationInstruction.Stgi : VirtualizationInstruction.Clgi))
            return ExecStatus.Switched;
        if (p.NonRoot is SvmGuest guest && guest.SetVirtualGif(value))
            return ExecStatus.NextEndBlock;
        return Finish(p, p.Svm.SetGif(value), ExecStatus.NextEndBlock);
    }

    internal static ExecStatus Skinit(Processor p, Op* op)
    {
        if (!p.Model.HasSvm)
            return p.RaiseUd();
        InstructionResult check = p.Svm.CheckPrivilegeStgi();
        if (check.IsFault)
            return p.Raise(check.Fault);
        if (Intercepted(p, op, VirtualizationInstruction.Skinit))
            return ExecStatus.Switched;
        return p.Raise(p.Svm.Skinit((uint)p.State->Gpr[0]).Fault);
    }

    internal static ExecStatus Invlpga(Processor p, Op* op)
    {
        if (!p.Model.HasSvm)
            return p.RaiseUd();
        InstructionResult check = p.Svm.CheckPrivilege();
        if (check.IsFault)
            return p.Raise(check.Fault);
        if (Intercepted(p, op, VirtualizationInstruction.Invlpga))
            return ExecStatus.Switched;
        return Finish(p, p.Svm.Invlpga(Rax(p, op), (uint)p.State->Gpr[1]), ExecStatus.Next);
    }
}

using System.Collections.Frozen;
using Iced.Intel;

namespace Kvm.Emulator.Tests.Differential;

/// <summary>What shows that an instruction form works, or why nothing has to.</summary>
internal enum Coverage
{
    /// <summary>Random operands on the host's processor and on the emulated one.</summary>
    Differential,
    /// <summary>Small programs whose outcome the manuals give: stack, branches, strings, implicit memory.</summary>
    Programs,
    /// <summary>Tests of the system side: privileged instructions, segments, far transfers, ports, interrupts, virtualization.</summary>
    System,
    /// <summary>Exists outside 64-bit mode only: programs in 16- and 32-bit modes.</summary>
    Legacy,
    /// <summary>Its result differs from run to run: tests of its own.</summary>
    NotDeterministic,
    /// <summary>WAIT and another instruction, which decoders see one after the other.</summary>
    Pair,
    /// <summary>No CPU model announces it; it raises #UD.</summary>
    NotAnnounced,
}

/// <summary>Sorts Iced's codes by how they are covered.</summary>
internal static class CoverageCatalog
{
    private static readonly FrozenSet<Mnemonic> notDeterministic = new[]
    {
        Mnemonic.Rdtsc, Mnemonic.Rdtscp, Mnemonic.Rdrand, Mnemonic.Rdseed, Mnemonic.Rdpid, Mnemonic.Cpuid, Mnemonic.Xgetbv, Mnemonic.Rdpmc, Mnemonic.Rdpkru, Mnemonic.Wrpkru,
        Mnemonic.Rdfsbase, Mnemonic.Rdgsbase, Mnemonic.Wrfsbase, Mnemonic.Wrgsbase, Mnemonic.Rdsspd, Mnemonic.Rdsspq, Mnemonic.Rdpru,
    }.ToFrozenSet();

    // Segment state, descriptor tables, events, virtualization; also what saves and restores whole states.
    private static readonly FrozenSet<Mnemonic> system = new[]
    {
        Mnemonic.Lar, Mnemonic.Lsl, Mnemonic.Verr, Mnemonic.Verw, Mnemonic.Sgdt, Mnemonic.Sidt, Mnemonic.Sldt, Mnemonic.Str, Mnemonic.Smsw, Mnemonic.Lfs, Mnemonic.Lgs, Mnemonic.Lss,
        Mnemonic.Hlt, Mnemonic.Cli, Mnemonic.Sti, Mnemonic.Monitor, Mnemonic.Mwait, Mnemonic.Monitorx, Mnemonic.Mwaitx, Mnemonic.Clzero, Mnemonic.Wbinvd, Mnemonic.Ud0, Mnemonic.Ud1, Mnemonic.Ud2,
        Mnemonic.Fxsave, Mnemonic.Fxsave64, Mnemonic.Fxrstor, Mnemonic.Fxrstor64, Mnemonic.Xsave, Mnemonic.Xsave64, Mnemonic.Xsaveopt, Mnemonic.Xsaveopt64, Mnemonic.Xsavec, Mnemonic.Xsavec64,
        Mnemonic.Xsaves, Mnemonic.Xsaves64, Mnemonic.Xrstor, Mnemonic.Xrstor64, Mnemonic.Xrstors, Mnemonic.Xrstors64, Mnemonic.Fnsave, Mnemonic.Fsave, Mnemonic.Frstor, Mnemonic.Fldenv, Mnemonic.Fnstenv,
        Mnemonic.Fstenv, Mnemonic.Vmcall, Mnemonic.Vmmcall, Mnemonic.Vmfunc, Mnemonic.Getsec, Mnemonic.Int, Mnemonic.Int1, Mnemonic.Int3, Mnemonic.Into, Mnemonic.Bound, Mnemonic.Syscall, Mnemonic.Sysenter,
        Mnemonic.Sysexit, Mnemonic.Sysret, Mnemonic.Sysexitq, Mnemonic.Sysretq, Mnemonic.Ldmxcsr, Mnemonic.Vldmxcsr, Mnemonic.Stgi, Mnemonic.Clgi, Mnemonic.Invlpga, Mnemonic.Skinit, Mnemonic.Pause, Mnemonic.Wait,
        Mnemonic.Clflush, Mnemonic.Clflushopt, Mnemonic.Clwb, Mnemonic.Lddqu, Mnemonic.Arpl,
    }.Except([Mnemonic.Lddqu]).ToFrozenSet();

    private static readonly FrozenSet<Mnemonic> programs = new[]
    {
        Mnemonic.Push, Mnemonic.Pushf, Mnemonic.Pushfd, Mnemonic.Pushfq, Mnemonic.Pop, Mnemonic.Popf, Mnemonic.Popfd, Mnemonic.Popfq, Mnemonic.Pusha, Mnemonic.Pushad, Mnemonic.Popa, Mnemonic.Popad,
        Mnemonic.Enter, Mnemonic.Leave, Mnemonic.Xlatb, Mnemonic.Maskmovq, Mnemonic.Maskmovdqu, Mnemonic.Vmaskmovdqu, Mnemonic.Emms,
    }.ToFrozenSet();

    internal static Coverage Of(Code code)
    {
        OpCodeInfo info = code.ToOpCode();
        if (!info.IsInstruction || code is Code.INVALID)
            return Coverage.NotAnnounced;
        if (info.Fwait)
            return Coverage.Pair;
        Instruction instruction = default;
        instruction.Code = code;
        if (code.Encoding() is not (EncodingKind.Legacy or EncodingKind.VEX) || !code.CpuidFeatures().All(Announced))
            return Coverage.NotAnnounced;
        if (notDeterministic.Contains(info.Mnemonic))
            return Coverage.NotDeterministic;
        if (info.MustBeCpl0 || !info.Cpl3 || info.Mnemonic is Mnemonic.Mov && Kinds(info).Any(static k => k is OpCodeOperandKind.seg_reg or OpCodeOperandKind.cr_reg or OpCodeOperandKind.dr_reg)
            || system.Contains(info.Mnemonic) || code.IsJmpFar() || code.IsCallFar() || info.Mnemonic is Mnemonic.Retf or Mnemonic.Iret or Mnemonic.Iretd or Mnemonic.Iretq
            || Kinds(info).Any(static k => k is OpCodeOperandKind.dx) || info.Mnemonic is Mnemonic.In or Mnemonic.Out)
            return info.Mode64 ? Coverage.System : Coverage.Legacy;
        if (!info.Mode64)
            return Coverage.Legacy;
        if (programs.Contains(info.Mnemonic) || code.FlowControl() != FlowControl.Next || instruction.IsStringInstruction || Kinds(info).Any(static k => k.ToString().Contains("_r", StringComparison.Ordinal) && k.ToString().StartsWith("seg", StringComparison.Ordinal))
            || Kinds(info).Any(static k => k is OpCodeOperandKind.mem_offs or OpCodeOperandKind.es_rDI or OpCodeOperandKind.seg_rSI or OpCodeOperandKind.seg_rBX_al or OpCodeOperandKind.seg_rDI)
            || Kinds(info).Any(static k => k.ToString().StartsWith("mem_vsib", StringComparison.Ordinal)))
            return Coverage.Programs;
        return Coverage.Differential;
    }

    internal static IEnumerable<OpCodeOperandKind> Kinds(OpCodeInfo info)
    {
        for (int i = 0; i < info.OpCount; i++)
            yield return info.GetOpKind(i);
    }

    /// <summary>Some CPU model of this project has it.</summary>
    internal static bool Announced(CpuidFeature feature) => announced[(int)feature];

    private static readonly bool[] announced = Build();

    private static bool[] Build()
    {
        bool[] all = new bool[(int)Enum.GetValues<CpuidFeature>().Max() + 1];
        foreach (CpuModel model in CpuModel.Names.Select(CpuModel.Load))
        {
            bool[] one = Emulator.Engine.OpcodeFeatures.Announced(model);
            for (int i = 0; i < all.Length; i++)
                all[i] |= one[i];
        }
        return all;
    }
}

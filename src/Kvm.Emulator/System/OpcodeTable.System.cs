using Iced.Intel;

namespace Kvm.Emulator.Engine;

internal sealed unsafe partial class OpcodeTable
{
    private const OpcodeFlags End = OpcodeFlags.EndBlock;
    private const OpcodeFlags Shadow = OpcodeFlags.EndBlock | OpcodeFlags.SetsShadow;

    static partial void RegisterSystem(OpcodeTable t)
    {
        RegisterSegments(t);
        RegisterTransfers(t);
        RegisterTables(t);
        RegisterPorts(t);
        RegisterPrivileged(t);
        RegisterStates(t);
    }

    private static void RegisterSegments(OpcodeTable t)
    {
        t.Row(Code.Mov_rm16_Sreg, &Processor.MoveFromSegment);
        t.Row(Code.Mov_r32m16_Sreg, &Processor.MoveFromSegment);
        t.Row(Code.Mov_r64m16_Sreg, &Processor.MoveFromSegment);
        t.Row(Code.Mov_Sreg_rm16, &Processor.MoveToSegment, Shadow);
        t.Row(Code.Mov_Sreg_r32m16, &Processor.MoveToSegment, Shadow);
        t.Row(Code.Mov_Sreg_r64m16, &Processor.MoveToSegment, Shadow);
        foreach (Code code in (Code[])[Code.Pushw_ES, Code.Pushd_ES, Code.Pushw_CS, Code.Pushd_CS, Code.Pushw_SS, Code.Pushd_SS, Code.Pushw_DS, Code.Pushd_DS,
            Code.Pushw_FS, Code.Pushd_FS, Code.Pushq_FS, Code.Pushw_GS, Code.Pushd_GS, Code.Pushq_GS])
            t.Row(code, &Processor.PushSegment);
        foreach (Code code in (Code[])[Code.Popw_ES, Code.Popd_ES, Code.Popw_SS, Code.Popd_SS, Code.Popw_DS, Code.Popd_DS,
            Code.Popw_FS, Code.Popd_FS, Code.Popq_FS, Code.Popw_GS, Code.Popd_GS, Code.Popq_GS])
            t.Row(code, &Processor.PopSegment, Shadow);
        t.Row(Code.Les_r16_m1616, &Processor.Les, End);
        t.Row(Code.Les_r32_m1632, &Processor.Les, End);
        t.Row(Code.Lds_r16_m1616, &Processor.Lds, End);
        t.Row(Code.Lds_r32_m1632, &Processor.Lds, End);
        t.Row(Code.Lss_r16_m1616, &Processor.Lss, End);
        t.Row(Code.Lss_r32_m1632, &Processor.Lss, End);
        t.Row(Code.Lss_r64_m1664, &Processor.Lss, End);
        t.Row(Code.Lfs_r16_m1616, &Processor.Lfs, End);
        t.Row(Code.Lfs_r32_m1632, &Processor.Lfs, End);
        t.Row(Code.Lfs_r64_m1664, &Processor.Lfs, End);
        t.Row(Code.Lgs_r16_m1616, &Processor.Lgs, End);
        t.Row(Code.Lgs_r32_m1632, &Processor.Lgs, End);
        t.Row(Code.Lgs_r64_m1664, &Processor.Lgs, End);
        t.Row(Code.Lar_r16_rm16, &Processor.Lar);
        t.Row(Code.Lar_r32_r32m16, &Processor.Lar);
        t.Row(Code.Lar_r64_r64m16, &Processor.Lar);
        t.Row(Code.Lsl_r16_rm16, &Processor.Lsl);
        t.Row(Code.Lsl_r32_r32m16, &Processor.Lsl);
        t.Row(Code.Lsl_r64_r64m16, &Processor.Lsl);
        t.Row(Code.Verr_rm16, &Processor.Verr);
        t.Row(Code.Verr_r32m16, &Processor.Verr);
        t.Row(Code.Verr_r64m16, &Processor.Verr);
        t.Row(Code.Verw_rm16, &Processor.Verw);
        t.Row(Code.Verw_r32m16, &Processor.Verw);
        t.Row(Code.Verw_r64m16, &Processor.Verw);
        t.Row(Code.Arpl_rm16_r16, &Processor.Arpl);
        t.Row(Code.Arpl_r32m16_r32, &Processor.Arpl);
    }

    private static void RegisterTransfers(OpcodeTable t)
    {
        t.Row(Code.Jmp_ptr1616, &Processor.FarJumpImmediate, End);
        t.Row(Code.Jmp_ptr1632, &Processor.FarJumpImmediate, End);
        t.Row(Code.Call_ptr1616, &Processor.FarCallImmediate, End);
        t.Row(Code.Call_ptr1632, &Processor.FarCallImmediate, End);
        t.Row(Code.Jmp_m1616, &Processor.FarJumpMemory, End);
        t.Row(Code.Jmp_m1632, &Processor.FarJumpMemory, End);
        t.Row(Code.Jmp_m1664, &Processor.FarJumpMemory, End);
        t.Row(Code.Call_m1616, &Processor.FarCallMemory, End);
        t.Row(Code.Call_m1632, &Processor.FarCallMemory, End);
        t.Row(Code.Call_m1664, &Processor.FarCallMemory, End);
        t.Row(Code.Retfw, &Processor.FarReturn, End);
        t.Row(Code.Retfd, &Processor.FarReturn, End);
        t.Row(Code.Retfq, &Processor.FarReturn, End);
        t.Row(Code.Retfw_imm16, &Processor.FarReturnImmediate, End);
        t.Row(Code.Retfd_imm16, &Processor.FarReturnImmediate, End);
        t.Row(Code.Retfq_imm16, &Processor.FarReturnImmediate, End);
        t.Row(Code.Iretw, &Processor.IretHandler, End);
        t.Row(Code.Iretd, &Processor.IretHandler, End);
        t.Row(Code.Iretq, &Processor.IretHandler, End);
        t.Row(Code.Int_imm8, &Processor.IntHandler, End);
        t.Row(Code.Int3, &Processor.Int3Handler, End);
        t.Row(Code.Into, &Processor.IntoHandler, End);
        t.Row(Code.Int1, &Processor.Int1Handler, End);
        t.Row(Code.Syscall, &Processor.Syscall, End);
        t.Row(Code.Sysretd, &Processor.Sysret, End);
        t.Row(Code.Sysretq, &Processor.Sysret, End);
        t.Row(Code.Sysenter, &Processor.Sysenter, End);
        t.Row(Code.Sysexitd, &Processor.Sysexit, End);
        t.Row(Code.Sysexitq, &Processor.Sysexit, End);
        t.Row(Code.Rsm, &Processor.Rsm, End);
    }

    private static void RegisterTables(OpcodeTable t)
    {
        t.Row(Code.Sgdt_m1632_16, &Processor.Sgdt);
        t.Row(Code.Sgdt_m1632, &Processor.Sgdt);
        t.Row(Code.Sgdt_m1664, &Processor.Sgdt);
        t.Row(Code.Sidt_m1632_16, &Processor.Sidt);
        t.Row(Code.Sidt_m1632, &Processor.Sidt);
        t.Row(Code.Sidt_m1664, &Processor.Sidt);
        t.Row(Code.Lgdt_m1632_16, &Processor.LgdtW, End);
        t.Row(Code.Lgdt_m1632, &Processor.Lgdt, End);
        t.Row(Code.Lgdt_m1664, &Processor.Lgdt, End);
        t.Row(Code.Lidt_m1632_16, &Processor.LidtW, End);
        t.Row(Code.Lidt_m1632, &Processor.Lidt, End);
        t.Row(Code.Lidt_m1664, &Processor.Lidt, End);
        t.Row(Code.Sldt_rm16, &Processor.Sldt);
        t.Row(Code.Sldt_r32m16, &Processor.Sldt);
        t.Row(Code.Sldt_r64m16, &Processor.Sldt);
        t.Row(Code.Str_rm16, &Processor.Str);
        t.Row(Code.Str_r32m16, &Processor.Str);
        t.Row(Code.Str_r64m16, &Processor.Str);
        t.Row(Code.Lldt_rm16, &Processor.Lldt, End);
        t.Row(Code.Lldt_r32m16, &Processor.Lldt, End);
        t.Row(Code.Lldt_r64m16, &Processor.Lldt, End);
        t.Row(Code.Ltr_rm16, &Processor.Ltr, End);
        t.Row(Code.Ltr_r32m16, &Processor.Ltr, End);
        t.Row(Code.Ltr_r64m16, &Processor.Ltr, End);
        t.Row(Code.Smsw_rm16, &Processor.Smsw);
        t.Row(Code.Smsw_r32m16, &Processor.Smsw);
        t.Row(Code.Smsw_r64m16, &Processor.Smsw);
        t.Row(Code.Lmsw_rm16, &Processor.Lmsw, End);
        t.Row(Code.Lmsw_r32m16, &Processor.Lmsw, End);
        t.Row(Code.Lmsw_r64m16, &Processor.Lmsw, End);
        t.Row(Code.Clts, &Processor.Clts, End);
        t.Row(Code.Mov_r32_cr, &Processor.MoveFromCr, End);
        t.Row(Code.Mov_r64_cr, &Processor.MoveFromCr, End);
        t.Row(Code.Mov_cr_r32, &Processor.MoveToCr, End);
        t.Row(Code.Mov_cr_r64, &Processor.MoveToCr, End);
        t.Row(Code.Mov_r32_dr, &Processor.MoveFromDr, End);
        t.Row(Code.Mov_r64_dr, &Processor.MoveFromDr, End);
        t.Row(Code.Mov_dr_r32, &Processor.MoveToDr, End);
        t.Row(Code.Mov_dr_r64, &Processor.MoveToDr, End);
    }

    private static void RegisterPorts(OpcodeTable t)
    {
        t.Row(Code.In_AL_imm8, &Processor.InImmediate, End);
        t.Row(Code.In_AX_imm8, &Processor.InImmediate, End);
        t.Row(Code.In_EAX_imm8, &Processor.InImmediate, End);
        t.Row(Code.In_AL_DX, &Processor.InDx, End);
        t.Row(Code.In_AX_DX, &Processor.InDx, End);
        t.Row(Code.In_EAX_DX, &Processor.InDx, End);
        t.Row(Code.Out_imm8_AL, &Processor.OutImmediate, End);
        t.Row(Code.Out_imm8_AX, &Processor.OutImmediate, End);
        t.Row(Code.Out_imm8_EAX, &Processor.OutImmediate, End);
        t.Row(Code.Out_DX_AL, &Processor.OutDx, End);
        t.Row(Code.Out_DX_AX, &Processor.OutDx, End);
        t.Row(Code.Out_DX_EAX, &Processor.OutDx, End);
        t.Row(Code.Insb_m8_DX, &Processor.Ins, End);
        t.Row(Code.Insw_m16_DX, &Processor.Ins, End);
        t.Row(Code.Insd_m32_DX, &Processor.Ins, End);
        t.Row(Code.Outsb_DX_m8, &Processor.Outs, End);
        t.Row(Code.Outsw_DX_m16, &Processor.Outs, End);
        t.Row(Code.Outsd_DX_m32, &Processor.Outs, End);
    }

    private static void RegisterPrivileged(OpcodeTable t)
    {
        t.Row(Code.Cli, &Processor.Cli, End);
        t.Row(Code.Sti, &Processor.Sti, Shadow);
        t.Row(Code.Popfw, &Processor.Popf, End);
        t.Row(Code.Popfd, &Processor.Popf, End);
        t.Row(Code.Popfq, &Processor.Popf, End);
        t.Row(Code.Clac, &Processor.Clac, End);
        t.Row(Code.Stac, &Processor.Stac, End);
        t.Row(Code.Hlt, &Processor.Hlt, End);
        t.Row(Code.Monitorw, &Processor.Monitor, End);
        t.Row(Code.Monitord, &Processor.Monitor, End);
        t.Row(Code.Monitorq, &Processor.Monitor, End);
        t.Row(Code.Mwait, &Processor.Mwait, End);
        t.Row(Code.Monitorxw, &Processor.Monitorx, End);
        t.Row(Code.Monitorxd, &Processor.Monitorx, End);
        t.Row(Code.Monitorxq, &Processor.Monitorx, End);
        t.Row(Code.Mwaitx, &Processor.Mwaitx, End);
        t.Row(Code.Cpuid, &Processor.CpuidHandler, End);
        t.Row(Code.Rdmsr, &Processor.RdmsrHandler, End);
        t.Row(Code.Wrmsr, &Processor.WrmsrHandler, End);
        t.Row(Code.Rdtsc, &Processor.RdtscHandler, End);
        t.Row(Code.Rdtscp, &Processor.RdtscpHandler, End);
        t.Row(Code.Rdpmc, &Processor.RdpmcHandler, End);
        t.Row(Code.Rdpid_r32, &Processor.RdpidHandler);
        t.Row(Code.Rdpid_r64, &Processor.RdpidHandler);
        t.Row(Code.Invlpg_m, &Processor.InvlpgHandler, End);
        t.Row(Code.Invpcid_r32_m128, &Processor.Invpcid, End);
        t.Row(Code.Invpcid_r64_m128, &Processor.Invpcid, End);
        t.Row(Code.Invd, &Processor.Invd, End);
        t.Row(Code.Wbinvd, &Processor.WbinvdHandler, End);
        t.Row(Code.Wbnoinvd, &Processor.WbinvdHandler, End);
        t.Row(Code.Swapgs, &Processor.Swapgs, End);
        t.Row(Code.Rdfsbase_r32, &Processor.Rdfsbase);
        t.Row(Code.Rdfsbase_r64, &Processor.Rdfsbase);
        t.Row(Code.Rdgsbase_r32, &Processor.Rdgsbase);
        t.Row(Code.Rdgsbase_r64, &Processor.Rdgsbase);
        t.Row(Code.Wrfsbase_r32, &Processor.Wrfsbase, End);
        t.Row(Code.Wrfsbase_r64, &Processor.Wrfsbase, End);
        t.Row(Code.Wrgsbase_r32, &Processor.Wrgsbase, End);
        t.Row(Code.Wrgsbase_r64, &Processor.Wrgsbase, End);
        t.Row(Code.Rdpkru, &Processor.Rdpkru);
        t.Row(Code.Wrpkru, &Processor.Wrpkru, End);
    }
}

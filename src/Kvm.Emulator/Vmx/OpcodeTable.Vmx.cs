using Iced.Intel;
using Kvm.Emulator.Vmx;

namespace Kvm.Emulator.Engine;

internal sealed unsafe partial class OpcodeTable
{
    static partial void RegisterVmx(OpcodeTable t)
    {
        const OpcodeFlags end = OpcodeFlags.AnyFeature | OpcodeFlags.EndBlock;
        // 0F 01 C1 … 0F 01 D4
        t.Row(Code.Vmcall, &VmxInstructions.Vmcall, end);
        t.Row(Code.Vmlaunch, &VmxInstructions.Vmlaunch, end);
        t.Row(Code.Vmresume, &VmxInstructions.Vmresume, end);
        t.Row(Code.Vmxoff, &VmxInstructions.Vmxoff, end);
        t.Row(Code.Vmfunc, &VmxInstructions.Vmfunc, end);
        // 0F 37
        t.Row(Code.Getsecd, &VmxInstructions.Getsec, end);
        t.Row(Code.Getsecq, &VmxInstructions.Getsec, end);
        // 0F 78, 0F 79
        t.Row(Code.Vmread_rm32_r32, &VmxInstructions.Vmread, end);
        t.Row(Code.Vmread_rm64_r64, &VmxInstructions.Vmread, end);
        t.Row(Code.Vmwrite_r32_rm32, &VmxInstructions.Vmwrite, end);
        t.Row(Code.Vmwrite_r64_rm64, &VmxInstructions.Vmwrite, end);
        // 0F C7 /6, /7
        t.Row(Code.Vmptrld_m64, &VmxInstructions.Vmptrld, end);
        t.Row(Code.Vmclear_m64, &VmxInstructions.Vmclear, end);
        t.Row(Code.Vmxon_m64, &VmxInstructions.Vmxon, end);
        t.Row(Code.Vmptrst_m64, &VmxInstructions.Vmptrst, end);
        // 66 0F 38 80, 81
        t.Row(Code.Invept_r32_m128, &VmxInstructions.Invept, end);
        t.Row(Code.Invept_r64_m128, &VmxInstructions.Invept, end);
        t.Row(Code.Invvpid_r32_m128, &VmxInstructions.Invvpid, end);
        t.Row(Code.Invvpid_r64_m128, &VmxInstructions.Invvpid, end);
    }
}

using Iced.Intel;
using Kvm.Emulator.Svm;

namespace Kvm.Emulator.Engine;

internal sealed unsafe partial class OpcodeTable
{
    static partial void RegisterSvm(OpcodeTable t)
    {
        const OpcodeFlags end = OpcodeFlags.EndBlock | OpcodeFlags.NoFlags | OpcodeFlags.AnyFeature, plain = OpcodeFlags.NoFlags | OpcodeFlags.AnyFeature;
        // 0F 01 D8 … 0F 01 DF
        t.Row(Code.Vmrunw, &SvmInstructions.Vmrun, end);
        t.Row(Code.Vmrund, &SvmInstructions.Vmrun, end);
        t.Row(Code.Vmrunq, &SvmInstructions.Vmrun, end);
        t.Row(Code.Vmmcall, &SvmInstructions.Vmmcall, end);
        t.Row(Code.Vmloadw, &SvmInstructions.Vmload, end);
        t.Row(Code.Vmloadd, &SvmInstructions.Vmload, end);
        t.Row(Code.Vmloadq, &SvmInstructions.Vmload, end);
        t.Row(Code.Vmsavew, &SvmInstructions.Vmsave, plain);
        t.Row(Code.Vmsaved, &SvmInstructions.Vmsave, plain);
        t.Row(Code.Vmsaveq, &SvmInstructions.Vmsave, plain);
        t.Row(Code.Stgi, &SvmInstructions.Stgi, end);
        t.Row(Code.Clgi, &SvmInstructions.Clgi, end);
        t.Row(Code.Skinit, &SvmInstructions.Skinit, plain);
        t.Row(Code.Invlpgaw, &SvmInstructions.Invlpga, plain);
        t.Row(Code.Invlpgad, &SvmInstructions.Invlpga, plain);
        t.Row(Code.Invlpgaq, &SvmInstructions.Invlpga, plain);
    }
}

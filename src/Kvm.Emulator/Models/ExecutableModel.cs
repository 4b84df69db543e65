using System.Runtime.CompilerServices;
using Iced.Intel;
using Kvm.Emulator.Engine;
using Kvm.Emulator.Vector;

namespace Kvm.Emulator;

/// <summary>The part of a CPU model that the emulator can keep: CPUID bits of instructions that would not execute are cleared.</summary>
/// <remarks>
/// Models recorded from other machines announce more than exists here (AVX-512). They stay as recorded; what a <see cref="Processor"/> is built from is this (DIVERGES: D-HW-6).
/// Two sources: the table of what nobody has written, and, for features of <see cref="OpcodeFeatures"/>, the instruction tables themselves: a vector feature that only
/// a host processor could execute disappears on hosts without it.
/// </remarks>
internal static class ExecutableModel
{
    private static readonly ConditionalWeakTable<CpuModel, CpuModel> known = [];

    internal static CpuModel Of(CpuModel model) => known.GetValue(model, static m => m.With(cpuid: Clear));

    /// <summary>
    /// Bits to clear: leaf, subleaf, EAX, EBX, ECX, EDX. 7.0: SGX, HLE, RTM, MPX, PT, AVX-512; VBMI, WAITPKG, CET, VNNI, BITALG, key locker, MOVDIRI, MOVDIR64B, ENQCMD, PKS;
    /// 4VNNIW, 4FMAPS, UINTR, VP2INTERSECT, SERIALIZE, TSXLDTRK, PCONFIG, IBT, AMX, AVX512-FP16. 7.1: everything from AVX-VNNI on. 80000001: XOP, LWP, FMA4, TBM; 3DNow!.
    /// </summary>
    private static readonly (uint Leaf, uint Subleaf, CpuidLeaf Bits)[] unwritten =
    [
        (7, 0, new CpuidLeaf(0, 1u << 2 | 1 << 4 | 1 << 11 | 1 << 14 | 1 << 25 | avx512Ebx,
            1u << 1 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 11 | 1 << 12 | 1 << 14 | 1 << 23 | 1 << 27 | 1 << 28 | 1 << 29 | 1 << 30 | 1u << 31,
            1u << 2 | 1 << 3 | 1 << 5 | 1 << 8 | 1 << 14 | 1 << 16 | 1 << 18 | 1 << 20 | 1 << 22 | 1 << 23 | 1 << 24 | 1 << 25)),
        (7, 1, new CpuidLeaf(uint.MaxValue, uint.MaxValue, uint.MaxValue, uint.MaxValue)),
        (0xd, 1, new CpuidLeaf(~0xfu, 0, 0, 0)),
        (0x80000001, 0, new CpuidLeaf(0, 0, 1u << 11 | 1 << 15 | 1 << 16 | 1 << 21, 3u << 30)),
    ];

    private const uint avx512Ebx = 1u << 16 | 1 << 17 | 1 << 21 | 1 << 26 | 1 << 27 | 1 << 28 | 1 << 30 | 1u << 31;

    /// <summary>Leaves that describe such features only: SGX, PT, AMX.</summary>
    private static readonly uint[] unwrittenLeaves = [0x12, 0x14, 0x1d, 0x1e];

    private static CpuidLeaf Clear(uint leaf, uint subleaf, CpuidLeaf data)
    {
        if (unwrittenLeaves.Contains(leaf))
            return default;
        foreach ((uint l, uint s, CpuidLeaf bits) in unwritten)
        {
            if (l == leaf && s == subleaf)
                data = new CpuidLeaf(data.Eax & ~bits.Eax, data.Ebx & ~bits.Ebx, data.Ecx & ~bits.Ecx, data.Edx & ~bits.Edx);
        }
        foreach (string feature in incomplete)
            data = OpcodeFeatures.Without(leaf, subleaf, data, feature);
        return data;
    }

    /// <summary>Features of which some instruction has neither a handler nor a core, on this host.</summary>
    private static readonly string[] incomplete = Incomplete();

    private static string[] Incomplete()
    {
        var codes = new int[(int)Enum.GetValues<CpuidFeature>().Max() + 1];
        var missing = new List<Code>();
        foreach (Code code in Enum.GetValues<Code>())
        {
            OpCodeInfo info = code.ToOpCode();
            if (!info.IsInstruction || info.Fwait || code.Encoding() is not (EncodingKind.Legacy or EncodingKind.VEX))
                continue;
            foreach (CpuidFeature feature in code.CpuidFeatures())
                codes[(int)feature]++;
            if (!Executes(code))
                missing.Add(code);
        }
        // An instruction may need several features (AES and AVX): the one with the fewest instructions is what it is about.
        return [.. missing.Select(code => code.CpuidFeatures().MinBy(feature => codes[(int)feature]).ToString()).Distinct()];
    }

    private static unsafe bool Executes(Code code)
        => OpcodeTable.Instance[code].Handler != null || (VectorTraits.IsVector(code) && (HostStubs.HostHas(code) || VectorTable.Instance[code] != null));
}

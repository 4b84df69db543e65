using Kvm.Core.Tracing;
using static Kvm.Arch.X86.MsrIndex;

namespace Kvm.Arch.X86;

/// <remarks>Memory type range registers and the page attribute table.</remarks>
public partial class X86Vcpu
{
    private static bool MsrMtrrValid(uint msr) => msr is
        >= 0x200 and < 0x200 + (2 * KvmMtrr.KVM_NR_VAR_MTRR)
        or MSR_MTRRfix64K_00000 or MSR_MTRRfix16K_80000 or MSR_MTRRfix16K_A0000
        or (>= MSR_MTRRfix4K_C0000 and <= MSR_MTRRfix4K_F8000)
        or MSR_MTRRdefType or MSR_IA32_CR_PAT;

    /// <summary>Types 0, 1, 4, 5 and 6 exist.</summary>
    private static bool ValidMtrrType(ulong type) => type < 8 && ((1u << (int)type) & 0x73) != 0;

    /// <summary>kvm_pat_valid: every byte of <paramref name="data"/> is one of 0, 1, 4, 5, 6, 7.</summary>
    public static bool PatValid(ulong data)
    {
        if ((data & 0xF8F8F8F8F8F8F8F8) != 0)
            return false;

        // Types 2 and 3 are the ones with bit 1 set and bit 2 clear.
        return (data | ((data & 0x0202020202020202) << 1)) == data;
    }

    /// <summary>Whether the value may be written to an MTRR or to the PAT.</summary>
    [KernelFunction("kvm_mtrr_valid", File = "arch/x86/kvm/mtrr.c")]
    public bool MtrrValid(uint msr, ulong data)
    {
        if (!MsrMtrrValid(msr))
            return false;
        if (msr == MSR_IA32_CR_PAT)
            return PatValid(data);
        if (msr == MSR_MTRRdefType)
            return (data & ~0xcfful) == 0 && ValidMtrrType(data & 0xff);
        if (msr is >= MSR_MTRRfix64K_00000 and <= MSR_MTRRfix4K_F8000)
        {
            for (int i = 0; i < 8; i++)
            {
                if (!ValidMtrrType((data >> (i * 8)) & 0xff))
                    return false;
            }

            return true;
        }

        ulong mask = ReservedGpaBitsRaw;
        if ((msr & 1) != 0)
            return (data & (mask | 0x7ff)) == 0;
        return ValidMtrrType(data & 0xff) && (data & (mask | 0xf00)) == 0;
    }

    private static int FixedRangeIndex(uint msr) => msr switch
    {
        MSR_MTRRfix64K_00000 => 0,
        MSR_MTRRfix16K_80000 => 1,
        MSR_MTRRfix16K_A0000 => 2,
        >= MSR_MTRRfix4K_C0000 and <= MSR_MTRRfix4K_F8000 => (int)(msr - MSR_MTRRfix4K_C0000) + 3,
        _ => -1,
    };

    [KernelFunction("kvm_mtrr_set_msr", File = "arch/x86/kvm/mtrr.c")]
    private int MtrrSetMsr(uint msr, ulong data)
    {
        if (!MtrrValid(msr, data))
            return 1;
        int index = FixedRangeIndex(msr);
        if (index >= 0)
            MtrrState.FixedRanges[index] = data;
        else if (msr == MSR_MTRRdefType)
            MtrrState.DefType = data;
        else if (msr == MSR_IA32_CR_PAT)
            Pat = data;
        else
            MtrrState.VarRanges[msr - 0x200] = data;
        return 0;
    }

    [KernelFunction("kvm_mtrr_get_msr", File = "arch/x86/kvm/mtrr.c")]
    private int MtrrGetMsr(uint msr, out ulong data)
    {
        // MTRRcap: write-combining, fixed ranges, number of variable ranges.
        data = 0x500 | KvmMtrr.KVM_NR_VAR_MTRR;
        if (msr == MSR_MTRRcap)
            return 0;
        data = 0;
        if (!MsrMtrrValid(msr))
            return 1;
        int index = FixedRangeIndex(msr);
        if (index >= 0)
            data = MtrrState.FixedRanges[index];
        else if (msr == MSR_MTRRdefType)
            data = MtrrState.DefType;
        else if (msr == MSR_IA32_CR_PAT)
            data = Pat;
        else
            data = MtrrState.VarRanges[msr - 0x200] & ~ReservedGpaBitsRaw;
        return 0;
    }
}

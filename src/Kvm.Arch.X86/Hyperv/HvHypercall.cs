using System.Runtime.CompilerServices;
using static Kvm.Arch.X86.HypervConst;

namespace Kvm.Arch.X86;

/// <summary>struct kvm_hv_hcall: a hypercall's input value taken apart, and its parameters.</summary>
/// <remarks>TLFS, "Hypercall Inputs": code 15:0, fast 16, variable header size 26:17, rep count 43:32, rep start index 59:48.</remarks>
internal struct HvHypercall
{
    /// <summary>The input value.</summary>
    public ulong Param;

    /// <summary>Guest address of the input block; the first parameter itself of a fast call.</summary>
    public ulong Ingpa;

    /// <summary>Guest address of the output block; the second parameter of a fast call.</summary>
    public ulong Outgpa;

    /// <summary>Parameters of a fast call in XMM0–XMM5, low half first.</summary>
    public XmmHalves Xmm;

    public readonly ushort Code => (ushort)Param;

    public readonly bool Fast => (Param & HV_HYPERCALL_FAST_BIT) != 0;

    public readonly ushort VarCnt => (ushort)(Param >> HV_HYPERCALL_VARHEAD_OFFSET & 0x3ff);

    public readonly ushort RepCnt => (ushort)(Param >> HV_HYPERCALL_REP_COMP_OFFSET & 0xfff);

    public readonly ushort RepIdx => (ushort)(Param >> HV_HYPERCALL_REP_START_OFFSET & 0xfff);

    public readonly bool Rep => RepCnt != 0 || RepIdx != 0;

    /// <summary>is_xmm_fast_hypercall.</summary>
    public readonly bool TakesXmm => Code is HVCALL_FLUSH_VIRTUAL_ADDRESS_LIST or HVCALL_FLUSH_VIRTUAL_ADDRESS_SPACE or HVCALL_FLUSH_VIRTUAL_ADDRESS_LIST_EX
        or HVCALL_FLUSH_VIRTUAL_ADDRESS_SPACE_EX or HVCALL_SEND_IPI_EX;

    [InlineArray(2 * HV_HYPERCALL_MAX_XMM_REGISTERS)]
    public struct XmmHalves
    {
        private ulong _half;
    }
}

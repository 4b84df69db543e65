using Iced.Intel;
using Kvm.Emulator.Vector;

namespace Kvm.Emulator.Tests.Vector;

/// <summary>What two x87 units may do differently.</summary>
internal static unsafe class X87Tolerance
{
    private const ushort c1 = 0x200;

    /// <summary>Approximated, not rounded from the exact result: the last bit is the processor's own, and with it the direction of rounding (C1).</summary>
    internal static bool IsTranscendental(Code code) => code is Code.F2xm1 or Code.Fyl2x or Code.Fyl2xp1 or Code.Fptan or Code.Fpatan or Code.Fsin or Code.Fcos or Code.Fsincos;

    /// <summary>
    /// Condition codes that the manuals leave open, or where AMD's processors do what Intel's manual does not say, and the C# cores with them: FCOMI and FCMOVcc leave
    /// C1 alone, FFREE clears it; FPREM without a quotient clears C2 and leaves C3 and C0; how far a partial remainder (C2 = 1) gets is the processor's choice.
    /// </summary>
    internal static bool DiffersBetweenVendors(Code code) => code.Mnemonic() is Mnemonic.Fcomi or Mnemonic.Fcomip or Mnemonic.Fucomi or Mnemonic.Fucomip
        or Mnemonic.Fcmovb or Mnemonic.Fcmove or Mnemonic.Fcmovbe or Mnemonic.Fcmovu or Mnemonic.Fcmovnb or Mnemonic.Fcmovne or Mnemonic.Fcmovnbe or Mnemonic.Fcmovnu
        or Mnemonic.Ffree or Mnemonic.Ffreep or Mnemonic.Fstpnce or Mnemonic.Fprem or Mnemonic.Fprem1;

    /// <summary>
    /// The processor the comparison runs on is AMD's, as those were that the C# cores were found equal to in everything. Others are compared with all exceptions masked:
    /// unmasked, AMD's comparisons still report their result, FLD still pushes a denormal, and other processors may not.
    /// </summary>
    internal static bool HostIsAmd { get; } = System.Runtime.Intrinsics.X86.X86Base.IsSupported && System.Runtime.Intrinsics.X86.X86Base.CpuId(0, 0).Ebx == 0x68747541;

    /// <summary>Results within one unit in the last place of each other, and C1.</summary>
    internal static void LastBit(CpuState* before, CpuState* host, CpuState* managed, byte* hostArea, byte* managedArea)
    {
        ref ushort status = ref *(ushort*)(managed->Fx + VectorUnit.FxStatus);
        ushort hostStatus = *(ushort*)(host->Fx + VectorUnit.FxStatus);
        const ushort precision = 0x20;
        if ((status & hostStatus & precision) == 0)
            return;
        bool near = true;
        for (int i = 0; i < 2; i++)
            near &= Distance(Slot(host, i), Slot(managed, i)) <= 1;
        if (!near)
            return;
        status = (ushort)((status & ~c1) | (hostStatus & c1));
        for (int i = 0; i < 2; i++)
            Buffer.MemoryCopy(Slot(host, i), Slot(managed, i), 10, 10);
    }

    private static byte* Slot(CpuState* s, int i) => s->Fx + VectorUnit.FxSt + 16 * i;

    /// <summary>Units in the last place between two finite numbers of the same sign.</summary>
    internal static UInt128 Distance(byte* a, byte* b)
    {
        ushort ea = *(ushort*)(a + 8), eb = *(ushort*)(b + 8);
        if ((ea ^ eb) >> 15 != 0)
            return UInt128.MaxValue;
        UInt128 x = Ordinal(ea, *(ulong*)a), y = Ordinal(eb, *(ulong*)b);
        return x > y ? x - y : y - x;
    }

    /// <summary>Consecutive numbers have consecutive ordinals: the integer bit is implied by the exponent.</summary>
    private static UInt128 Ordinal(ushort exponent, ulong significand) => ((UInt128)(exponent & 0x7fffu) << 63) + (significand & ~(1UL << 63));
}

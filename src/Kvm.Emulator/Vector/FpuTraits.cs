namespace Kvm.Emulator.Vector;

/// <summary>What FXSAVE and its like do with the x87 instruction and operand pointers and the opcode.</summary>
internal enum ErrorPointers
{
    /// <summary>Saved and restored always (Intel).</summary>
    Always,
    /// <summary>Saved as zero while no exception is pending, restored always (AMD with CPUID.80000008H:EBX[2]).</summary>
    ZeroUnlessPending,
    /// <summary>Neither saved nor restored while no exception is pending: memory and registers keep what they have (older AMD).</summary>
    OnlyPending,
}

/// <summary>What a processor's x87, SSE and XSAVE state looks like, from its CPU model.</summary>
/// <remarks>
/// SDM vol 1, chapter "Managing State Using the XSAVE Feature Set". Components other than x87, SSE, AVX and PKRU do not exist here, whatever leaf 0DH of the model lists.
/// The error pointers: APM vol 3, CPUID Fn8000_0008_EBX[RstrFpErrPtrs]; checked against a processor.
/// </remarks>
internal sealed class FpuTraits
{
    internal const ulong X87 = 1, Sse = 2, Avx = 4, Pkru = 0x200;
    internal const int AvxNumber = 2, PkruNumber = 9;
    /// <summary>Bytes of the legacy region and the header.</summary>
    internal const int LegacySize = 512, HeaderEnd = 576;
    /// <summary>No area of these components is larger.</summary>
    internal const int MaxArea = 4096;
    private const ulong implemented = X87 | Sse | Avx | Pkru;

    internal FpuTraits(CpuModel model)
    {
        bool amd = model.Vendor == CpuVendor.Amd;
        Amd = amd;
        Pointers = !amd ? ErrorPointers.Always
            : model.MaxExtendedLeaf >= 0x80000008 && (model.Leaf(0x80000008).Ebx & 4) != 0 ? ErrorPointers.ZeroUnlessPending : ErrorPointers.OnlyPending;
        Selectors = !model.Feature7Ebx(13);
        MxcsrMask = amd && model.FeatureExtEcx(7) ? 0x2_ffffu : 0xffffu;
        if (!model.Feature1Ecx(26) || model.MaxLeaf < 0xd)
            return;
        CpuidLeaf main = model.Leaf(0xd), extended = model.Leaf(0xd, 1);
        Xcr0 = (main.Eax | (ulong)main.Edx << 32) & implemented;
        Optimized = (extended.Eax & 1) != 0;
        Compacted = (extended.Eax & 2) != 0;
        ReadsInUse = (extended.Eax & 4) != 0;
        Supervisor = (extended.Eax & 8) != 0;
        avxOffset = Place(model, AvxNumber, 256);
        pkruOffset = Place(model, PkruNumber, 8);
    }

    /// <summary>Where the standard format has a component; one that the model lists with another size, or out of bounds, does not exist.</summary>
    private int Place(CpuModel model, int component, uint size)
    {
        CpuidLeaf leaf = model.Leaf(0xd, (uint)component);
        if (leaf.Eax == size && leaf.Ebx is >= HeaderEnd and <= MaxArea - 256)
            return (int)leaf.Ebx;
        Xcr0 &= ~(1UL << component);
        return 0;
    }

    private readonly int avxOffset, pkruOffset;

    internal bool Amd { get; }
    internal ErrorPointers Pointers { get; }
    /// <summary>FCS and FDS are kept; else they are saved as zero (CPUID.(07H,0):EBX[13]).</summary>
    internal bool Selectors { get; }
    /// <summary>MXCSR bits that may be set.</summary>
    internal uint MxcsrMask { get; }
    /// <summary>Bits of XCR0 that may be set; 0 without XSAVE.</summary>
    internal ulong Xcr0 { get; private set; }
    /// <summary>Bits of IA32_XSS that may be set: there is no supervisor component.</summary>
    internal ulong Xss => 0;
    /// <summary>XSAVEOPT.</summary>
    internal bool Optimized { get; }
    /// <summary>XSAVEC, and XRSTOR of the compacted format.</summary>
    internal bool Compacted { get; }
    /// <summary>XGETBV with ECX = 1.</summary>
    internal bool ReadsInUse { get; }
    /// <summary>XSAVES, XRSTORS, IA32_XSS.</summary>
    internal bool Supervisor { get; }

    /// <summary>Offset of a component of an XSAVE area; in the compacted format by the components that are in the area.</summary>
    internal int Offset(int component, ulong compacted)
    {
        if ((compacted & 1UL << 63) == 0)
            return component == AvxNumber ? avxOffset : pkruOffset;
        return component == PkruNumber && (compacted & Avx) != 0 ? HeaderEnd + 256 : HeaderEnd;
    }

    /// <summary>Bytes up to the end of the last of the given components.</summary>
    internal int AreaSize(ulong components, ulong compacted)
    {
        int end = HeaderEnd;
        if ((components & Avx) != 0)
            end = Math.Max(end, Offset(AvxNumber, compacted) + 256);
        if ((components & Pkru) != 0)
            end = Math.Max(end, Offset(PkruNumber, compacted) + 8);
        return end;
    }
}

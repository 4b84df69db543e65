namespace Kvm.Emulator.Vector;

/// <summary>Saves and restores an XSAVE area once the instruction may execute.</summary>
/// <remarks>
/// SDM vol 1, "Operation of XSAVE", "… XRSTOR", "… XSAVEOPT", "… XSAVEC", "… XSAVES", "… XRSTORS". The init optimization is exact;
/// the modified optimization is never used, as if every component had been modified since the last restore, which the manual allows (DIVERGES: D-HW-7).
/// </remarks>
internal static unsafe class XsaveUnit
{
    private const ulong compactedBit = 1UL << 63;

    /// <summary>False: an access failed. The area's bytes have been found writable.</summary>
    internal static bool Save<TArea>(Processor cpu, in TArea area, XsaveForm form, ulong rfbm, XsaveFormat format) where TArea : IXsaveArea
    {
        CpuState* s = cpu.State;
        bool compacted = form is XsaveForm.Xsavec or XsaveForm.Xsaves;
        ulong inUse = XsaveImage.InUse(cpu, format.Registers) & rfbm;
        ulong save = form == XsaveForm.Xsave ? rfbm : inUse;
        ulong layout = compacted ? rfbm | compactedBit : 0;
        // MXCSR goes with AVX too in the standard format, and is outside the init optimization there.
        bool mxcsr = compacted ? (save & FpuTraits.Sse) != 0 : (rfbm & (FpuTraits.Sse | FpuTraits.Avx)) != 0;
        ulong* header = stackalloc ulong[2];
        if (!compacted && !area.Read(XsaveImage.HeaderOffset, (byte*)header, 8))
            return false;
        header[0] = compacted ? inUse : (header[0] & ~rfbm) | inUse;
        header[1] = layout;
        ulong pkru = s->Pkru;
        return ((save & FpuTraits.X87) == 0 || XsaveImage.StoreX87(cpu, area, format))
            && (!mxcsr || XsaveImage.StoreMxcsr(cpu, area))
            && ((save & FpuTraits.Sse) == 0 || XsaveImage.StoreXmm(cpu, area, format.Registers))
            && ((save & FpuTraits.Avx) == 0 || area.Write(cpu.Fpu.Offset(FpuTraits.AvxNumber, layout), s->YmmHi, format.Registers * 16))
            && ((save & FpuTraits.Pkru) == 0 || area.Write(cpu.Fpu.Offset(FpuTraits.PkruNumber, layout), (byte*)&pkru, 8))
            && area.Write(XsaveImage.HeaderOffset, (byte*)header, compacted ? 16 : 8);
    }

    /// <summary>
    /// False: an access failed, or #GP(0) for a header or MXCSR value that the instruction refuses. Everything is read and checked before anything is loaded.
    /// <paramref name="enabled"/>: XCR0, or XCR0 | IA32_XSS for XRSTORS, which takes the compacted format only.
    /// </summary>
    internal static bool Restore<TArea>(Processor cpu, in TArea area, bool supervisor, ulong enabled, ulong rfbm, XsaveFormat format) where TArea : IXsaveArea
    {
        ulong* header = stackalloc ulong[8];
        if (!area.Read(XsaveImage.HeaderOffset, (byte*)header, 64))
            return false;
        ulong bv = header[0], layout = header[1];
        bool compacted = (layout & compactedBit) != 0;
        if (!(compacted || supervisor ? ValidCompacted(header, enabled) && (supervisor || cpu.Fpu.Compacted) : ValidStandard(header, enabled)))
        {
            cpu.RaiseGp();
            return false;
        }
        ulong load = bv & rfbm;
        byte* legacy = stackalloc byte[XsaveImage.XmmEnd];
        byte* ymm = stackalloc byte[256];
        ulong pkru = 0;
        int xmmBytes = format.Registers * 16;
        if (((load & FpuTraits.X87) != 0 && (!area.Read(0, legacy, XsaveImage.X87Head) || !area.Read(XsaveImage.StOffset, legacy + XsaveImage.StOffset, 128)))
            || ((load & FpuTraits.Sse) != 0 && !area.Read(XsaveImage.XmmOffset, legacy + XsaveImage.XmmOffset, xmmBytes))
            || ((load & FpuTraits.Avx) != 0 && !area.Read(cpu.Fpu.Offset(FpuTraits.AvxNumber, layout), ymm, xmmBytes))
            || ((load & FpuTraits.Pkru) != 0 && !area.Read(cpu.Fpu.Offset(FpuTraits.PkruNumber, layout), (byte*)&pkru, 8)))
            return false;
        // Standard: MXCSR comes from memory with SSE or AVX, whatever XSTATE_BV says. Compacted: it is part of SSE.
        bool mxcsrLoaded = compacted ? (load & FpuTraits.Sse) != 0 : (rfbm & (FpuTraits.Sse | FpuTraits.Avx)) != 0;
        uint mxcsr = Processor.MxcsrInitial;
        if (mxcsrLoaded && !area.Read(XsaveImage.MxcsrOffset, (byte*)&mxcsr, 4))
            return false;
        if ((mxcsr & ~cpu.Fpu.MxcsrMask) != 0)
        {
            cpu.RaiseGp();
            return false;
        }
        if (mxcsrLoaded || (rfbm & FpuTraits.Sse) != 0)
            cpu.MxcsrValue = mxcsr;
        Load(cpu, rfbm, load, legacy, ymm, (uint)pkru, format);
        return true;
    }

    private static void Load(Processor cpu, ulong rfbm, ulong load, byte* legacy, byte* ymm, uint pkru, XsaveFormat format)
    {
        int bytes = format.Registers * 16;
        if ((load & FpuTraits.X87) != 0)
            XsaveImage.LoadX87(cpu, legacy, format);
        else if ((rfbm & FpuTraits.X87) != 0)
            X87State.Clear(cpu.State);
        if ((load & FpuTraits.Sse) != 0)
            XsaveImage.LoadXmm(cpu, legacy + XsaveImage.XmmOffset, format.Registers);
        else if ((rfbm & FpuTraits.Sse) != 0)
            XsaveImage.ClearXmm(cpu, format.Registers);
        if ((load & FpuTraits.Avx) != 0)
            Buffer.MemoryCopy(ymm, cpu.State->YmmHi, bytes, bytes);
        else if ((rfbm & FpuTraits.Avx) != 0)
            new Span<byte>(cpu.State->YmmHi, bytes).Clear();
        if ((rfbm & FpuTraits.Pkru) != 0)
            cpu.WritePkru(pkru);
    }

    /// <summary>No component outside XCR0; bytes 23:8 of the header are 0, the rest is not looked at.</summary>
    private static bool ValidStandard(ulong* header, ulong enabled) => (header[0] & ~enabled) == 0 && header[1] == 0 && header[2] == 0;

    /// <summary>XCOMP_BV has bit 63 and no component that is not enabled, XSTATE_BV none that XCOMP_BV has not; the rest of the header is 0.</summary>
    private static bool ValidCompacted(ulong* header, ulong enabled)
    {
        ulong layout = header[1] & ~compactedBit;
        return (header[1] & compactedBit) != 0 && (layout & ~enabled) == 0 && (header[0] & ~layout) == 0 && !new ReadOnlySpan<ulong>(header + 2, 6).ContainsAnyExcept(0UL);
    }
}

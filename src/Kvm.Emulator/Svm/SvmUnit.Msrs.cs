namespace Kvm.Emulator.Svm;

/// <summary>MSRs that belong to SVM: VM_CR, VM_HSAVE_PA, TSC ratio, SVM_KEY, VM_IGNNE.</summary>
internal sealed unsafe partial class SvmUnit
{
    internal const uint MsrTscRatio = 0xc000_0104, MsrVmCr = 0xc001_0114, MsrIgnne = 0xc001_0115, MsrSmmCtl = 0xc001_0116,
        MsrVmHsavePa = 0xc001_0117, MsrSvmKey = 0xc001_0118;
    internal const ulong VmCrDpd = 1, VmCrRInit = 2, VmCrDisA20m = 4, VmCrLock = 8, VmCrSvmDis = 0x10;
    internal const ulong DefaultTscRatio = 1UL << 32;

    internal ulong VmCr;
    internal ulong HsavePa;
    internal ulong TscRatio = DefaultTscRatio;
    private ulong svmKey;
    private ulong ignne;

    /// <summary>Reads an SVM MSR; false when <paramref name="index"/> is not one that this processor has.</summary>
    internal bool TryReadMsr(uint index, out ulong value)
    {
        switch (index)
        {
            case MsrVmCr: value = VmCr; return true;
            case MsrVmHsavePa: value = HsavePa; return true;
            case MsrTscRatio when Has(SvmFeatures.TscRateMsr): value = TscRatio; return true;
            case MsrIgnne: value = ignne; return true;
            // Write-only.
            case MsrSvmKey when Has(SvmFeatures.SvmLock): value = 0; return true;
            default: value = 0; return false;
        }
    }

    /// <summary>
    /// Writes an SVM MSR; false when it is not one that this processor has, or the value is refused (both are #GP).
    /// VM_CR: LOCK freezes LOCK and SVMDIS; SVMDIS can't be set while EFER.SVME is. SVM_KEY: the right key clears LOCK.
    /// </summary>
    internal bool TryWriteMsr(uint index, ulong value)
    {
        switch (index)
        {
            case MsrVmCr:
                if ((value & ~0x1ful) != 0)
                    return false;
                if ((VmCr & VmCrLock) != 0)
                    value = (value & ~(VmCrLock | VmCrSvmDis)) | (VmCr & (VmCrLock | VmCrSvmDis));
                if ((value & VmCrSvmDis) != 0 && (cpu.State->Efer & Efer.SVME) != 0)
                    return false;
                VmCr = value;
                return true;
            case MsrVmHsavePa:
                if ((value & 0xfff) != 0 || value >= PhysicalLimit)
                    return false;
                HsavePa = value;
                return true;
            case MsrTscRatio when Has(SvmFeatures.TscRateMsr):
                if (value >> 40 != 0)
                    return false;
                TscRatio = value;
                return true;
            case MsrIgnne:
                ignne = value & 1;
                return true;
            case MsrSvmKey when Has(SvmFeatures.SvmLock):
                if (value == svmKey && svmKey != 0)
                    VmCr &= ~VmCrLock;
                else if ((VmCr & VmCrLock) == 0)
                    svmKey = value;
                return true;
            default:
                return false;
        }
    }
}

namespace Kvm.Emulator.Svm;

/// <summary>TLB_CONTROL: what VMRUN flushes.</summary>
public enum TlbControl : byte { DoNothing = 0, FlushAll = 1, FlushAsid = 3, FlushAsidNonGlobal = 7 }

/// <summary>Virtual interrupt control (VMCB offset 0x060).</summary>
[Flags]
public enum SvmIntControl : uint
{
    None = 0,
    TprMask = 0xff,
    VIrq = 1u << 8,
    VGif = 1u << 9,
    PriorityMask = 0xfu << 16,
    IgnoreTpr = 1u << 20,
    VIntrMasking = 1u << 24,
    VGifEnable = 1u << 25,
    X2AvicEnable = 1u << 30,
    AvicEnable = 1u << 31,
}

/// <summary>Interrupt state (VMCB offset 0x068).</summary>
[Flags]
public enum SvmIntState : uint { None = 0, InterruptShadow = 1, GuestInterruptMask = 2 }

/// <summary>Nested control (VMCB offset 0x090).</summary>
[Flags]
public enum SvmNestedControl : ulong { None = 0, NpEnable = 1, Sev = 2, SevEs = 4 }

/// <summary>Virtualized extensions (VMCB offset 0x0b8).</summary>
[Flags]
public enum SvmVirtualExtensions : ulong { None = 0, LbrVirtualization = 1, VirtualVmloadVmsave = 2 }

/// <summary>VMCB clean bits (offset 0x0c0): a set bit says that software has not changed the group since the last #VMEXIT.</summary>
[Flags]
public enum VmcbClean : uint
{
    None = 0,
    Intercepts = 1u << 0, PermissionMaps = 1u << 1, Asid = 1u << 2, Interrupt = 1u << 3, NestedPaging = 1u << 4,
    ControlRegisters = 1u << 5, DebugRegisters = 1u << 6, DescriptorTables = 1u << 7, Segments = 1u << 8, Cr2 = 1u << 9, Lbr = 1u << 10, Avic = 1u << 11,
    Cet = 1u << 12,
    Hardware = 0x1fff,
    Software = 1u << 31,
}

/// <summary>Bits of CPUID leaf 0x8000000A EDX: the SVM features of a processor model.</summary>
[Flags]
public enum SvmFeatures : uint
{
    None = 0,
    NestedPaging = 1u << 0, LbrVirtualization = 1u << 1, SvmLock = 1u << 2, NripSave = 1u << 3, TscRateMsr = 1u << 4, VmcbClean = 1u << 5,
    FlushByAsid = 1u << 6, DecodeAssists = 1u << 7, PauseFilter = 1u << 10, PauseFilterThreshold = 1u << 12, Avic = 1u << 13,
    VirtualVmloadVmsave = 1u << 15, VirtualGif = 1u << 16, X2Avic = 1u << 18, VirtualSpecCtrl = 1u << 20, SvmeAddressCheck = 1u << 28,
}

/// <summary>Format of EVENTINJ and EXITINTINFO (low 32 bits).</summary>
public static class SvmEvent
{
    public const uint VectorMask = 0xff;
    public const int TypeShift = 8;
    public const uint TypeMask = 7u << TypeShift;
    public const uint TypeExternal = 0u << TypeShift;
    public const uint TypeNmi = 2u << TypeShift;
    public const uint TypeException = 3u << TypeShift;
    public const uint TypeSoftware = 4u << TypeShift;
    public const uint ErrorCodeValid = 1u << 11;
    public const uint Valid = 1u << 31;
}

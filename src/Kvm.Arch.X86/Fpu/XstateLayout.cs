using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86;

/// <summary>The xstate components the host kernel manages and where they are: in the standard format, which userspace sees, and in the kernel's own.</summary>
/// <remarks>fpu_user_cfg, xstate_offsets, xstate_sizes (kernel/fpu/xstate.c). With XSAVES the kernel keeps its states in the compacted format.</remarks>
public sealed class XstateLayout
{
    /// <summary>User components that Linux supports.</summary>
    public const ulong XFEATURE_MASK_USER_SUPPORTED = XFEATURE_MASK_FPSSE | XFEATURE_MASK_YMM | XFEATURE_MASK_BNDREGS | XFEATURE_MASK_BNDCSR | XFEATURE_MASK_AVX512
        | XFEATURE_MASK_PKRU | XFEATURE_MASK_XTILE;

    private const int ExtendedStart = 576;
    private readonly (int Size, int Standard, int Kernel)[] components = new (int, int, int)[64];

    internal XstateLayout(HostX86Cpu cpu)
    {
        HasXsave = cpu.CpuData.Has(X86Feature.XSAVE) && cpu.CpuData.CpuidLevel >= 0xd;
        if (!HasXsave)
            return;
        HasXsaves = cpu.CpuData.Has(X86Feature.XSAVES);
        cpu.Cpuid(0xd, 0, out uint low, out _, out _, out uint high);
        Features = (low | (ulong)high << 32) & XFEATURE_MASK_USER_SUPPORTED;
        StandardSize = ExtendedStart;
        int kernel = ExtendedStart;
        for (uint i = 2; i < 63; i++)
        {
            if ((Features >> (int)i & 1) == 0)
                continue;
            cpu.Cpuid(0xd, i, out uint size, out uint offset, out uint flags, out _);
            if ((flags & 2) != 0)
                kernel = (kernel + 63) & ~63;
            components[i] = ((int)size, (int)offset, HasXsaves ? kernel : (int)offset);
            kernel += (int)size;
            StandardSize = Math.Max(StandardSize, (int)(offset + size));
        }

        KernelSize = HasXsaves ? kernel : StandardSize;
    }

    public bool HasXsave { get; }
    public bool HasXsaves { get; }

    /// <summary>fpu_kernel_cfg.default_features: XCR0 of the host.</summary>
    public ulong Features { get; }

    /// <summary>fpu_user_cfg.default_size.</summary>
    public int StandardSize { get; } = 512;

    /// <summary>fpu_kernel_cfg.default_size.</summary>
    public int KernelSize { get; } = 512;

    /// <summary>xcomp_bv of the kernel's own states; 0 in the standard format.</summary>
    public ulong XcompBv => HasXsaves ? 1ul << 63 | Features : 0;

    /// <summary>xstate_sizes, xstate_offsets and __raw_xsave_addr of a component that is not FP or SSE; size 0 when the host has none.</summary>
    public (int Size, int Standard, int Kernel) Component(int i) => components[i];
}

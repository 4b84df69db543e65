using Kvm.Core.Tracing;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86;

/// <remarks>Sizes of XSAVE components, read once from CPUID leaf 0xD.</remarks>
public sealed partial class X86Arch
{
    private readonly (uint Size, uint Offset, uint Ecx)[] xstateSizes = new (uint, uint, uint)[64];

    [KernelFunction("kvm_init_xstate_sizes", File = "arch/x86/kvm/cpuid.c")]
    private void InitXstateSizes()
    {
        using var _ = FunctionTrace.Enter("kvm_init_xstate_sizes");
        HostX86Cpu cpu = HostX86.ThisCpu;
        if (cpu.CpuData.CpuidLevel < 0xd)
            return;
        for (uint i = 2; i < 64; i++)
        {
            cpu.Cpuid(0xd, i, out uint size, out uint offset, out uint ecx, out uint _);
            xstateSizes[i] = (size, offset, ecx);
        }
    }

    /// <summary>Bytes of an XSAVE area with the given components, in standard or compacted format.</summary>
    [KernelFunction("xstate_required_size", File = "arch/x86/kvm/cpuid.c")]
    internal uint XstateRequiredSize(ulong xstateBv, bool compacted)
    {
        FunctionTrace.Leaf("xstate_required_size");
        uint ret = 512 + 64;
        for (int i = 2; i < 63; i++)
        {
            if ((xstateBv >> i & 1) == 0)
                continue;
            (uint size, uint offset, uint ecx) = xstateSizes[i];
            if (compacted)
                offset = (ecx & 2) != 0 ? (ret + 63) & ~63u : ret;
            ret = Math.Max(ret, offset + size);
        }

        return ret;
    }
}

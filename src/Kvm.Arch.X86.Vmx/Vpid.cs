using Kvm.Core.Tracing;
using static Kvm.Arch.X86.Vmx.VmxControls;

namespace Kvm.Arch.X86.Vmx;

/// <summary>Virtual-processor identifiers: 16 bits that tag a vCPU's TLB entries; 0 is the host's.</summary>
public sealed unsafe partial class KvmIntel
{
    private readonly ulong[] vpidBitmap = new ulong[VMX_NR_VPIDS / 64];
    private readonly Lock vpidLock = new();

    /// <summary>The lowest free VPID; 0 when VPIDs are off or used up (the vCPU then runs without one).</summary>
    [KernelFunction("allocate_vpid", File = "arch/x86/kvm/vmx/vmx.c")]
    internal int AllocateVpid()
    {
        if (!EnableVpid)
            return 0;
        using var _ = FunctionTrace.Enter("allocate_vpid");
        lock (vpidLock)
        {
            for (int word = 0; word < vpidBitmap.Length; word++)
            {
                if (vpidBitmap[word] == ulong.MaxValue)
                    continue;
                int bit = System.Numerics.BitOperations.TrailingZeroCount(~vpidBitmap[word]);
                vpidBitmap[word] |= 1ul << bit;
                return word * 64 + bit;
            }
        }
        return 0;
    }

    [KernelFunction("free_vpid", File = "arch/x86/kvm/vmx/vmx.c")]
    internal void FreeVpid(int vpid)
    {
        if (!EnableVpid || vpid == 0)
            return;
        using var _ = FunctionTrace.Enter("free_vpid");
        lock (vpidLock)
            vpidBitmap[vpid / 64] &= ~(1ul << vpid % 64);
    }

    /// <summary>VPIDs in use, without the host's.</summary>
    internal int VpidsInUse
    {
        get
        {
            lock (vpidLock)
                return vpidBitmap.Sum(static word => System.Numerics.BitOperations.PopCount(word)) - 1;
        }
    }
}

using Kvm.Abi;
using static Kvm.Abi.Uapi;

namespace Kvm.Client;

/// <summary>KVM_ENABLE_CAP's argument.</summary>
internal static class Capability
{
    public static void Enable(KvmFd fd, int capability, ReadOnlySpan<ulong> args)
    {
        var cap = new kvm_enable_cap { cap = (uint)capability };
        args.CopyTo(cap.args);
        fd.Set(KVM_ENABLE_CAP, cap);
    }
}

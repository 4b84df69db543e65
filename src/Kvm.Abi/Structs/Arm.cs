// Structures of Arm hosts: part of linux/kvm.h on every architecture.
// Linux 6.1, x86-64; names verbatim from linux/kvm.h.

using System.Runtime.InteropServices;

namespace Kvm.Abi;

/// <summary><c>struct kvm_arm_device_addr</c>: 16 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_arm_device_addr
{
    public ulong id;
    public ulong addr;
}

using Kvm.Core;

namespace Kvm.Arch.X86;

/// <remarks>Guest-physical memory by spans.</remarks>
public unsafe partial class X86Vm
{
    /// <summary>kvm_read_guest: -EFAULT outside of memory slots.</summary>
    public KvmResult ReadGuest(ulong gpa, Span<byte> to)
    {
        fixed (byte* p = to)
            return ReadGuest(gpa, p, (ulong)to.Length);
    }

    /// <summary>kvm_write_guest: -EFAULT outside of memory slots and in read-only ones.</summary>
    public KvmResult WriteGuest(ulong gpa, ReadOnlySpan<byte> from)
    {
        fixed (byte* p = from)
            return WriteGuest(gpa, p, (ulong)from.Length);
    }
}

using System.Runtime.InteropServices;
using Kvm.Abi;
using static Kvm.Abi.Uapi;

namespace Kvm.Client;

/// <summary>CPUID lists as ioctl arguments.</summary>
internal static class Cpuid
{
    private const int EntriesOffset = 8; // struct kvm_cpuid2

    /// <summary>Asks with a growing buffer until the answer fits (E2BIG: it did not).</summary>
    public static kvm_cpuid_entry2[] Get(KvmFd fd, uint request)
    {
        for (int room = 64; ; room *= 2)
        {
            using var argument = new VariableArgument<kvm_cpuid2, kvm_cpuid_entry2>(room, EntriesOffset);
            argument.Header.nent = (uint)room;
            long result = fd.TryIoctl(request, argument.Address);
            if (result >= 0) return Filled(argument.Elements[..(int)argument.Header.nent]);
            if (result != -(long)Errno.E2BIG || room >= 4096) throw new KvmException(IoctlNames.Of(request), (Errno)(-result));
        }
    }

    /// <summary>KVM_GET_CPUID2 of Linux 6.1 leaves nent as it was on success: behind the last entry there are the zeroes of the buffer.</summary>
    private static kvm_cpuid_entry2[] Filled(ReadOnlySpan<kvm_cpuid_entry2> entries)
    {
        while (!entries.IsEmpty && MemoryMarshal.AsBytes(entries[^1..]).IndexOfAnyExcept((byte)0) < 0) entries = entries[..^1];
        return entries.ToArray();
    }

    public static void Set(KvmFd fd, ReadOnlySpan<kvm_cpuid_entry2> entries)
    {
        using var argument = new VariableArgument<kvm_cpuid2, kvm_cpuid_entry2>(entries.Length, EntriesOffset);
        argument.Header.nent = (uint)entries.Length;
        entries.CopyTo(argument.Elements);
        fd.Ioctl(KVM_SET_CPUID2, argument.Address);
    }
}

using Kvm.Abi;

namespace Kvm.Client;

/// <summary>A KVM system call failed: which one, and with what errno.</summary>
public sealed class KvmException : Exception
{
    /// <summary>A failure of <paramref name="operation"/>.</summary>
    public KvmException(string operation, Errno errno)
        : base($"{operation}: {errno}")
    {
        Operation = operation;
        Errno = errno;
    }

    /// <summary>A failure with a sentence on what to do about it.</summary>
    public KvmException(string operation, Errno errno, string hint)
        : base($"{operation}: {errno} ({hint})")
    {
        Operation = operation;
        Errno = errno;
    }

    /// <summary>The ioctl's name (<c>KVM_CREATE_VCPU</c>), or <c>open(/dev/kvm)</c>, <c>mmap</c>.</summary>
    public string Operation { get; }

    /// <summary>What the system call returned, as a positive number.</summary>
    public Errno Errno { get; }
}

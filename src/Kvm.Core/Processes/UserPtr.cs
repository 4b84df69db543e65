using System.Runtime.CompilerServices;

namespace Kvm.Core;

/// <summary>A <c>T __user *</c> of the calling process: reads and writes fail (-EFAULT) instead of crashing when the address is wild.</summary>
public readonly unsafe record struct UserPtr<T>(ulong Address) where T : unmanaged
{
    /// <summary>True for the null pointer.</summary>
    public bool IsNull => Address == 0;

    /// <summary>The pointer to element <paramref name="index"/>.</summary>
    public UserPtr<T> At(long index) => new(unchecked(Address + (ulong)(index * sizeof(T))));

    /// <summary>A pointer of another type at a byte offset.</summary>
    public UserPtr<TOther> Offset<TOther>(long bytes) where TOther : unmanaged => new(unchecked(Address + (ulong)bytes));

    /// <summary>copy_from_user: false means -EFAULT.</summary>
    public bool Read(out T value)
    {
        fixed (T* p = &value)
        {
            *p = default;
            return UserMemory.CopyFromUser(p, Address, (ulong)sizeof(T));
        }
    }

    /// <summary>copy_to_user: false means -EFAULT.</summary>
    public bool Write(in T value)
    {
        fixed (T* p = &value) return UserMemory.CopyToUser(Address, p, (ulong)sizeof(T));
    }

    /// <summary>copy_from_user of an array.</summary>
    public bool Read(Span<T> values)
    {
        fixed (T* p = values) return UserMemory.CopyFromUser(p, Address, (ulong)values.Length * (ulong)sizeof(T));
    }

    /// <summary>copy_to_user of an array.</summary>
    public bool Write(ReadOnlySpan<T> values)
    {
        fixed (T* p = values) return UserMemory.CopyToUser(Address, p, (ulong)values.Length * (ulong)sizeof(T));
    }
}

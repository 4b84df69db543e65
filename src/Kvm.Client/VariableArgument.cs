using System.Runtime.InteropServices;

namespace Kvm.Client;

/// <summary>A header structure followed by an array, in native memory: the argument of ioctls with a flexible array.</summary>
internal readonly unsafe ref struct VariableArgument<THeader, TElement>
    where THeader : unmanaged
    where TElement : unmanaged
{
    private readonly byte* _memory;
    private readonly int _offset;
    private readonly int _count;

    /// <param name="count">Elements to make room for.</param>
    /// <param name="offset">Where the array starts: the header's FlexibleArray offset.</param>
    public VariableArgument(int count, int offset)
    {
        _count = count;
        _offset = offset;
        _memory = (byte*)NativeMemory.AllocZeroed((nuint)offset + (nuint)count * (nuint)sizeof(TElement));
    }

    public ulong Address => (ulong)_memory;

    public ref THeader Header => ref *(THeader*)_memory;

    public Span<TElement> Elements => new(_memory + _offset, _count);

    public void Dispose() => NativeMemory.Free(_memory);
}

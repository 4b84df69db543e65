namespace Kvm.Core;

/// <summary>Who is told which process memory is host physical memory (D1): the emulated machine. Physical address == process address.</summary>
public interface IHostRam
{
    /// <summary>The range is RAM from now on. Page-aligned.</summary>
    void Add(ulong address, ulong length);

    /// <summary>The range is no RAM any more. Page-aligned; a range that was added, or part of one.</summary>
    void Remove(ulong address, ulong length);
}

namespace Kvm.Core;

/// <summary>struct mmu_notifier_ops: told before and after a range of a process's memory changes.</summary>
public interface IMmuNotifier
{
    /// <summary>The range [start, end) is about to change: drop what maps it.</summary>
    void InvalidateRangeStart(ulong start, ulong end);

    /// <summary>The change is done.</summary>
    void InvalidateRangeEnd(ulong start, ulong end);

    /// <summary>The address space dies.</summary>
    void Release();
}

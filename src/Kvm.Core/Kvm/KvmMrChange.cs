namespace Kvm.Core;

/// <summary>enum kvm_mr_change: what a memory-region call does to a slot.</summary>
public enum KvmMrChange
{
    Create,
    Delete,
    Move,
    FlagsOnly,
}

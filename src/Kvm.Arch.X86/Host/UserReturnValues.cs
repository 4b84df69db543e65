namespace Kvm.Arch.X86;

/// <summary>What this CPU's lazily switched MSRs hold: the host's value and the current one.</summary>
/// <remarks>struct kvm_user_return_msrs, x86.c.</remarks>
internal sealed class UserReturnValues
{
    public bool Registered;
    public readonly ulong[] Host = new ulong[UserReturnMsrs.KVM_MAX_NR_USER_RETURN_MSRS];
    public readonly ulong[] Curr = new ulong[UserReturnMsrs.KVM_MAX_NR_USER_RETURN_MSRS];
}

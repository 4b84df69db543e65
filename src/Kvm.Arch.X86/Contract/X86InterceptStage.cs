namespace Kvm.Arch.X86;

/// <summary>When, relative to the checks of an emulated instruction, an intercept is looked at.</summary>
/// <remarks>enum x86_intercept_stage, kvm_emulate.h.</remarks>
public enum X86InterceptStage
{
    X86_ICTP_NONE = 0,
    X86_ICPT_PRE_EXCEPT,
    X86_ICPT_POST_EXCEPT,
    X86_ICPT_POST_MEMACCESS,
}

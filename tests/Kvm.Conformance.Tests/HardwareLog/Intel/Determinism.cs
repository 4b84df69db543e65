using static Kvm.Arch.X86.MsrIndex;
using static Kvm.Emulator.Vmx.VmcsField;

namespace Kvm.Conformance.Tests.HardwareLog.Intel;

/// <summary>Which values of the recording any other run must repeat.</summary>
internal static class Determinism
{
    /// <summary>Fields that hold addresses of the host, times, or a count of clock ticks.</summary>
    private static readonly HashSet<ulong> fields =
    [
        .. new[]
        {
            IO_BITMAP_A, IO_BITMAP_B, MSR_BITMAP, VM_EXIT_MSR_STORE_ADDR, VM_EXIT_MSR_LOAD_ADDR, VM_ENTRY_MSR_LOAD_ADDR, PML_ADDRESS, TSC_OFFSET,
            VIRTUAL_APIC_PAGE_ADDR, APIC_ACCESS_ADDR, POSTED_INTR_DESC_ADDR, EPT_POINTER, VMREAD_BITMAP, VMWRITE_BITMAP, HOST_CR3, HOST_FS_BASE, HOST_GS_BASE,
            HOST_TR_BASE, HOST_GDTR_BASE, HOST_IDTR_BASE, HOST_IA32_SYSENTER_ESP, HOST_IA32_SYSENTER_EIP, HOST_RSP, HOST_RIP, VMX_PREEMPTION_TIMER_VALUE,
            HOST_CR0, HOST_CR4,
        }.Select(static f => (ulong)f),
    ];

    private static readonly HashSet<ulong> msrs =
    [
        MSR_LSTAR, MSR_CSTAR, MSR_GS_BASE, MSR_FS_BASE, MSR_KERNEL_GS_BASE, MSR_IA32_SYSENTER_ESP, MSR_IA32_SYSENTER_EIP, MSR_IA32_TSC,
    ];

    public static bool IsDeterministic(HardwareOp op) => op.Mnemonic switch
    {
        "VMREAD" or "VMWRITE" => !fields.Contains(op.Operand),
        "RDMSR" or "WRMSR" => !msrs.Contains(op.Operand),
        "MOVCR4" => true,
        "VMEXIT" => true,
        "INVEPT" or "INVVPID" => false,
        _ => false, // addresses
    };
}

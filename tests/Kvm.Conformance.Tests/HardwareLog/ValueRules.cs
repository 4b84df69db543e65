using static Kvm.Arch.X86.MsrIndex;
using static Kvm.Emulator.Vmx.VmcsField;

namespace Kvm.Conformance.Tests.HardwareLog;

/// <summary>How a value of the recording is compared with the model's.</summary>
internal enum ValueRule
{
    /// <summary>Equal.</summary>
    Exact,
    /// <summary>A physical address: the same bits below the page, and the page that the model named where the recording named this one before.</summary>
    Page,
    /// <summary>The guest's CR3 as the processor has it: a page of KVM with shadow paging, else the guest's own value.</summary>
    Root,
    /// <summary>The address of an object that does not begin at a page.</summary>
    Object,
    /// <summary>Of this boot, this process or this moment: not compared.</summary>
    Free,
}

/// <summary>Which rule a value has. Everything that is not named here must be equal.</summary>
internal static class ValueRules
{
    /// <summary>Fields that hold the time, addresses of a process and of its stack, or where the module's code was loaded.</summary>
    public static IReadOnlyDictionary<ulong, string> Free { get; } = new Dictionary<ulong, string>
    {
        [(ulong)TSC_OFFSET] = "the time of vCPU creation",
        [(ulong)HOST_CR3] = "page tables and PCID of the process",
        [(ulong)HOST_FS_BASE] = "thread-local storage of the process",
        [(ulong)HOST_RSP] = "stack of the thread",
        [(ulong)HOST_RIP] = "where kvm_intel was loaded",
    };

    private static readonly HashSet<ulong> pages =
    [
        .. new[]
        {
            IO_BITMAP_A, IO_BITMAP_B, MSR_BITMAP, PML_ADDRESS, VIRTUAL_APIC_PAGE_ADDR, APIC_ACCESS_ADDR, POSTED_INTR_DESC_ADDR, EPT_POINTER, VMREAD_BITMAP, VMWRITE_BITMAP,
        }.Select(static f => (ulong)f),
    ];

    private static readonly HashSet<ulong> objects = [(ulong)VM_EXIT_MSR_STORE_ADDR, (ulong)VM_EXIT_MSR_LOAD_ADDR, (ulong)VM_ENTRY_MSR_LOAD_ADDR];

    public static ValueRule OfField(ulong field) =>
        Free.ContainsKey(field) ? ValueRule.Free : field == (ulong)GUEST_CR3 ? ValueRule.Root : pages.Contains(field) ? ValueRule.Page : objects.Contains(field) ? ValueRule.Object : ValueRule.Exact;

    public static ValueRule Of(HardwareOp op) => op.Mnemonic switch
    {
        "VMREAD" or "VMWRITE" => OfField(op.Operand),
        "RDMSR" or "WRMSR" => op.Operand == MSR_VM_HSAVE_PA ? ValueRule.Page : ValueRule.Exact,
        "VMXON" or "VMCLEAR" or "VMPTRLD" or "VMLAUNCH" or "VMRESUME" or "INVEPT" or "VMRUN" or "VMLOAD" or "VMSAVE" => ValueRule.Page,
        _ => ValueRule.Exact,
    };

    public static bool Same(ValueRule rule, ulong recorded, ulong model, AddressBook addresses) => rule switch
    {
        ValueRule.Exact => recorded == model,
        ValueRule.Page => addresses.Same(recorded, model),
        ValueRule.Root => addresses.ShadowPaging ? addresses.Same(recorded, model) : recorded == model,
        ValueRule.Object => addresses.SameObject(recorded, model),
        _ => true,
    };
}

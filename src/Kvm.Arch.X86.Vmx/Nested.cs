using Kvm.Abi;
using Kvm.Core.Tracing;
using Kvm.Emulator;
using Kvm.Emulator.Vmx;
using static Kvm.Arch.X86.Vmx.VmxControls;
using static Kvm.Emulator.Vmx.VmcsField;

namespace Kvm.Arch.X86.Vmx;

/// <summary>
/// What a guest is told about VMX with nested=1: capability MSRs, CPUID, the shadow-VMCS bitmaps. Its VMX instructions are #UD: running its guests is not modelled yet.
/// </summary>
public sealed unsafe partial class KvmIntel
{
    private const int einval = -(int)Errno.EINVAL;
    private const uint vmcs12Revision = 0x11e57ed0;
    private const ulong vmcs12Size = 4096;
    private const uint miscSaveEferLma = 1 << 5, miscActivityHlt = 1 << 6, miscActivityWaitSipi = 1 << 8, miscEmulatedPreemptionTimerRate = 5;

    private ulong vmreadBitmap, vmwriteBitmap;
    private bool enableShadowVmcs = true;

    /// <summary>Fields a guest hypervisor may VMREAD without an exit; those of the second list it may VMWRITE too.</summary>
    private static readonly VmcsField[] shadowReadOnlyFields =
    [
        VM_EXIT_REASON, VM_EXIT_INTR_INFO, VM_EXIT_INSTRUCTION_LEN, IDT_VECTORING_INFO_FIELD, IDT_VECTORING_ERROR_CODE, VM_EXIT_INTR_ERROR_CODE,
        GUEST_CS_AR_BYTES, GUEST_SS_AR_BYTES, EXIT_QUALIFICATION, GUEST_LINEAR_ADDRESS, GUEST_PHYSICAL_ADDRESS, GUEST_PHYSICAL_ADDRESS_HIGH,
    ];

    private static readonly VmcsField[] shadowReadWriteFields =
    [
        GUEST_INTR_STATUS, GUEST_PML_INDEX, HOST_FS_SELECTOR, HOST_GS_SELECTOR, CPU_BASED_VM_EXEC_CONTROL, PIN_BASED_VM_EXEC_CONTROL, EXCEPTION_BITMAP,
        VM_ENTRY_EXCEPTION_ERROR_CODE, VM_ENTRY_INTR_INFO_FIELD, VM_ENTRY_INSTRUCTION_LEN, TPR_THRESHOLD, GUEST_INTERRUPTIBILITY_INFO, VMX_PREEMPTION_TIMER_VALUE,
        GUEST_RIP, GUEST_RSP, GUEST_CR0, GUEST_CR3, GUEST_CR4, GUEST_RFLAGS, CR0_GUEST_HOST_MASK, CR0_READ_SHADOW, CR4_READ_SHADOW, HOST_FS_BASE, HOST_GS_BASE,
    ];

    [KernelFunction("nested_vmx_allowed", File = "arch/x86/kvm/vmx/vmx.c")]
    private bool NestedVmxAllowed(VcpuVmx vmx) => Nested && vmx.GuestCpuidHas(X86Feature.VMX);

    /// <summary>The capabilities offered to guests: what the hardware has (or KVM emulates) of what KVM supports.</summary>
    [KernelFunction("nested_vmx_setup_ctls_msrs", File = "arch/x86/kvm/vmx/nested.c")]
    private void NestedSetupCtlsMsrs(ref VmcsConfiguration conf, uint eptCaps)
    {
        using var _ = FunctionTrace.Enter("nested_vmx_setup_ctls_msrs");
        ref NestedVmxMsrs msrs = ref conf.Nested;
        msrs.PinbasedCtlsLow = PIN_BASED_ALWAYSON_WITHOUT_TRUE_MSR;
        msrs.PinbasedCtlsHigh = conf.PinBasedExecCtrl &
            (PIN_BASED_EXT_INTR_MASK | PIN_BASED_NMI_EXITING | PIN_BASED_VIRTUAL_NMIS | (EnableApicv ? PIN_BASED_POSTED_INTR : 0));
        msrs.PinbasedCtlsHigh |= PIN_BASED_ALWAYSON_WITHOUT_TRUE_MSR | PIN_BASED_VMX_PREEMPTION_TIMER;

        msrs.ExitCtlsLow = VM_EXIT_ALWAYSON_WITHOUT_TRUE_MSR & ~VM_EXIT_SAVE_DEBUG_CONTROLS;
        msrs.ExitCtlsHigh = conf.VmexitCtrl & (VM_EXIT_HOST_ADDR_SPACE_SIZE | VM_EXIT_LOAD_IA32_PAT | VM_EXIT_SAVE_IA32_PAT | VM_EXIT_CLEAR_BNDCFGS);
        msrs.ExitCtlsHigh |= VM_EXIT_ALWAYSON_WITHOUT_TRUE_MSR | VM_EXIT_LOAD_IA32_EFER | VM_EXIT_SAVE_IA32_EFER | VM_EXIT_SAVE_VMX_PREEMPTION_TIMER |
            VM_EXIT_ACK_INTR_ON_EXIT | VM_EXIT_LOAD_IA32_PERF_GLOBAL_CTRL;

        msrs.EntryCtlsLow = VM_ENTRY_ALWAYSON_WITHOUT_TRUE_MSR & ~VM_ENTRY_LOAD_DEBUG_CONTROLS;
        msrs.EntryCtlsHigh = conf.VmentryCtrl & (VM_ENTRY_IA32E_MODE | VM_ENTRY_LOAD_IA32_PAT | VM_ENTRY_LOAD_BNDCFGS);
        msrs.EntryCtlsHigh |= VM_ENTRY_ALWAYSON_WITHOUT_TRUE_MSR | VM_ENTRY_LOAD_IA32_EFER | VM_ENTRY_LOAD_IA32_PERF_GLOBAL_CTRL;

        msrs.ProcbasedCtlsLow = CPU_BASED_ALWAYSON_WITHOUT_TRUE_MSR & ~CR3_EXITING_BITS;
        msrs.ProcbasedCtlsHigh = conf.CpuBasedExecCtrl &
            (CPU_BASED_INTR_WINDOW_EXITING | CPU_BASED_NMI_WINDOW_EXITING | CPU_BASED_USE_TSC_OFFSETTING | CPU_BASED_HLT_EXITING | CPU_BASED_INVLPG_EXITING |
             CPU_BASED_MWAIT_EXITING | CR3_EXITING_BITS | CPU_BASED_CR8_LOAD_EXITING | CPU_BASED_CR8_STORE_EXITING | CPU_BASED_MOV_DR_EXITING |
             CPU_BASED_UNCOND_IO_EXITING | CPU_BASED_USE_IO_BITMAPS | CPU_BASED_MONITOR_TRAP_FLAG | CPU_BASED_MONITOR_EXITING | CPU_BASED_RDPMC_EXITING |
             CPU_BASED_RDTSC_EXITING | CPU_BASED_PAUSE_EXITING | CPU_BASED_TPR_SHADOW | CPU_BASED_ACTIVATE_SECONDARY_CONTROLS);
        msrs.ProcbasedCtlsHigh |= CPU_BASED_ALWAYSON_WITHOUT_TRUE_MSR | CPU_BASED_USE_MSR_BITMAPS;

        NestedSetupSecondary(ref msrs, in conf, eptCaps);

        msrs.MiscLow = ((uint)conf.Misc & miscSaveEferLma) | (uint)MSR_IA32_VMX_MISC_VMWRITE_SHADOW_RO_FIELDS | miscEmulatedPreemptionTimerRate |
            miscActivityHlt | miscActivityWaitSipi;
        msrs.MiscHigh = 0;
        msrs.Basic = vmcs12Revision | 1ul << 55 | vmcs12Size << 32 | 6ul << 50;
        if (CpuHasVmxBasicInout)
            msrs.Basic |= 1ul << 54;
        msrs.Cr0Fixed0 = Cr0.PE | Cr0.PG | Cr0.NE;
        msrs.Cr4Fixed0 = Cr4.VMXE;
        msrs.Cr0Fixed1 = Rdmsrl(Msr.IA32_VMX_CR0_FIXED1);
        msrs.Cr4Fixed1 = Rdmsrl(Msr.IA32_VMX_CR4_FIXED1);
        if (VmxUmipEmulated)
            msrs.Cr4Fixed1 |= Cr4.UMIP;
        msrs.VmcsEnum = NestedCalcVmcsEnumMsr();
    }

    /// <summary>Controls that follow the guest's CPUID are added when it is set.</summary>
    private void NestedSetupSecondary(ref NestedVmxMsrs msrs, in VmcsConfiguration conf, uint eptCaps)
    {
        msrs.SecondaryCtlsLow = 0;
        msrs.SecondaryCtlsHigh = conf.CpuBased2ndExecCtrl &
            (SECONDARY_EXEC_DESC | SECONDARY_EXEC_ENABLE_RDTSCP | SECONDARY_EXEC_VIRTUALIZE_X2APIC_MODE | SECONDARY_EXEC_WBINVD_EXITING |
             SECONDARY_EXEC_APIC_REGISTER_VIRT | SECONDARY_EXEC_VIRTUAL_INTR_DELIVERY | SECONDARY_EXEC_RDRAND_EXITING | SECONDARY_EXEC_ENABLE_INVPCID |
             SECONDARY_EXEC_RDSEED_EXITING | SECONDARY_EXEC_XSAVES | SECONDARY_EXEC_TSC_SCALING | SECONDARY_EXEC_ENABLE_USR_WAIT_PAUSE);
        msrs.SecondaryCtlsHigh |= SECONDARY_EXEC_SHADOW_VMCS;
        if (EnableEpt)
        {
            msrs.SecondaryCtlsHigh |= SECONDARY_EXEC_ENABLE_EPT;
            msrs.EptCaps = eptCaps & (VMX_EPT_PAGE_WALK_4_BIT | VMX_EPT_PAGE_WALK_5_BIT | VMX_EPTP_WB_BIT | VMX_EPT_INVEPT_BIT | VMX_EPT_EXECUTE_ONLY_BIT);
            msrs.EptCaps |= VMX_EPT_EXTENT_GLOBAL_BIT | VMX_EPT_EXTENT_CONTEXT_BIT | VMX_EPT_2MB_PAGE_BIT | VMX_EPT_1GB_PAGE_BIT;
            if (EnableEptAdBits)
            {
                msrs.SecondaryCtlsHigh |= SECONDARY_EXEC_ENABLE_PML;
                msrs.EptCaps |= VMX_EPT_AD_BIT;
            }
        }
        if (CpuHasVmxVmfunc)
        {
            msrs.SecondaryCtlsHigh |= SECONDARY_EXEC_ENABLE_VMFUNC;
            if (EnableEpt)
                msrs.VmfuncControls = 1;
        }
        if (EnableVpid)
        {
            msrs.SecondaryCtlsHigh |= SECONDARY_EXEC_ENABLE_VPID;
            msrs.VpidCaps = VMX_VPID_INVVPID_BIT | VMX_VPID_EXTENT_INDIVIDUAL_ADDR_BIT | VMX_VPID_EXTENT_SINGLE_CONTEXT_BIT | VMX_VPID_EXTENT_GLOBAL_CONTEXT_BIT | 1u << 11;
        }
        if (EnableUnrestrictedGuest)
            msrs.SecondaryCtlsHigh |= SECONDARY_EXEC_UNRESTRICTED_GUEST;
        if (FlexpriorityEnabled)
            msrs.SecondaryCtlsHigh |= SECONDARY_EXEC_VIRTUALIZE_APIC_ACCESSES;
    }

    /// <summary>The highest field index KVM's virtual VMCS has, shifted as in IA32_VMX_VMCS_ENUM.</summary>
    [KernelFunction("nested_vmx_calc_vmcs_enum_msr", File = "arch/x86/kvm/vmx/nested.c")]
    private static ulong NestedCalcVmcsEnumMsr() => 0x19 << 1;

    [KernelFunction("nested_vmx_hardware_setup", File = "arch/x86/kvm/vmx/nested.c")]
    private int NestedHardwareSetup()
    {
        using var _ = FunctionTrace.Enter("nested_vmx_hardware_setup");
        if (!CpuHasVmxShadowVmcs)
            enableShadowVmcs = false;
        if (!enableShadowVmcs)
            return 0;
        vmreadBitmap = AllocPage("nested_vmx_hardware_setup");
        vmwriteBitmap = vmreadBitmap == 0 ? 0 : AllocPage("nested_vmx_hardware_setup");
        if (vmwriteBitmap == 0)
        {
            NestedHardwareUnsetup();
            return enomem;
        }
        InitVmcsShadowFields();
        return 0;
    }

    [KernelFunction("init_vmcs_shadow_fields", File = "arch/x86/kvm/vmx/nested.c")]
    private void InitVmcsShadowFields()
    {
        new Span<byte>((void*)vmreadBitmap, 4096).Fill(0xff);
        new Span<byte>((void*)vmwriteBitmap, 4096).Fill(0xff);
        foreach (VmcsField field in shadowReadOnlyFields)
            ClearBit(vmreadBitmap, field);
        foreach (VmcsField field in shadowReadWriteFields)
        {
            // The processor can't VMWRITE fields it does not have.
            if ((field == GUEST_PML_INDEX && !CpuHasVmxPml) || (field == VMX_PREEMPTION_TIMER_VALUE && !CpuHasVmxPreemptionTimer) ||
                (field == GUEST_INTR_STATUS && !CpuHasVmxApicv))
                continue;
            ClearBit(vmwriteBitmap, field);
            ClearBit(vmreadBitmap, field);
        }

        static void ClearBit(ulong bitmap, VmcsField field) => ((byte*)bitmap)[(uint)field >> 3] &= (byte)~(1 << (int)((uint)field & 7));
    }

    [KernelFunction("nested_vmx_hardware_unsetup", File = "arch/x86/kvm/vmx/nested.c")]
    private void NestedHardwareUnsetup()
    {
        using var _ = FunctionTrace.Enter("nested_vmx_hardware_unsetup");
        if (vmreadBitmap != 0)
            FreePage(vmreadBitmap);
        if (vmwriteBitmap != 0)
            FreePage(vmwriteBitmap);
        vmreadBitmap = vmwriteBitmap = 0;
    }

    /// <summary>Loads the vCPU whatever the parameter: the kernel asks only then whether it has nested state.</summary>
    [KernelFunction("nested_vmx_free_vcpu", File = "arch/x86/kvm/vmx/nested.c")]
    private static void NestedVmxFreeVcpu(VcpuVmx vmx)
    {
        using var _ = FunctionTrace.Enter("nested_vmx_free_vcpu");
        vmx.Load();
        FunctionTrace.Leaf("free_nested");
        vmx.Put();
    }

    [KernelFunction("nested_vmx_set_vmcs_shadowing_bitmap", File = "arch/x86/kvm/vmx/nested.c")]
    private void NestedSetVmcsShadowingBitmap(VcpuVmx vmx)
    {
        using var _ = FunctionTrace.Enter("nested_vmx_set_vmcs_shadowing_bitmap");
        if (!enableShadowVmcs)
            return;
        vmx.Write64(VMREAD_BITMAP, vmreadBitmap);
        vmx.Write64(VMWRITE_BITMAP, vmwriteBitmap);
    }

    [KernelFunction("vmx_get_vmx_msr", File = "arch/x86/kvm/vmx/nested.c")]
    private static int GetVmxMsr(in NestedVmxMsrs msrs, uint index, out ulong data)
    {
        using var _ = FunctionTrace.Enter("vmx_get_vmx_msr");
        return msrs.TryRead(index, out data) ? 0 : 1;
    }

    private static bool IsBitwiseSubset(ulong superset, ulong subset, ulong mask) => (subset & mask & ~superset) == 0;

    /// <summary>Userspace narrows what its guest may use; it can't add anything. -EINVAL otherwise.</summary>
    [KernelFunction("vmx_set_vmx_msr", File = "arch/x86/kvm/vmx/nested.c")]
    private int SetVmxMsr(VcpuVmx vmx, uint index, ulong data)
    {
        ref NestedVmxMsrs config = ref VmcsConfig.Nested;
        ref NestedVmxMsrs msrs = ref vmx.NestedMsrs;
        switch (index)
        {
            case Msr.IA32_VMX_BASIC:
                const ulong basicBits = 1ul << 49 | 1ul << 54 | 1ul << 55 | 1ul << 31 | 7ul << 45 | 0xfful << 56;
                if (!IsBitwiseSubset(config.Basic, data, basicBits) || (data & 1ul << 48) != 0 || ((config.Basic ^ data) & 0x7fffffff) != 0 ||
                    (config.Basic >> 32 & 0x1fff) > (data >> 32 & 0x1fff))
                    return einval;
                msrs.Basic = data;
                return 0;
            case Msr.IA32_VMX_TRUE_PINBASED_CTLS:
                return RestoreControlMsr(config.PinbasedCtlsLow, config.PinbasedCtlsHigh, data, ref msrs.PinbasedCtlsLow, ref msrs.PinbasedCtlsHigh);
            case Msr.IA32_VMX_TRUE_PROCBASED_CTLS:
                return RestoreControlMsr(config.ProcbasedCtlsLow, config.ProcbasedCtlsHigh, data, ref msrs.ProcbasedCtlsLow, ref msrs.ProcbasedCtlsHigh);
            case Msr.IA32_VMX_TRUE_EXIT_CTLS:
                return RestoreControlMsr(config.ExitCtlsLow, config.ExitCtlsHigh, data, ref msrs.ExitCtlsLow, ref msrs.ExitCtlsHigh);
            case Msr.IA32_VMX_TRUE_ENTRY_CTLS:
                return RestoreControlMsr(config.EntryCtlsLow, config.EntryCtlsHigh, data, ref msrs.EntryCtlsLow, ref msrs.EntryCtlsHigh);
            case Msr.IA32_VMX_PROCBASED_CTLS2:
                return RestoreControlMsr(config.SecondaryCtlsLow, config.SecondaryCtlsHigh, data, ref msrs.SecondaryCtlsLow, ref msrs.SecondaryCtlsHigh);
            case Msr.IA32_VMX_MISC:
                return RestoreMisc(in config, ref msrs, data);
            case Msr.IA32_VMX_CR0_FIXED0:
                if (!IsBitwiseSubset(data, config.Cr0Fixed0, ulong.MaxValue))
                    return einval;
                msrs.Cr0Fixed0 = data;
                return 0;
            case Msr.IA32_VMX_CR4_FIXED0:
                if (!IsBitwiseSubset(data, config.Cr4Fixed0, ulong.MaxValue))
                    return einval;
                msrs.Cr4Fixed0 = data;
                return 0;
            case Msr.IA32_VMX_EPT_VPID_CAP:
                if (!IsBitwiseSubset(config.EptCaps | (ulong)config.VpidCaps << 32, data, ulong.MaxValue))
                    return einval;
                msrs.EptCaps = (uint)data;
                msrs.VpidCaps = (uint)(data >> 32);
                return 0;
            case Msr.IA32_VMX_VMCS_ENUM:
                msrs.VmcsEnum = data;
                return 0;
            case Msr.IA32_VMX_VMFUNC:
                if ((data & ~config.VmfuncControls) != 0)
                    return einval;
                msrs.VmfuncControls = data;
                return 0;
            default:
                return einval; // derived from others, or from CPUID
        }
    }

    [KernelFunction("vmx_restore_control_msr", File = "arch/x86/kvm/vmx/nested.c")]
    private static int RestoreControlMsr(uint supportedLow, uint supportedHigh, ulong data, ref uint low, ref uint high)
    {
        if (!IsBitwiseSubset((uint)data, supportedLow, uint.MaxValue) || !IsBitwiseSubset(supportedHigh, data >> 32, uint.MaxValue))
            return einval;
        low = (uint)data;
        high = (uint)(data >> 32);
        return 0;
    }

    [KernelFunction("vmx_restore_vmx_misc", File = "arch/x86/kvm/vmx/nested.c")]
    private static int RestoreMisc(in NestedVmxMsrs config, ref NestedVmxMsrs msrs, ulong data)
    {
        const ulong bits = 1ul << 5 | 7ul << 6 | 1ul << 14 | 1ul << 15 | 1ul << 28 | 1ul << 29 | 1ul << 30 | 0x1ful << 9 | 1ul << 31;
        ulong misc = config.MiscLow | (ulong)config.MiscHigh << 32;
        if (!IsBitwiseSubset(misc, data, bits))
            return einval;
        if ((msrs.PinbasedCtlsHigh & PIN_BASED_VMX_PREEMPTION_TIMER) != 0 && (data & 0x1f) != (misc & 0x1f))
            return einval;
        if ((data >> 16 & 0x1ff) > (misc >> 16 & 0x1ff) || (data >> 25 & 7) > (misc >> 25 & 7) || data >> 32 != misc >> 32)
            return einval;
        msrs.MiscLow = (uint)data;
        msrs.MiscHigh = (uint)(data >> 32);
        return 0;
    }

    /// <summary>CR0 and CR4 bits a guest hypervisor may set follow its CPUID.</summary>
    [KernelFunction("nested_vmx_cr_fixed1_bits_update", File = "arch/x86/kvm/vmx/vmx.c")]
    private static void NestedCrFixed1BitsUpdate(VcpuVmx vmx)
    {
        vmx.NestedMsrs.Cr0Fixed1 = 0xffffffff;
        ulong cr4 = Cr4.PCE;
        if (vmx.FindCpuidEntry(1, out kvm_cpuid_entry2 leaf1))
        {
            cr4 |= Bit(leaf1.edx, 1, Cr4.VME) | Bit(leaf1.edx, 1, Cr4.PVI) | Bit(leaf1.edx, 4, Cr4.TSD) | Bit(leaf1.edx, 2, Cr4.DE) | Bit(leaf1.edx, 3, Cr4.PSE) |
                Bit(leaf1.edx, 6, Cr4.PAE) | Bit(leaf1.edx, 7, Cr4.MCE) | Bit(leaf1.edx, 13, Cr4.PGE) | Bit(leaf1.edx, 24, Cr4.OSFXSR) | Bit(leaf1.edx, 25, Cr4.OSXMMEXCPT) |
                Bit(leaf1.ecx, 5, Cr4.VMXE) | Bit(leaf1.ecx, 6, Cr4.SMXE) | Bit(leaf1.ecx, 17, Cr4.PCIDE) | Bit(leaf1.ecx, 26, Cr4.OSXSAVE);
        }
        if (vmx.FindCpuidEntryIndex(7, 0, out kvm_cpuid_entry2 leaf7))
        {
            cr4 |= Bit(leaf7.ebx, 0, Cr4.FSGSBASE) | Bit(leaf7.ebx, 7, Cr4.SMEP) | Bit(leaf7.ebx, 20, Cr4.SMAP) | Bit(leaf7.ecx, 3, Cr4.PKE) |
                Bit(leaf7.ecx, 2, Cr4.UMIP) | Bit(leaf7.ecx, 16, Cr4.LA57);
        }
        vmx.NestedMsrs.Cr4Fixed1 = cr4;

        static ulong Bit(uint register, int bit, ulong value) => (register >> bit & 1) != 0 ? value : 0;
    }
}

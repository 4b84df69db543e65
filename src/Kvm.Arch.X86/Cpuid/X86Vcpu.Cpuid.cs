using System.Runtime.CompilerServices;
using Kvm.Abi;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.Errnos;
using static Kvm.Arch.X86.MsrBits;
using static Kvm.Arch.X86.X86Const;
using static Kvm.Arch.X86.X86Feature;

namespace Kvm.Arch.X86;

/// <remarks>The guest's CPUID: what userspace set, kept in step with CR4, XCR0 and the APIC base, and the CPUID instruction.</remarks>
public partial class X86Vcpu
{
    /// <summary>The index does not matter to the caller: any bit above 31.</summary>
    private const ulong IndexNotSignificant = ~0ul;

    private static ref kvm_cpuid_entry2 Find(Span<kvm_cpuid_entry2> entries, uint function, ulong index)
    {
        for (int i = 0; i < entries.Length; i++)
        {
            ref kvm_cpuid_entry2 e = ref entries[i];
            if (e.function != function)
                continue;
            if ((e.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) == 0 || e.index == index || index == IndexNotSignificant)
                return ref e;
        }

        return ref Unsafe.NullRef<kvm_cpuid_entry2>();
    }

    private Span<kvm_cpuid_entry2> Entries => CpuidEntries.AsSpan(0, CpuidNent);

    /// <summary>kvm_find_cpuid_entry_index: false when the guest's CPUID has no such entry.</summary>
    [KernelFunction("kvm_find_cpuid_entry_index", File = "arch/x86/kvm/cpuid.c")]
    public bool FindCpuidEntryIndex(uint function, uint index, out kvm_cpuid_entry2 entry)
    {
        FunctionTrace.Leaf("kvm_find_cpuid_entry_index");
        return Copy(ref Find(Entries, function, index), out entry);
    }

    /// <summary>kvm_find_cpuid_entry: the first entry of the function.</summary>
    [KernelFunction("kvm_find_cpuid_entry", File = "arch/x86/kvm/cpuid.c")]
    public bool FindCpuidEntry(uint function, out kvm_cpuid_entry2 entry)
    {
        FunctionTrace.Leaf("kvm_find_cpuid_entry");
        return Copy(ref Find(Entries, function, IndexNotSignificant), out entry);
    }

    private static bool Copy(ref kvm_cpuid_entry2 found, out kvm_cpuid_entry2 entry)
    {
        bool exists = !Unsafe.IsNullRef(ref found);
        entry = exists ? found : default;
        return exists;
    }

    /// <summary>guest_cpuid_has. Words defined by software cannot be asked for.</summary>
    public bool GuestCpuidHas(X86Feature feature)
    {
        int f = (int)CpuidLeafs.Translate(feature);
        (uint function, uint index, int register) = CpuidLeafs.Of(f >> 5);
        if (function == 0 || !FindCpuidEntryIndex(function, index, out kvm_cpuid_entry2 e))
            return false;
        uint value = register switch
        {
            CpuidLeafs.EAX => e.eax,
            CpuidLeafs.EBX => e.ebx,
            CpuidLeafs.ECX => e.ecx,
            _ => e.edx,
        };
        return (value & (1u << (f & 31))) != 0;
    }

    /// <summary>guest_cpuid_clear.</summary>
    public void GuestCpuidClear(X86Feature feature)
    {
        int f = (int)CpuidLeafs.Translate(feature);
        (uint function, uint index, int register) = CpuidLeafs.Of(f >> 5);
        ref kvm_cpuid_entry2 e = ref Find(Entries, function, index);
        if (!Unsafe.IsNullRef(ref e))
            Change(ref e, register, 1u << (f & 31), false);
    }

    private static void Change(ref kvm_cpuid_entry2 e, int register, uint mask, bool set)
    {
        ref uint r = ref e.eax;
        switch (register)
        {
            case CpuidLeafs.EBX: r = ref e.ebx; break;
            case CpuidLeafs.ECX: r = ref e.ecx; break;
            case CpuidLeafs.EDX: r = ref e.edx; break;
        }

        r = set ? r | mask : r & ~mask;
    }

    private static void Change(ref kvm_cpuid_entry2 e, X86Feature feature, bool set) =>
        Change(ref e, CpuidLeafs.Of((int)feature >> 5).Register, 1u << ((int)feature & 31), set);

    /// <summary>guest_pv_has: a paravirtual feature; all of them unless userspace enforces CPUID.</summary>
    public bool GuestPvHas(int feature) => !PvCpuidEnforce || (PvCpuidFeatures & (1u << feature)) != 0;

    /// <summary>guest_cpuid_is_intel.</summary>
    public bool GuestCpuidIsIntel => FindCpuidEntry(0, out kvm_cpuid_entry2 e) && e is { ebx: 0x756e6547, edx: 0x49656e69, ecx: 0x6c65746e };

    /// <summary>guest_cpuid_is_amd_or_hygon.</summary>
    private bool GuestCpuidIsAmdOrHygon => FindCpuidEntry(0, out kvm_cpuid_entry2 e) && IsAmdOrHygon(e);

    private static bool IsAmdOrHygon(in kvm_cpuid_entry2 e) => e
        is { ebx: 0x68747541, edx: 0x69746e65, ecx: 0x444d4163 }
        or { ebx: 0x6f677948, edx: 0x6e65476e, ecx: 0x656e6975 };

    /// <summary>guest_cpuid_family, model and stepping: CPUID.1:EAX, or -1.</summary>
    public int GuestCpuidModel => FindCpuidEntry(1, out kvm_cpuid_entry2 e) ? (int)ModelOf(e.eax) : -1;

    public int GuestCpuidFamily => FindCpuidEntry(1, out kvm_cpuid_entry2 e) ? (int)FamilyOf(e.eax) : -1;

    private static uint FamilyOf(uint eax) => ((eax >> 8) & 0xf) == 0xf ? 0xf + ((eax >> 20) & 0xff) : (eax >> 8) & 0xf;

    private static uint ModelOf(uint eax)
    {
        uint model = (eax >> 4) & 0xf;
        return FamilyOf(eax) >= 6 ? model | ((eax >> 12) & 0xf0) : model;
    }

    public bool SupportsCpuidFault => (MsrPlatformInfo & MSR_PLATFORM_INFO_CPUID_FAULT) != 0;

    public bool CpuidFaultEnabled => (MsrMiscFeaturesEnables & MSR_MISC_FEATURES_ENABLES_CPUID_FAULT) != 0;

    /// <summary>kvm_vcpu_reserved_gpa_bits_raw: bits from the guest's MAXPHYADDR up.</summary>
    [KernelFunction("kvm_vcpu_reserved_gpa_bits_raw", File = "arch/x86/kvm/cpuid.c")]
    public ulong ReservedGpaBitsRaw
    {
        get
        {
            FunctionTrace.Leaf("kvm_vcpu_reserved_gpa_bits_raw");
            return X86Bits.RsvdBits(Maxphyaddr, 63);
        }
    }

    /// <summary>cpuid_query_maxphyaddr: 36 without leaf 80000008.</summary>
    [KernelFunction("cpuid_query_maxphyaddr", File = "arch/x86/kvm/cpuid.c")]
    internal int QueryMaxphyaddr()
    {
        FunctionTrace.Leaf("cpuid_query_maxphyaddr");
        if (Copy(ref Find(Entries, 0x80000000, IndexNotSignificant), out kvm_cpuid_entry2 e) && e.eax >= 0x80000008
            && Copy(ref Find(Entries, 0x80000008, IndexNotSignificant), out e))
            return (int)(e.eax & 0xff);
        return 36;
    }

    private ulong SupportedXcr0Of(Span<kvm_cpuid_entry2> entries)
    {
        ref kvm_cpuid_entry2 best = ref Find(entries, 0xd, 0);
        return Unsafe.IsNullRef(ref best) ? 0 : (best.eax | ((ulong)best.edx << 32)) & Arch.KvmCaps.SupportedXcr0;
    }

    /// <summary>Bits that follow the guest's registers: OSXSAVE, OSPKE, APIC, XSAVE sizes, MWAIT.</summary>
    [KernelFunction("kvm_update_cpuid_runtime", File = "arch/x86/kvm/cpuid.c")]
    public void UpdateCpuidRuntime()
    {
        using var _ = FunctionTrace.Enter("kvm_update_cpuid_runtime");
        UpdateCpuidRuntime(Entries);
    }

    [KernelFunction("__kvm_update_cpuid_runtime", File = "arch/x86/kvm/cpuid.c")]
    private void UpdateCpuidRuntime(Span<kvm_cpuid_entry2> entries)
    {
        using var _ = FunctionTrace.Enter("__kvm_update_cpuid_runtime");
        ulong supportedXcr0 = SupportedXcr0Of(entries);
        HostX86 host = Arch.HostX86;

        ref kvm_cpuid_entry2 best = ref Find(entries, 1, IndexNotSignificant);
        if (!Unsafe.IsNullRef(ref best))
        {
            if (host.BootCpuHas(XSAVE))
                Change(ref best, OSXSAVE, ReadCr4Bits(X86_CR4_OSXSAVE) != 0);
            Change(ref best, APIC, (ApicBase & MSR_IA32_APICBASE_ENABLE) != 0);
            if (!Vm.CheckHasQuirk(KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT))
                Change(ref best, MWAIT, (Ia32MiscEnableMsr & MSR_IA32_MISC_ENABLE_MWAIT) != 0);
        }

        best = ref Find(entries, 7, 0);
        if (!Unsafe.IsNullRef(ref best) && host.BootCpuHas(PKU))
            Change(ref best, OSPKE, ReadCr4Bits(X86_CR4_PKE) != 0);

        best = ref Find(entries, 0xd, 0);
        if (!Unsafe.IsNullRef(ref best))
            best.ebx = Arch.XstateRequiredSize(Xcr0, false);
        best = ref Find(entries, 0xd, 1);
        if (!Unsafe.IsNullRef(ref best) && (best.eax & 0xa) != 0)
            best.ebx = Arch.XstateRequiredSize(Xcr0, true);

        if (KvmCpuidBase != 0)
        {
            best = ref Find(entries, KvmCpuidBase | 1, IndexNotSignificant);
            if (!Unsafe.IsNullRef(ref best) && Vm.HltInGuest)
                best.eax &= ~(1u << KVM_FEATURE_PV_UNHALT);
        }

        best = ref Find(entries, 0x12, 1);
        if (!Unsafe.IsNullRef(ref best))
        {
            best.ecx &= (uint)supportedXcr0;
            best.edx &= (uint)(supportedXcr0 >> 32);
            best.ecx |= (uint)XFEATURE_MASK_FPSSE;
        }
    }

    /// <summary>kvm_update_kvm_cpuid_base: the hypervisor leaf whose signature is KVM's.</summary>
    private void UpdateKvmCpuidBase()
    {
        KvmCpuidBase = 0;
        for (uint function = 0x40000000; function < 0x40010000; function += 0x100)
        {
            ref kvm_cpuid_entry2 e = ref Find(Entries, function, IndexNotSignificant);
            if (!Unsafe.IsNullRef(ref e) && e is { ebx: 0x4b4d564b, ecx: 0x564b4d56, edx: 0x4d })
            {
                KvmCpuidBase = function;
                return;
            }
        }
    }

    internal void UpdatePvRuntime()
    {
        if (KvmCpuidBase != 0 && Copy(ref Find(Entries, KvmCpuidBase | 1, IndexNotSignificant), out kvm_cpuid_entry2 e))
            PvCpuidFeatures = e.eax;
    }

    /// <summary>
    /// The common end of KVM_SET_CPUID and KVM_SET_CPUID2. Before the first KVM_RUN: takes the entries, -EINVAL for a virtual address width other
    /// than 0, 48 or 57. After it: only the same entries again are accepted.
    /// </summary>
    [KernelFunction("kvm_set_cpuid", File = "arch/x86/kvm/cpuid.c")]
    internal int SetCpuid(kvm_cpuid_entry2[] e2)
    {
        using var _ = FunctionTrace.Enter("kvm_set_cpuid");
        UpdateCpuidRuntime(e2);
        if (LastVmentryCpu != -1)
            return SameCpuid(e2) ? 0 : -EINVAL;

        if (CpuidHasHyperv(e2) && !HvVcpuInit())
            return -ENOMEM;
        int r = CheckCpuid(e2);
        if (r != 0)
            return r;
        CpuidEntries = e2;
        CpuidNent = e2.Length;
        UpdateKvmCpuidBase();
        AfterSetCpuid();
        return 0;
    }

    private bool SameCpuid(kvm_cpuid_entry2[] e2)
    {
        if (e2.Length != CpuidNent)
            return false;
        for (int i = 0; i < e2.Length; i++)
        {
            ref readonly kvm_cpuid_entry2 a = ref e2[i];
            ref readonly kvm_cpuid_entry2 b = ref CpuidEntries[i];
            if (a.function != b.function || a.index != b.index || a.flags != b.flags
                || a.eax != b.eax || a.ebx != b.ebx || a.ecx != b.ecx || a.edx != b.edx)
                return false;
        }

        return true;
    }

    private static int CheckCpuid(Span<kvm_cpuid_entry2> e2)
    {
        ref kvm_cpuid_entry2 best = ref Find(e2, 0x80000008, IndexNotSignificant);
        if (!Unsafe.IsNullRef(ref best) && ((best.eax >> 8) & 0xff) is not (48 or 57 or 0))
            return -EINVAL;

        // Features that need the process's permission to grow the XSAVE area are never granted.
        best = ref Find(e2, 0xd, 0);
        if (!Unsafe.IsNullRef(ref best) && ((best.eax | ((ulong)best.edx << 32)) & (1ul << 18)) != 0)
            return -EPERM;
        return 0;
    }

    /// <summary>kvm_vcpu_after_set_cpuid.</summary>
    private void AfterSetCpuid()
    {
        if (Apic is { } apic && FindCpuidEntry(1, out kvm_cpuid_entry2 _))
        {
            apic.TimerModeMask = HasUntraced(TSC_DEADLINE_TIMER) ? 3u << 17 : 1u << 17;
            apic.SetVersion();
        }

        GuestSupportedXcr0 = SupportedXcr0Of(Entries);
        UpdatePvRuntime();
        IsAmdCompatible = Copy(ref Find(Entries, 0, IndexNotSignificant), out kvm_cpuid_entry2 vendor) && IsAmdOrHygon(vendor);
        Maxphyaddr = QueryMaxphyaddr();
        ReservedGpaBits = X86Bits.RsvdBits(Maxphyaddr, 63);
        PmuRefresh();
        Cr4GuestRsvdBits = X86Arch.ComputeCr4ReservedBits(this, static (vcpu, feature) => vcpu.HasUntraced(feature));
        HvSetCpuid();

        // The vendor sees the state above; the MMU goes last, the vendor may adjust the reserved bits.
        Ops.VcpuAfterSetCpuid(this);
        MmuAfterSetCpuid();
    }

    private bool HasUntraced(X86Feature feature)
    {
        (uint function, uint index, int register) = CpuidLeafs.Of((int)feature >> 5);
        if (!Copy(ref Find(Entries, function, index), out kvm_cpuid_entry2 e))
            return false;
        uint value = register switch { CpuidLeafs.EAX => e.eax, CpuidLeafs.EBX => e.ebx, CpuidLeafs.ECX => e.ecx, _ => e.edx };
        return (value & (1u << ((int)feature & 31))) != 0;
    }

    // ---- the instruction ----

    /// <summary>Intel answers an out-of-range leaf with the last basic one; AMD with zeros.</summary>
    private ref kvm_cpuid_entry2 OutOfRangeEntry(scoped ref uint function, uint index)
    {
        ref kvm_cpuid_entry2 basic = ref Find(Entries, 0, IndexNotSignificant);
        if (Unsafe.IsNullRef(ref basic) || IsAmdOrHygon(basic))
            return ref Unsafe.NullRef<kvm_cpuid_entry2>();
        uint cls = function switch
        {
            >= 0x40000000 and <= 0x4fffffff => function & 0xffffff00,
            >= 0xc0000000 => 0xc0000000,
            _ => function & 0x80000000,
        };
        ref kvm_cpuid_entry2 first = ref Find(Entries, cls, IndexNotSignificant);
        if (!Unsafe.IsNullRef(ref first) && function <= first.eax)
            return ref Unsafe.NullRef<kvm_cpuid_entry2>();
        function = basic.eax;
        return ref Find(Entries, basic.eax, index);
    }

    /// <summary>CPUID as the guest sees it. True when the leaf itself was found.</summary>
    [KernelFunction("kvm_cpuid", File = "arch/x86/kvm/cpuid.c")]
    public bool Cpuid(ref uint eax, out uint ebx, ref uint ecx, out uint edx, bool exactOnly)
    {
        using var _ = FunctionTrace.Enter("kvm_cpuid");
        uint function = eax;
        uint index = ecx;
        FunctionTrace.Leaf("kvm_find_cpuid_entry_index");
        // Looked at in place: an entry that is copied is written in small pieces and read in large ones.
        ref kvm_cpuid_entry2 entry = ref Find(Entries, function, index);
        bool exact = !Unsafe.IsNullRef(ref entry);
        uint asked = function;
        if (!exact && !exactOnly)
            entry = ref OutOfRangeEntry(ref function, index);
        bool found = !Unsafe.IsNullRef(ref entry);
        if (found)
        {
            (eax, ebx, ecx, edx) = (entry.eax, entry.ebx, entry.ecx, entry.edx);
            if (function == 7 && index == 0 && GetMsrChecked(MsrIndex.MSR_IA32_TSX_CTRL, out ulong tsx, true) == 0 && (tsx & TSX_CTRL_CPUID_CLEAR) != 0)
                ebx &= ~((1u << ((int)RTM & 31)) | (1u << ((int)HLE & 31)));
        }
        else
        {
            (eax, ebx, ecx, edx) = (0, 0, 0, 0);
            if (function is 0xb or 0x1f && FindCpuidEntryIndex(function, 1, out kvm_cpuid_entry2 first))
            {
                // ECX passes through and EDX is the x2APIC id, even for undefined subleaves.
                ecx = index & 0xff;
                edx = first.edx;
            }
        }

        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_cpuid", $"func {asked:x} idx {index:x} rax {eax:x} rbx {ebx:x} rcx {ecx:x} rdx {edx:x}, cpuid entry {(exact ? "found" : "not found")}{(found && !exact ? ", used max basic" : "")}");
        return exact;
    }

    /// <summary>Exit handler of CPUID.</summary>
    [KernelFunction("kvm_emulate_cpuid", File = "arch/x86/kvm/cpuid.c")]
    public int EmulateCpuid()
    {
        using var _ = FunctionTrace.Enter("kvm_emulate_cpuid");
        if (CpuidFaultEnabled && !RequireCpl(0))
            return 1;
        uint eax = (uint)Rax;
        uint ecx = (uint)Rcx;
        Cpuid(ref eax, out uint ebx, ref ecx, out uint edx, false);
        Rax = eax;
        Rbx = ebx;
        Rcx = ecx;
        Rdx = edx;
        return SkipEmulatedInstruction();
    }
}

using System.Runtime.CompilerServices;
using Kvm.Abi;
using Kvm.Core.Tracing;
using Kvm.Emulator;
using Kvm.Emulator.Vmx;
using static Kvm.Arch.X86.Vmx.VmxControls;
using static Kvm.Emulator.Vmx.VmcsField;

namespace Kvm.Arch.X86.Vmx;

/// <summary>Segment and descriptor-table registers of the guest.</summary>
public sealed unsafe partial class KvmIntel
{
    /// <summary>Encodings of one segment register's four fields.</summary>
    internal readonly record struct SegmentFields(VmcsField Selector, VmcsField Base, VmcsField Limit, VmcsField ArBytes);

    /// <summary>By VCPU_SREG_* number: ES CS SS DS FS GS TR LDTR.</summary>
    internal static readonly SegmentFields[] SegmentField =
    [
        new(GUEST_ES_SELECTOR, GUEST_ES_BASE, GUEST_ES_LIMIT, GUEST_ES_AR_BYTES),
        new(GUEST_CS_SELECTOR, GUEST_CS_BASE, GUEST_CS_LIMIT, GUEST_CS_AR_BYTES),
        new(GUEST_SS_SELECTOR, GUEST_SS_BASE, GUEST_SS_LIMIT, GUEST_SS_AR_BYTES),
        new(GUEST_DS_SELECTOR, GUEST_DS_BASE, GUEST_DS_LIMIT, GUEST_DS_AR_BYTES),
        new(GUEST_FS_SELECTOR, GUEST_FS_BASE, GUEST_FS_LIMIT, GUEST_FS_AR_BYTES),
        new(GUEST_GS_SELECTOR, GUEST_GS_BASE, GUEST_GS_LIMIT, GUEST_GS_AR_BYTES),
        new(GUEST_TR_SELECTOR, GUEST_TR_BASE, GUEST_TR_LIMIT, GUEST_TR_AR_BYTES),
        new(GUEST_LDTR_SELECTOR, GUEST_LDTR_BASE, GUEST_LDTR_LIMIT, GUEST_LDTR_AR_BYTES),
    ];

    private const int segFieldSel = 0, segFieldBase = 1, segFieldLimit = 2, segFieldAr = 3, segFieldNr = 4;

    [KernelFunction("vmx_segment_cache_clear", File = "arch/x86/kvm/vmx/vmx.c")]
    private static void SegmentCacheClear(VcpuVmx vmx) => vmx.SegmentCache.Bitmask = 0;

    /// <summary>Whether a part is cached; it is afterwards (the caller reads it).</summary>
    [KernelFunction("vmx_segment_cache_test_set", File = "arch/x86/kvm/vmx/vmx.c")]
    private static bool SegmentCacheTestSet(VcpuVmx vmx, int seg, int field)
    {
        uint mask = 1u << seg * segFieldNr + field;
        if (!vmx.RegisterIsAvailable(VCPU_EXREG_SEGMENTS))
        {
            vmx.RegisterMarkAvailable(VCPU_EXREG_SEGMENTS);
            vmx.SegmentCache.Bitmask = 0;
        }
        bool cached = (vmx.SegmentCache.Bitmask & mask) != 0;
        vmx.SegmentCache.Bitmask |= mask;
        return cached;
    }

    [KernelFunction("vmx_read_guest_seg_selector", File = "arch/x86/kvm/vmx/vmx.c")]
    private static ushort ReadGuestSegSelector(VcpuVmx vmx, int seg)
    {
        using var _ = FunctionTrace.Enter("vmx_read_guest_seg_selector");
        ref ushort selector = ref vmx.SegmentCache.Seg[seg].Selector;
        if (!SegmentCacheTestSet(vmx, seg, segFieldSel))
            selector = vmx.Read16(SegmentField[seg].Selector);
        return selector;
    }

    [KernelFunction("vmx_read_guest_seg_base", File = "arch/x86/kvm/vmx/vmx.c")]
    private static ulong ReadGuestSegBase(VcpuVmx vmx, int seg)
    {
        using var _ = FunctionTrace.Enter("vmx_read_guest_seg_base");
        ref ulong address = ref vmx.SegmentCache.Seg[seg].Base;
        if (!SegmentCacheTestSet(vmx, seg, segFieldBase))
            address = vmx.Readl(SegmentField[seg].Base);
        return address;
    }

    [KernelFunction("vmx_read_guest_seg_limit", File = "arch/x86/kvm/vmx/vmx.c")]
    private static uint ReadGuestSegLimit(VcpuVmx vmx, int seg)
    {
        ref uint limit = ref vmx.SegmentCache.Seg[seg].Limit;
        if (!SegmentCacheTestSet(vmx, seg, segFieldLimit))
            limit = vmx.Read32(SegmentField[seg].Limit);
        return limit;
    }

    [KernelFunction("vmx_read_guest_seg_ar", File = "arch/x86/kvm/vmx/vmx.c")]
    private static uint ReadGuestSegAr(VcpuVmx vmx, int seg)
    {
        using var _ = FunctionTrace.Enter("vmx_read_guest_seg_ar");
        ref uint ar = ref vmx.SegmentCache.Seg[seg].Ar;
        if (!SegmentCacheTestSet(vmx, seg, segFieldAr))
            ar = vmx.Read32(SegmentField[seg].ArBytes);
        return ar;
    }

    [KernelFunction("vmx_get_segment", File = "arch/x86/kvm/vmx/vmx.c")]
    public void GetSegment(X86Vcpu vcpu, out kvm_segment var, int seg)
    {
        using var _ = FunctionTrace.Enter("vmx_get_segment");
        VcpuVmx vmx = ToVmx(vcpu);
        if (vmx.Rmode.Vm86Active && seg != VCPU_SREG_LDTR)
        {
            var = vmx.Rmode.Segs[seg];
            if (seg == VCPU_SREG_TR || var.selector == ReadGuestSegSelector(vmx, seg))
                return;
            var.@base = ReadGuestSegBase(vmx, seg);
            var.selector = ReadGuestSegSelector(vmx, seg);
            return;
        }
        var = default;
        var.@base = ReadGuestSegBase(vmx, seg);
        var.limit = ReadGuestSegLimit(vmx, seg);
        var.selector = ReadGuestSegSelector(vmx, seg);
        uint ar = ReadGuestSegAr(vmx, seg);
        var.unusable = (byte)(ar >> 16 & 1);
        var.type = (byte)(ar & 15);
        var.s = (byte)(ar >> 4 & 1);
        var.dpl = (byte)(ar >> 5 & 3);
        // A usable segment has to be present, so "present" carries "usable" through userspaces that lose the latter.
        var.present = (byte)(var.unusable ^ 1);
        var.avl = (byte)(ar >> 12 & 1);
        var.l = (byte)(ar >> 13 & 1);
        var.db = (byte)(ar >> 14 & 1);
        var.g = (byte)(ar >> 15 & 1);
    }

    [KernelFunction("vmx_get_segment_base", File = "arch/x86/kvm/vmx/vmx.c")]
    public ulong GetSegmentBase(X86Vcpu vcpu, int seg)
    {
        using var _ = FunctionTrace.Enter("vmx_get_segment_base");
        VcpuVmx vmx = ToVmx(vcpu);
        if (!vmx.Rmode.Vm86Active)
            return ReadGuestSegBase(vmx, seg);
        GetSegment(vcpu, out kvm_segment s, seg);
        return s.@base;
    }

    [KernelFunction("vmx_get_cpl", File = "arch/x86/kvm/vmx/vmx.c")]
    public int GetCpl(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("vmx_get_cpl");
        VcpuVmx vmx = ToVmx(vcpu);
        return vmx.Rmode.Vm86Active ? 0 : (int)(ReadGuestSegAr(vmx, VCPU_SREG_SS) >> 5 & 3);
    }

    [KernelFunction("vmx_get_cs_db_l_bits", File = "arch/x86/kvm/vmx/vmx.c")]
    public void GetCsDbLBits(X86Vcpu vcpu, out bool db, out bool l)
    {
        using var _ = FunctionTrace.Enter("vmx_get_cs_db_l_bits");
        uint ar = ReadGuestSegAr(ToVmx(vcpu), VCPU_SREG_CS);
        db = (ar >> 14 & 1) != 0;
        l = (ar >> 13 & 1) != 0;
    }

    /// <summary>Access rights in VMCS form; a segment that is not present is marked unusable.</summary>
    [KernelFunction("vmx_segment_access_rights", File = "arch/x86/kvm/vmx/vmx.c")]
    private static uint SegmentAccessRights(in kvm_segment var)
    {
        using var _ = FunctionTrace.Enter("vmx_segment_access_rights");
        uint ar = var.type & 15u;
        ar |= (var.s & 1u) << 4;
        ar |= (var.dpl & 3u) << 5;
        ar |= (var.present & 1u) << 7;
        ar |= (var.avl & 1u) << 12;
        ar |= (var.l & 1u) << 13;
        ar |= (var.db & 1u) << 14;
        ar |= (var.g & 1u) << 15;
        if (var.unusable != 0 || var.present == 0)
            ar |= 1u << 16;
        return ar;
    }

    [KernelFunction("__vmx_set_segment", File = "arch/x86/kvm/vmx/vmx.c")]
    private void SetSegmentRaw(VcpuVmx vmx, ref kvm_segment var, int seg)
    {
        using var _ = FunctionTrace.Enter("__vmx_set_segment");
        SegmentFields sf = SegmentField[seg];
        SegmentCacheClear(vmx);
        if (vmx.Rmode.Vm86Active && seg != VCPU_SREG_LDTR)
        {
            vmx.Rmode.Segs[seg] = var;
            if (seg == VCPU_SREG_TR)
                vmx.Write16(sf.Selector, var.selector);
            else if (var.s != 0)
                FixRmodeSeg(vmx, seg, in vmx.Rmode.Segs[seg]);
            return;
        }
        vmx.Writel(sf.Base, var.@base);
        vmx.Write32(sf.Limit, var.limit);
        vmx.Write16(sf.Selector, var.selector);
        // Userspaces that clear "accessed" at reset would fail VM entry on a processor with unrestricted guest.
        if (EnableUnrestrictedGuest && seg != VCPU_SREG_LDTR)
            var.type |= 1;
        vmx.Write32(sf.ArBytes, SegmentAccessRights(in var));
    }

    [KernelFunction("vmx_set_segment", File = "arch/x86/kvm/vmx/vmx.c")]
    public void SetSegment(X86Vcpu vcpu, in kvm_segment var, int seg)
    {
        using var _ = FunctionTrace.Enter("vmx_set_segment");
        VcpuVmx vmx = ToVmx(vcpu);
        kvm_segment copy = var;
        SetSegmentRaw(vmx, ref copy, seg);
        vmx.EmulationRequired = IsEmulationRequired(vmx);
    }

    [KernelFunction("vmx_get_idt", File = "arch/x86/kvm/vmx/vmx.c")]
    public void GetIdt(X86Vcpu vcpu, out DescPtr dt)
    {
        using var _ = FunctionTrace.Enter("vmx_get_idt");
        VcpuVmx vmx = ToVmx(vcpu);
        ushort size = (ushort)vmx.Read32(GUEST_IDTR_LIMIT);
        dt = new DescPtr { Size = size, Address = vmx.Readl(GUEST_IDTR_BASE) };
    }

    [KernelFunction("vmx_set_idt", File = "arch/x86/kvm/vmx/vmx.c")]
    public void SetIdt(X86Vcpu vcpu, in DescPtr dt)
    {
        using var _ = FunctionTrace.Enter("vmx_set_idt");
        VcpuVmx vmx = ToVmx(vcpu);
        vmx.Write32(GUEST_IDTR_LIMIT, dt.Size);
        vmx.Writel(GUEST_IDTR_BASE, dt.Address);
    }

    [KernelFunction("vmx_get_gdt", File = "arch/x86/kvm/vmx/vmx.c")]
    public void GetGdt(X86Vcpu vcpu, out DescPtr dt)
    {
        using var _ = FunctionTrace.Enter("vmx_get_gdt");
        VcpuVmx vmx = ToVmx(vcpu);
        ushort size = (ushort)vmx.Read32(GUEST_GDTR_LIMIT);
        dt = new DescPtr { Size = size, Address = vmx.Readl(GUEST_GDTR_BASE) };
    }

    [KernelFunction("vmx_set_gdt", File = "arch/x86/kvm/vmx/vmx.c")]
    public void SetGdt(X86Vcpu vcpu, in DescPtr dt)
    {
        using var _ = FunctionTrace.Enter("vmx_set_gdt");
        VcpuVmx vmx = ToVmx(vcpu);
        vmx.Write32(GUEST_GDTR_LIMIT, dt.Size);
        vmx.Writel(GUEST_GDTR_BASE, dt.Address);
    }

    /// <summary>One segment register as after reset: selector and base 0, limit 0xffff, accessed data (CS: code).</summary>
    [KernelFunction("seg_setup", File = "arch/x86/kvm/vmx/vmx.c")]
    private static void SegSetup(VcpuVmx vmx, int seg)
    {
        using var _ = FunctionTrace.Enter("seg_setup");
        SegmentFields sf = SegmentField[seg];
        vmx.Write16(sf.Selector, 0);
        vmx.Writel(sf.Base, 0);
        vmx.Write32(sf.Limit, 0xffff);
        vmx.Write32(sf.ArBytes, seg == VCPU_SREG_CS ? 0x9bu : 0x93u);
    }
}

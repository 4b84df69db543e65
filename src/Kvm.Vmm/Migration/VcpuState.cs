using System.Runtime.InteropServices;
using Kvm.Abi;
using Kvm.Client;
using static Kvm.Abi.Uapi;

namespace Kvm.Vmm.Migration;

/// <summary>Everything that KVM tells about a vCPU, which its SET calls take back.</summary>
/// <remarks>
/// The order of calls is part of it. Saving: KVM_GET_MP_STATE first, as it takes pending INITs and SIPIs; KVM_GET_VCPU_EVENTS last, as the others may still move an event. Restoring: CPUID before
/// all that depends on it; the APIC's base (with the segments) before its registers; these before the TSC deadline, which is ignored in any other timer mode; the TSC before that deadline;
/// KVM_SET_REGS drops a pending exception, so the events come last.
/// </remarks>
public sealed unsafe class VcpuState
{
    private const uint MsrTsc = 0x10, MsrTscDeadline = 0x6e0;

    /// <summary>The APIC id.</summary>
    public required uint Id { get; init; }

    /// <summary>KVM_GET_CPUID2.</summary>
    public required kvm_cpuid_entry2[] Cpuid { get; set; }

    /// <summary>The frequency of the time-stamp counter.</summary>
    public int TscKhz { get; set; }

    /// <summary>KVM_VCPU_TSC_OFFSET; null where the kernel does not tell it.</summary>
    public long? TscOffset { get; set; }

    /// <summary><c>KVM_MP_STATE_…</c>.</summary>
    public uint MpState { get; set; }

    /// <summary>General registers.</summary>
    public kvm_regs Regs { get; set; }

    /// <summary>Segments and control registers; the PAE page-directory pointers where the kernel has KVM_GET_SREGS2.</summary>
    public kvm_sregs2 SRegs { get; set; }

    /// <summary>The pending external interrupt of a vCPU without an APIC in the kernel, one bit a vector (kvm_sregs); null with KVM_GET_SREGS2.</summary>
    public kvm_sregs? OldSRegs { get; set; }

    /// <summary>The XSAVE area in the standard format.</summary>
    public required byte[] Xsave { get; set; }

    /// <summary>XCR0; none where the processor has no XSAVE.</summary>
    public kvm_xcrs Xcrs { get; set; }

    /// <summary>Debug registers.</summary>
    public kvm_debugregs DebugRegs { get; set; }

    /// <summary>The local APIC; null when it is not the kernel's.</summary>
    public kvm_lapic_state? Lapic { get; set; }

    /// <summary>Those of KVM_GET_MSR_INDEX_LIST that can be read.</summary>
    public required kvm_msr_entry[] Msrs { get; set; }

    /// <summary>Pending exceptions, interrupts, NMIs, SMIs.</summary>
    public kvm_vcpu_events Events { get; set; }

    /// <summary>A guest hypervisor's state, with its header; null for guests that can't be one.</summary>
    public byte[]? Nested { get; set; }

    /// <summary>Reads all of it. The vCPU does not run, and has no exit of userspace's to complete.</summary>
    /// <param name="vcpu">The vCPU.</param>
    /// <param name="vm">Its VM.</param>
    /// <param name="msrs">The MSRs to save: KVM_GET_MSR_INDEX_LIST.</param>
    /// <exception cref="KvmException">A call failed.</exception>
    public static VcpuState Save(Vcpu vcpu, Vm vm, ReadOnlySpan<uint> msrs)
    {
        ArgumentNullException.ThrowIfNull(vcpu);
        ArgumentNullException.ThrowIfNull(vm);
        uint mpState = vcpu.MpState;
        var state = new VcpuState
        {
            Id = vcpu.Id,
            MpState = mpState,
            Cpuid = vcpu.GetCpuid(),
            TscKhz = vcpu.TscKhz,
            TscOffset = GetTscOffset(vcpu),
            Regs = vcpu.Regs,
            Xsave = GetXsave(vcpu, vm),
            Xcrs = vm.CheckExtension(KVM_CAP_XCRS) > 0 ? vcpu.Xcrs : default,
            DebugRegs = vcpu.DebugRegs,
            Lapic = GetLapic(vcpu),
            Msrs = GetMsrs(vcpu, msrs),
        };
        if (vm.CheckExtension(KVM_CAP_SREGS2) > 0) state.SRegs = vcpu.SRegs2;
        else state.OldSRegs = vcpu.SRegs;
        state.Nested = GetNested(vcpu, vm, state.Cpuid);
        state.Events = vcpu.VcpuEvents;
        return state;
    }

    /// <summary>Writes all of it into a vCPU of the same id that has not run yet.</summary>
    /// <param name="vcpu">The vCPU.</param>
    /// <param name="tscOffset">What makes the TSC go on where it was, on this host; null: only its value can be set.</param>
    /// <exception cref="StateFileException">The kernel does not take something; the message says what.</exception>
    internal void Restore(Vcpu vcpu, long? tscOffset)
    {
        Step("CPUID", () => vcpu.SetCpuid(Cpuid));
        if (TscKhz > 0 && TscKhz != vcpu.TscKhz) Step($"a TSC of {TscKhz} kHz", () => vcpu.TscKhz = TscKhz);
        Step("segments and control registers", () =>
        {
            if (OldSRegs is { } old) vcpu.SRegs = old;
            else vcpu.SRegs2 = SRegs;
        });
        Step("general registers", () => vcpu.Regs = Regs);
        if (Xcrs.nr_xcrs > 0) Step("XCR0", () => vcpu.Xcrs = Xcrs);
        Step("the XSAVE area", () => SetXsave(vcpu));
        Step("debug registers", () => vcpu.DebugRegs = DebugRegs);
        if (tscOffset is { } offset) Step("the TSC's offset", () => SetTscOffset(vcpu, offset));
        if (Lapic is { } lapic) Step("the local APIC", () => vcpu.Lapic = lapic);
        SetMsrs(vcpu, withTsc: tscOffset is null);
        Step($"multiprocessing state {MpState}", () => vcpu.MpState = MpState);
        if (Nested is { } nested) Step("nested state", () => SetNested(vcpu, nested));
        Step("events", () => vcpu.VcpuEvents = Events);
    }

    internal void Write(StateWriter writer)
    {
        writer.Section("vcpu", Id, new Header { TscKhz = TscKhz, MpState = MpState, HasOffset = TscOffset is null ? 0u : 1, Offset = TscOffset ?? 0 });
        writer.Section("cpui", Id, MemoryMarshal.AsBytes(Cpuid.AsSpan()));
        writer.Section("regs", Id, Regs);
        if (OldSRegs is { } old) writer.Section("sreg", Id, old);
        else writer.Section("sre2", Id, SRegs);
        writer.Section("xsav", Id, Xsave);
        writer.Section("xcrs", Id, Xcrs);
        writer.Section("dbgr", Id, DebugRegs);
        if (Lapic is { } lapic) writer.Section("lapi", Id, lapic);
        writer.Section("msrs", Id, MemoryMarshal.AsBytes(Msrs.AsSpan()));
        if (Nested is { } nested) writer.Section("nest", Id, nested);
        writer.Section("evnt", Id, Events);
    }

    /// <summary>The vCPU that a "vcpu" section begins.</summary>
    internal static VcpuState Begin(StateReader reader)
    {
        Header header = reader.As<Header>();
        return new VcpuState
        {
            Id = reader.Index,
            Cpuid = [],
            Xsave = [],
            Msrs = [],
            TscKhz = header.TscKhz,
            MpState = header.MpState,
            TscOffset = header.HasOffset != 0 ? header.Offset : null,
        };
    }

    /// <summary>Takes in the current section; false when it is none of a vCPU's.</summary>
    internal bool Take(StateReader reader)
    {
        switch (reader.Tag)
        {
            case "cpui": Cpuid = reader.AsArray<kvm_cpuid_entry2>(); break;
            case "regs": Regs = reader.As<kvm_regs>(); break;
            case "sreg": OldSRegs = reader.As<kvm_sregs>(); break;
            case "sre2": SRegs = reader.As<kvm_sregs2>(); break;
            case "xsav" when reader.Payload.Length < sizeof(kvm_xsave): throw reader.Wrong($"an XSAVE area of {reader.Payload.Length} bytes");
            case "xsav": Xsave = reader.Payload.ToArray(); break;
            case "xcrs": Xcrs = reader.As<kvm_xcrs>(); break;
            case "dbgr": DebugRegs = reader.As<kvm_debugregs>(); break;
            case "lapi": Lapic = reader.As<kvm_lapic_state>(); break;
            case "msrs": Msrs = reader.AsArray<kvm_msr_entry>(); break;
            case "nest": Nested = reader.Payload.ToArray(); break;
            case "evnt": Events = reader.As<kvm_vcpu_events>(); break;
            default: return false;
        }

        return true;
    }

    private static void Step(string what, Action action)
    {
        try
        {
            action();
        }
        catch (KvmException e)
        {
            throw new StateFileException($"this kernel does not take {what} of the saved vCPU: {e.Message}", e);
        }
    }

    private static kvm_lapic_state? GetLapic(Vcpu vcpu)
    {
        kvm_lapic_state lapic;
        return vcpu.Fd.TryIoctl(KVM_GET_LAPIC, (ulong)&lapic) >= 0 ? lapic : null;
    }

    private static long? GetTscOffset(Vcpu vcpu)
    {
        long offset = 0;
        var attribute = new kvm_device_attr { group = KVM_VCPU_TSC_CTRL, attr = KVM_VCPU_TSC_OFFSET, addr = (ulong)&offset };
        return vcpu.Fd.TryIoctl(KVM_GET_DEVICE_ATTR, (ulong)&attribute) >= 0 ? offset : null;
    }

    /// <summary>By how much the saved offset has to change for the counter to go on, here and now, where it was; null where there are no offsets.</summary>
    internal long? TscDistance(Vcpu vcpu)
    {
        if (TscOffset is not { } saved || GetTscOffset(vcpu) is not { } here) return null;
        ulong value = Msrs.FirstOrDefault(static m => m.index == MsrTsc).data;
        return unchecked(here + (long)(value - vcpu.GetMsr(MsrTsc)) - saved);
    }

    private static void SetTscOffset(Vcpu vcpu, long offset) =>
        vcpu.Fd.Set(KVM_SET_DEVICE_ATTR, new kvm_device_attr { group = KVM_VCPU_TSC_CTRL, attr = KVM_VCPU_TSC_OFFSET, addr = (ulong)&offset });

    private static byte[] GetXsave(Vcpu vcpu, Vm vm)
    {
        int size = vm.CheckExtension(KVM_CAP_XSAVE2);
        var area = new byte[Math.Max(size, sizeof(kvm_xsave))];
        fixed (byte* pointer = area) vcpu.Fd.Ioctl(size > sizeof(kvm_xsave) ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, (ulong)pointer);
        return area;
    }

    private void SetXsave(Vcpu vcpu)
    {
        fixed (byte* pointer = Xsave) vcpu.Fd.Ioctl(KVM_SET_XSAVE, (ulong)pointer);
    }

    /// <summary>One that the kernel names but does not read ends a call: the rest comes with the next one.</summary>
    private static kvm_msr_entry[] GetMsrs(Vcpu vcpu, ReadOnlySpan<uint> indices)
    {
        var entries = new kvm_msr_entry[indices.Length];
        for (int i = 0; i < entries.Length; i++) entries[i].index = indices[i];
        var saved = new List<kvm_msr_entry>(entries.Length);
        for (int at = 0; at < entries.Length;)
        {
            Span<kvm_msr_entry> rest = entries.AsSpan(at, Math.Min(entries.Length - at, MostMsrs));
            int done = vcpu.GetMsrs(rest);
            saved.AddRange(rest[..done]);
            at += done < rest.Length ? done + 1 : done;
        }

        return [.. saved];
    }

    /// <summary>KVM's own limit is 256 (MAX_IO_MSRS).</summary>
    private const int MostMsrs = 128;

    private void SetMsrs(Vcpu vcpu, bool withTsc)
    {
        // The offset says it already, and a write would let the kernel guess which counters belong together.
        var entries = Msrs.Where(m => m.index is not (MsrTsc or MsrTscDeadline) || (m.index == MsrTsc && withTsc)).ToList();
        // In the end: it needs the TSC and the timer's mode.
        entries.AddRange(Msrs.Where(static m => m.index == MsrTscDeadline));
        ReadOnlySpan<kvm_msr_entry> all = CollectionsMarshal.AsSpan(entries);
        for (int at = 0; at < all.Length;)
        {
            ReadOnlySpan<kvm_msr_entry> some = all.Slice(at, Math.Min(all.Length - at, MostMsrs));
            int done = vcpu.SetMsrs(some);
            at += done;
            if (done < some.Length)
                throw new StateFileException($"this kernel does not take the value 0x{all[at].data:x} of MSR 0x{all[at].index:x} of the saved vCPU {Id}");
        }
    }

    /// <summary>Only a guest whose CPUID shows VMX or SVM can have some.</summary>
    private static byte[]? GetNested(Vcpu vcpu, Vm vm, kvm_cpuid_entry2[] cpuid)
    {
        const uint vmx = 1 << 5, svm = 1 << 2;
        bool hypervisor = cpuid.Any(static c => (c.function == 1 && (c.ecx & vmx) != 0) || (c.function == 0x80000001 && (c.ecx & svm) != 0));
        int size = vm.CheckExtension(KVM_CAP_NESTED_STATE);
        if (!hypervisor || size <= 0) return null;
        var state = new byte[Math.Max(size, sizeof(kvm_nested_state))];
        fixed (byte* pointer = state)
        {
            ((kvm_nested_state*)pointer)->size = (uint)state.Length;
            if (vcpu.Fd.TryIoctl(KVM_GET_NESTED_STATE, (ulong)pointer) < 0) return null;
            return state[..(int)Math.Min(((kvm_nested_state*)pointer)->size, (uint)state.Length)];
        }
    }

    private static void SetNested(Vcpu vcpu, byte[] state)
    {
        fixed (byte* pointer = state) vcpu.Fd.Ioctl(KVM_SET_NESTED_STATE, (ulong)pointer);
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct Header
    {
        public int TscKhz;
        public uint MpState;
        public uint HasOffset;
        public uint Reserved;
        public long Offset;
    }
}

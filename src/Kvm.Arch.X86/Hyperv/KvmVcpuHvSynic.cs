using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.ApicConst;
using static Kvm.Arch.X86.Errnos;
using static Kvm.Arch.X86.HypervConst;
using static Kvm.Arch.X86.X86Request;

namespace Kvm.Arch.X86;

/// <summary>
/// A vCPU's synthetic interrupt controller (struct kvm_vcpu_hv_synic): sixteen sources (SINTs), each an APIC vector, with a page of messages and one of event flags.
/// </summary>
/// <remarks>Sources are read by any thread (irqfd), written by the vCPU's.</remarks>
public sealed unsafe class KvmVcpuHvSynic
{
    private readonly KvmVcpuHv _hv;
    private readonly ulong[] _sint = new ulong[HV_SYNIC_SINT_COUNT];
    private readonly int[] _sintToGsi = new int[HV_SYNIC_SINT_COUNT];
    private readonly ulong[] _vectors = new ulong[4];
    private readonly ulong[] _autoEoi = new ulong[4];
    private ulong _version = HV_SYNIC_VERSION_1;
    private ulong _control, _evtPage;
    private bool _dontZeroPages;

    [KernelFunction("synic_init", File = "arch/x86/kvm/hyperv.c")]
    internal KvmVcpuHvSynic(KvmVcpuHv hv)
    {
        _hv = hv;
        Array.Fill(_sint, HV_SYNIC_SINT_MASKED);
        Array.Fill(_sintToGsi, -1);
    }

    /// <summary>KVM_CAP_HYPERV_SYNIC or SYNIC2 was enabled: without it the registers can only be read, and written with 0, by userspace.</summary>
    public bool Active { get; private set; }

    /// <summary>SIMP.</summary>
    public ulong MsgPage { get; private set; }

    /// <summary>Vectors of unmasked sources: their EOIs must be seen.</summary>
    public ReadOnlySpan<ulong> Vectors => _vectors;

    private X86Vcpu Vcpu => _hv.Vcpu;

    public bool HasVector(int vector) => (_vectors[vector >> 6] >> (vector & 63) & 1) != 0;

    /// <summary>The vector's interrupt is over as soon as it is delivered.</summary>
    public bool HasAutoEoiVector(int vector) => (_autoEoi[vector >> 6] >> (vector & 63) & 1) != 0;

    /// <summary>kvm_hv_activate_synic, once the vCPU has its <see cref="KvmVcpuHv"/>.</summary>
    internal void Activate(bool dontZeroPages)
    {
        Active = true;
        _dontZeroPages = dontZeroPages;
        _control = HV_SYNIC_CONTROL_ENABLE;
    }

    // ---- MSRs ----

    [KernelFunction("synic_set_msr", File = "arch/x86/kvm/hyperv.c")]
    internal int SetMsr(uint msr, ulong data, bool host)
    {
        if (!Active && (!host || data != 0))
            return 1;
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_hv_synic_set_msr", $"vcpu_id {Vcpu.VcpuId} msr 0x{msr:x} data 0x{data:x} host {(host ? 1 : 0)}");
        switch (msr)
        {
            case HV_X64_MSR_SCONTROL:
                _control = data;
                break;
            case HV_X64_MSR_SVERSION:
                if (!host)
                    return 1;
                _version = data;
                return 0;
            case HV_X64_MSR_SIEFP:
                if (!ClearPage(data, host))
                    return 1;
                _evtPage = data;
                break;
            case HV_X64_MSR_SIMP:
                if (!ClearPage(data, host))
                    return 1;
                MsgPage = data;
                break;
            case HV_X64_MSR_EOM:
                for (int i = 0; Active && i < _sint.Length; i++)
                    _hv.NotifyAckedSint(i);
                return 0;
            default:
                return SetSint((int)(msr - HV_X64_MSR_SINT0), data, host);
        }

        if (!host)
            SynicExit(msr);
        return 0;
    }

    /// <summary>KVM_CAP_HYPERV_SYNIC zeroes a page when the guest turns it on; SYNIC2 leaves it as it is. False without memory.</summary>
    private bool ClearPage(ulong data, bool host) =>
        (data & HV_X64_MSR_PAGE_ENABLE) == 0 || host || _dontZeroPages || Vcpu.Vm.ClearGuest(data & ~0xffful, 4096).IsOk;

    /// <summary>synic_exit: userspace, which has the devices, learns where the pages are.</summary>
    [KernelFunction("synic_exit", File = "arch/x86/kvm/hyperv.c")]
    private void SynicExit(uint msr)
    {
        _hv.Exit.type = KVM_EXIT_HYPERV_SYNIC;
        _hv.Exit.u.synic.msr = msr;
        _hv.Exit.u.synic.control = _control;
        _hv.Exit.u.synic.evt_page = _evtPage;
        _hv.Exit.u.synic.msg_page = MsgPage;
        Vcpu.MakeRequest(KVM_REQ_HV_EXIT);
    }

    [KernelFunction("synic_get_msr", File = "arch/x86/kvm/hyperv.c")]
    internal int GetMsr(uint msr, out ulong data, bool host)
    {
        data = 0;
        if (!Active && !host)
            return 1;
        data = msr switch
        {
            HV_X64_MSR_SCONTROL => _control,
            HV_X64_MSR_SVERSION => _version,
            HV_X64_MSR_SIEFP => _evtPage,
            HV_X64_MSR_SIMP => MsgPage,
            HV_X64_MSR_EOM => 0,
            _ => Volatile.Read(ref _sint[msr - HV_X64_MSR_SINT0]),
        };
        return 0;
    }

    // ---- sources ----

    private static int VectorOf(ulong sint) => (sint & HV_SYNIC_SINT_MASKED) != 0 ? -1 : (int)(sint & HV_SYNIC_SINT_VECTOR_MASK);

    /// <summary>synic_set_sint: vectors below 16 are refused, but userspace may write anything and a masked source may say what it wants.</summary>
    [KernelFunction("synic_set_sint", File = "arch/x86/kvm/hyperv.c")]
    private int SetSint(int sint, ulong data, bool host)
    {
        int vector = (int)(data & HV_SYNIC_SINT_VECTOR_MASK);
        if (vector < HV_SYNIC_FIRST_VALID_VECTOR && !host && (data & HV_SYNIC_SINT_MASKED) == 0)
            return 1;
        int old = (int)(Volatile.Read(ref _sint[sint]) & HV_SYNIC_SINT_VECTOR_MASK);
        Volatile.Write(ref _sint[sint], data);
        UpdateVector(old);
        UpdateVector(vector);

        // The vector goes into the EOI exit bitmap.
        Vcpu.MakeRequest(KVM_REQ_SCAN_IOAPIC);
        return 0;
    }

    /// <summary>synic_update_vector: several sources may share a vector.</summary>
    [KernelFunction("synic_update_vector", File = "arch/x86/kvm/hyperv.c")]
    private void UpdateVector(int vector)
    {
        if (vector < HV_SYNIC_FIRST_VALID_VECTOR)
            return;
        bool connected = false, autoEoi = false;
        foreach (ulong sint in _sint)
        {
            bool mine = VectorOf(sint) == vector;
            connected |= mine;
            autoEoi |= mine && (sint & HV_SYNIC_SINT_AUTO_EOI) != 0;
        }

        bool before = AnyAutoEoi;
        Set(_vectors, vector, connected);
        Set(_autoEoi, vector, autoEoi);
        bool after = AnyAutoEoi;
        X86Vm vm = Vcpu.Vm;
        if (before == after || !vm.Arch.EnableApicv)
            return;

        // KVM itself has to deliver such interrupts: the processor would put them in service.
        vm.ApicvUpdateLock.WriteLock();
        vm.Hyperv.SynicAutoEoiUsed += after ? 1 : -1;
        vm.SetOrClearApicvInhibitLocked(ApicvInhibit.APICV_INHIBIT_REASON_HYPERV, vm.Hyperv.SynicAutoEoiUsed != 0);
        vm.ApicvUpdateLock.WriteUnlock();
    }

    private bool AnyAutoEoi => (_autoEoi[0] | _autoEoi[1] | _autoEoi[2] | _autoEoi[3]) != 0;

    private static void Set(ulong[] bitmap, int vector, bool value)
    {
        ulong bit = 1ul << (vector & 63);
        bitmap[vector >> 6] = value ? bitmap[vector >> 6] | bit : bitmap[vector >> 6] & ~bit;
    }

    internal int SintGsi(int sint) => Volatile.Read(ref _sintToGsi[sint]);

    /// <summary>kvm_hv_set_sint_gsi; there is nobody to tell when the SINT does not exist.</summary>
    [KernelFunction("kvm_hv_set_sint_gsi", File = "arch/x86/kvm/hyperv.c")]
    internal void SetSintGsi(uint sint, int gsi)
    {
        if (sint < HV_SYNIC_SINT_COUNT)
            Volatile.Write(ref _sintToGsi[sint], gsi);
    }

    /// <summary>synic_set_irq: -EINVAL for no such source, -ENOENT while it is masked; else 1 when the APIC took it, 0 when not. Any thread.</summary>
    [KernelFunction("synic_set_irq", File = "arch/x86/kvm/hyperv.c")]
    internal int SetIrq(uint sint)
    {
        if (Vcpu.Apic is not { } apic || sint >= HV_SYNIC_SINT_COUNT)
            return -EINVAL;
        int vector = VectorOf(Volatile.Read(ref _sint[sint]));
        if (vector < 0)
            return -ENOENT;
        var irq = new KvmLapicIrq { Shorthand = APIC_DEST_SELF, DestMode = APIC_DEST_PHYSICAL, DeliveryMode = APIC_DM_FIXED, Vector = (byte)vector, Level = true };
        int r = Vcpu.Vm.IrqDeliveryToApic(apic, ref irq, null);
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_hv_synic_set_irq", $"vcpu_id {Vcpu.VcpuId} sint {sint} vector {vector} ret {r}");
        return r;
    }

    /// <summary>kvm_hv_synic_send_eoi.</summary>
    [KernelFunction("kvm_hv_synic_send_eoi", File = "arch/x86/kvm/hyperv.c")]
    internal void SendEoi(int vector)
    {
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_hv_synic_send_eoi", $"vcpu_id {Vcpu.VcpuId} vector {vector}");
        for (int i = 0; i < _sint.Length; i++)
        {
            if (VectorOf(Volatile.Read(ref _sint[i])) == vector)
                _hv.NotifyAckedSint(i);
        }
    }

    // ---- messages ----

    /// <summary>
    /// synic_deliver_msg: puts a message into the source's slot and raises its interrupt. -ENOENT without a message page, -EAGAIN while the slot is full (the guest is asked
    /// to write EOM), -EFAULT without memory or when no APIC took the interrupt. With <paramref name="noRetry"/> a full slot loses the message: 0. On the vCPU's thread:
    /// the guest does not run meanwhile.
    /// </summary>
    [KernelFunction("synic_deliver_msg", File = "arch/x86/kvm/hyperv.c")]
    internal int DeliverMsg(uint sint, byte* message, int length, bool noRetry)
    {
        if ((MsgPage & HV_X64_MSR_PAGE_ENABLE) == 0)
            return -ENOENT;
        ulong gfn = MsgPage >> 12;
        int slot = (int)sint * HV_MESSAGE_SIZE;
        uint type;
        KvmResult r = Vcpu.ReadGuestPage(gfn, &type, slot, sizeof(uint));
        if (r.IsError)
            return (int)r.Raw;
        if (type != HVMSG_NONE)
        {
            if (noRetry)
                return 0;
            byte pending = 1;
            r = Vcpu.WriteGuestPage(gfn, &pending, slot + 5, 1);
            return r.IsError ? (int)r.Raw : -EAGAIN;
        }

        r = Vcpu.WriteGuestPage(gfn, message, slot, length);
        if (r.IsError)
            return (int)r.Raw;
        int taken = SetIrq(sint);
        return taken < 0 ? taken : taken == 0 ? -EFAULT : 0;
    }
}

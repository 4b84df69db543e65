using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Arch.X86.ApicConst;
using static Kvm.Arch.X86.Errnos;

namespace Kvm.Arch.X86;

/// <remarks>Words in guest memory that stand for APIC registers: userspace's TPR patching (vapic) and the paravirtual EOI.</remarks>
public sealed unsafe partial class KvmLapic
{
    private const byte KVM_PV_EOI_ENABLED = 1;
    private const ulong KVM_MSR_ENABLED = 1;

    private readonly GfnToHvaCache _vapicCache = new();

    /// <summary>Where KVM_SET_VAPIC_ADDR put the word; 0: not in use.</summary>
    public ulong VapicAddr { get; private set; }

    private bool Attention(int bit) => (Vcpu.ApicAttention >> bit & 1) != 0;

    private void SetAttention(int bit, bool value) =>
        Vcpu.ApicAttention = value ? Vcpu.ApicAttention | 1u << bit : Vcpu.ApicAttention & ~(1u << bit);

    /// <summary>kvm_lapic_set_vapic_addr: -EINVAL when the address is not in a memory slot; 0 turns it off.</summary>
    internal int SetVapicAddr(ulong address)
    {
        if (address != 0 && Vcpu.Vm.GfnToHvaCacheInit(_vapicCache, address, sizeof(uint)).IsError)
            return -EINVAL;
        SetAttention(KVM_APIC_CHECK_VAPIC, address != 0);
        VapicAddr = address;
        return 0;
    }

    /// <summary>kvm_lapic_sync_from_vapic: after an exit.</summary>
    public void SyncFromVapic()
    {
        if (Attention(KVM_APIC_PV_EOI_PENDING))
            SyncPvEoiFromGuest();
        uint data;
        if (Attention(KVM_APIC_CHECK_VAPIC) && Vcpu.Vm.ReadGuestCached(_vapicCache, &data, 0, sizeof(uint)).IsOk)
            SetTprRegister(data & 0xff);
    }

    /// <summary>kvm_lapic_sync_to_vapic: before an entry. TPR in bits 7:0, the class in service in 15:8, the highest request in 31:24.</summary>
    [KernelFunction("kvm_lapic_sync_to_vapic", File = "arch/x86/kvm/lapic.c")]
    public void SyncToVapic()
    {
        using var _ = FunctionTrace.Enter("kvm_lapic_sync_to_vapic");
        SyncPvEoiToGuest();
        if (!Attention(KVM_APIC_CHECK_VAPIC))
            return;
        uint tpr = GetReg(APIC_TASKPRI) & 0xff;
        uint irr = (uint)Math.Max(0, FindHighestIrr());
        uint isr = (uint)Math.Max(0, FindHighestIsr());
        uint data = tpr | ((isr & 0xf0) << 8) | (irr << 24);
        Vcpu.Vm.WriteGuestCached(_vapicCache, &data, 0, sizeof(uint));
    }

    // ---- paravirtual EOI: the guest clears a bit in its memory instead of writing EOI ----

    private bool PvEoiEnabled => (Vcpu.PvEoiMsrVal & KVM_MSR_ENABLED) != 0;

    private void SyncPvEoiFromGuest()
    {
        if (!PvEoiEnabled)
        {
            SetAttention(KVM_APIC_PV_EOI_PENDING, false);
            return;
        }

        if (TakePvEoi())
            return;
        int vector = SetEoi();
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_pv_eoi", $"apicid {Vcpu.VcpuId:x} vector {vector}");
    }

    /// <summary>pv_eoi_test_and_clr_pending: true when the guest has not ended the interrupt yet; the offer is withdrawn until the next entry.</summary>
    private bool TakePvEoi()
    {
        byte value;
        if (Vcpu.Vm.ReadGuestCached(Vcpu.PvEoiCache, &value, 0, 1).IsError)
            return false;
        value &= KVM_PV_EOI_ENABLED;
        byte zero = 0;
        if (value != 0 && Vcpu.Vm.WriteGuestCached(Vcpu.PvEoiCache, &zero, 0, 1).IsError)
            return false;
        SetAttention(KVM_APIC_PV_EOI_PENDING, false);
        return value != 0;
    }

    /// <summary>Only for the one interrupt in service, with none waiting and no IOAPIC to be told.</summary>
    private void SyncPvEoiToGuest()
    {
        if (!PvEoiEnabled || _irrPending || _highestIsrCache == -1 || Vcpu.IoapicHandles(_highestIsrCache))
            return;
        byte enabled = KVM_PV_EOI_ENABLED;
        if (Vcpu.Vm.WriteGuestCached(Vcpu.PvEoiCache, &enabled, 0, 1).IsOk)
            SetAttention(KVM_APIC_PV_EOI_PENDING, true);
    }
}

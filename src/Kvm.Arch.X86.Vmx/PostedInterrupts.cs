using Kvm.Abi;
using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Arch.X86.Vmx.VmxControls;

namespace Kvm.Arch.X86.Vmx;

/// <summary>Delivery of the local APIC's interrupts: posted to the processor with APICv, by a request and a kick without.</summary>
public sealed unsafe partial class KvmIntel
{
    private const uint piOn = 1;

    public bool HasSyncPirToIrr => EnableApicv;

    /// <summary>A target in the guest gets the notification vector, whose handling there takes PIR into IRR; one outside looks at PIR before it enters.</summary>
    [KernelFunction("kvm_vcpu_trigger_posted_interrupt", File = "arch/x86/kvm/vmx/vmx.c")]
    private void TriggerPostedInterrupt(VcpuVmx vmx)
    {
        if (Volatile.Read(ref vmx.Mode) == VcpuMode.IN_GUEST_MODE)
        {
            int cpu = Volatile.Read(ref vmx.Cpu);
            if (vmx.Vm.Module.GetRunningVcpu() != vmx && (uint)cpu < (uint)Host.Cpus.Count)
                Host.Cpus[cpu].SendVector(POSTED_INTR_VECTOR);
            return;
        }

        vmx.WakeUp();
    }

    /// <summary>False: not with APICv, the caller delivers. The bit in PIR comes before ON, ON before the look at the mode.</summary>
    [KernelFunction("vmx_deliver_posted_interrupt", File = "arch/x86/kvm/vmx/vmx.c")]
    private bool DeliverPostedInterrupt(VcpuVmx vmx, int vector)
    {
        if (!vmx.ApicvActive)
            return false;
        PostedInterruptDescriptor* pi = vmx.PiDesc;
        ulong bit = 1ul << (vector & 63);
        if ((Interlocked.Or(ref pi->Pir[vector >> 6], bit) & bit) != 0)
            return true;
        if ((Interlocked.Or(ref pi->Control, piOn) & piOn) != 0)
            return true;
        TriggerPostedInterrupt(vmx);
        return true;
    }

    [KernelFunction("vmx_deliver_interrupt", File = "arch/x86/kvm/vmx/vmx.c")]
    public void DeliverInterrupt(X86Vcpu vcpu, int deliveryMode, uint trigMode, int vector)
    {
        using var _ = FunctionTrace.Enter("vmx_deliver_interrupt");
        if (DeliverPostedInterrupt(ToVmx(vcpu), vector))
        {
            if (Tracepoints.Enabled)
                Tracepoints.Emit("kvm_apicv_accept_irq", $"apicid {vcpu.VcpuId:x} vec {vector} ({(deliveryMode == 0 ? "Fixed" : "LowPrio")}|{(trigMode != 0 ? "level" : "edge")})");
            return;
        }

        vcpu.Apic!.SetIrr(vector);
        vcpu.MakeRequest(KVM_REQ_EVENT);
        vcpu.Kick();
    }

    /// <summary>Posted interrupts into IRR, and the highest one to RVI; without active APICv a new one makes an event request instead.</summary>
    [KernelFunction("vmx_sync_pir_to_irr", File = "arch/x86/kvm/vmx/vmx.c")]
    public int SyncPirToIrr(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("vmx_sync_pir_to_irr");
        VcpuVmx vmx = ToVmx(vcpu);
        PostedInterruptDescriptor* pi = vmx.PiDesc;
        int maxIrr;
        bool posted = false;
        if ((Volatile.Read(ref pi->Control) & piOn) != 0)
        {
            // ON before PIR: what is posted after this sets ON again.
            Interlocked.And(ref pi->Control, ~piOn);
            posted = vcpu.Apic!.UpdateIrr((uint*)pi->Pir, out maxIrr);
        }
        else
        {
            maxIrr = vcpu.Apic!.LapicFindHighestIrr();
        }

        if (vmx.ApicvActive)
            SetRvi(vmx, maxIrr);
        else if (posted)
            vcpu.MakeRequest(KVM_REQ_EVENT);
        return maxIrr;
    }
}

using Kvm.Abi;
using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.Errnos;
using static Kvm.Arch.X86.X86Request;

namespace Kvm.Arch.X86;

/// <summary>The pair of 8259A interrupt controllers of a VM (struct kvm_pic). Everything is under its lock, which is dropped around acknowledgement notifiers.</summary>
/// <remarks>arch/x86/kvm/i8259.c; Intel 8259A data sheet.</remarks>
public sealed unsafe partial class KvmPic
{
    public const int PIC_NUM_PINS = 16;

    private readonly X86Vm _vm;
    private readonly RawSpinLock _lock = new();
    private readonly KvmPicChip[] _pics = [new(master: true), new(master: false)];
    private readonly ulong[] _irqStates = new ulong[PIC_NUM_PINS];
    private readonly PortDevice _devMaster, _devSlave, _devElcr;
    private bool _wakeupNeeded;
    private volatile bool _output;

    private KvmPic(X86Vm vm)
    {
        _vm = vm;
        _devMaster = new PortDevice(this);
        _devSlave = new PortDevice(this);
        _devElcr = new PortDevice(this);
    }

    /// <summary>The master's INTR pin.</summary>
    public bool Output => _output;

    /// <summary>SELECT_PIC.</summary>
    private static uint SelectPic(int irq) => irq < 8 ? (uint)KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE;

    /// <summary>-ENOMEM, -ENOSPC: nothing is left registered.</summary>
    [KernelFunction("kvm_pic_init", File = "arch/x86/kvm/i8259.c")]
    internal static KvmResult Init(X86Vm vm)
    {
        using var _ = FunctionTrace.Enter("kvm_pic_init");
        if (vm.Host.Faults.ShouldFail("kzalloc", "kvm_pic"))
            return -ENOMEM;
        var pic = new KvmPic(vm);
        using var slots = vm.SlotsLock.Enter();
        KvmResult r = vm.IoBusRegisterDev(KvmBus.Pio, 0x20, 2, pic._devMaster);
        if (r.IsError)
            return r;
        r = vm.IoBusRegisterDev(KvmBus.Pio, 0xa0, 2, pic._devSlave);
        if (r.IsError)
            goto fail_unreg_2;
        r = vm.IoBusRegisterDev(KvmBus.Pio, 0x4d0, 2, pic._devElcr);
        if (r.IsError)
            goto fail_unreg_1;
        vm.Pic = pic;
        return 0;

    fail_unreg_1:
        vm.IoBusUnregisterDev(KvmBus.Pio, pic._devSlave);
    fail_unreg_2:
        vm.IoBusUnregisterDev(KvmBus.Pio, pic._devMaster);
        return r;
    }

    [KernelFunction("kvm_pic_destroy", File = "arch/x86/kvm/i8259.c")]
    internal static void Destroy(X86Vm vm)
    {
        using var _ = FunctionTrace.Enter("kvm_pic_destroy");
        if (vm.Pic is not { } pic)
            return;
        using (vm.SlotsLock.Enter())
        {
            vm.IoBusUnregisterDev(KvmBus.Pio, pic._devMaster);
            vm.IoBusUnregisterDev(KvmBus.Pio, pic._devSlave);
            vm.IoBusUnregisterDev(KvmBus.Pio, pic._devElcr);
        }

        vm.Pic = null;
    }

    private void PicLock() => _lock.Lock();

    /// <summary>pic_unlock: the first vCPU whose APIC lets the 8259 through learns of a new request.</summary>
    [KernelFunction("pic_unlock", File = "arch/x86/kvm/i8259.c")]
    private void PicUnlock()
    {
        using var _ = FunctionTrace.Enter("pic_unlock");
        bool wakeup = _wakeupNeeded;
        _wakeupNeeded = false;
        _lock.Unlock();
        if (!wakeup)
            return;
        foreach (KvmVcpu v in _vm.Vcpus)
        {
            if (v is not X86Vcpu { Apic: { } apic } vcpu || !apic.AcceptPicIntr())
                continue;
            vcpu.MakeRequest(KVM_REQ_EVENT);
            vcpu.Kick();
            return;
        }
    }

    private void ClearIsr(KvmPicChip s, int irq)
    {
        s.State.isr &= (byte)~(1 << irq);
        if (!s.IsMaster)
            irq += 8;

        // Notifiers come back to this PIC; its state is up to date.
        PicUnlock();
        _vm.NotifyAckedIrq(SelectPic(irq), (uint)irq);
        PicLock();
    }

    /// <summary>pic_update_irq: the slave's request goes to input 2 of the master, the master's to its pin.</summary>
    [KernelFunction("pic_update_irq", File = "arch/x86/kvm/i8259.c")]
    private void UpdateIrqLocked()
    {
        using var _ = FunctionTrace.Enter("pic_update_irq");
        if (GetIrq(_pics[1]) >= 0)
        {
            _pics[0].SetIrq(2, true);
            _pics[0].SetIrq(2, false);
        }

        bool request = GetIrq(_pics[0]) >= 0;
        if (!_output)
            _wakeupNeeded = true;
        _output = request;
    }

    [KernelFunction("pic_get_irq", File = "arch/x86/kvm/i8259.c")]
    private static int GetIrq(KvmPicChip s)
    {
        FunctionTrace.Leaf("pic_get_irq");
        return s.GetIrq();
    }

    /// <summary>kvm_pic_set_irq: a source raises or lowers an input (0–7 master, 8–15 slave).</summary>
    [KernelFunction("kvm_pic_set_irq", File = "arch/x86/kvm/i8259.c")]
    public int SetIrq(int irq, int sourceId, bool level)
    {
        using var _ = FunctionTrace.Enter("kvm_pic_set_irq");
        PicLock();
        KvmPicChip s = _pics[irq >> 3];
        int ret = s.SetIrq(irq & 7, X86Vm.IrqLineState(ref _irqStates[irq], sourceId, level));
        UpdateIrqLocked();
        if (Tracepoints.Enabled)
        {
            byte mask = (byte)(1 << (irq & 7));
            Tracepoints.Emit("kvm_pic_set_irq", $"chip {irq >> 3} pin {irq & 7} ({((s.State.elcr & mask) != 0 ? "level" : "edge")}"
                + $"{((s.State.imr & mask) != 0 ? "|masked" : "")}){(ret == 0 ? " (coalesced)" : "")}");
        }

        PicUnlock();
        return ret;
    }

    /// <summary>kvm_pic_clear_all: a source lets go of all inputs; their requests stay.</summary>
    [KernelFunction("kvm_pic_clear_all", File = "arch/x86/kvm/i8259.c")]
    internal void ClearAll(int sourceId)
    {
        using var _ = FunctionTrace.Enter("kvm_pic_clear_all");
        PicLock();
        for (int i = 0; i < PIC_NUM_PINS; i++)
            _irqStates[i] &= ~(1ul << sourceId);
        PicUnlock();
    }

    private void Intack(KvmPicChip s, int irq)
    {
        byte mask = (byte)(1 << irq);
        s.State.isr |= mask;

        // A level request stays until its line falls.
        if ((s.State.elcr & mask) == 0)
            s.State.irr &= (byte)~mask;
        if (s.State.auto_eoi == 0)
            return;
        if (s.State.rotate_on_auto_eoi != 0)
            s.State.priority_add = (byte)((irq + 1) & 7);
        ClearIsr(s, irq);
    }

    /// <summary>kvm_pic_read_irq: the processor's acknowledge cycle; a request that has gone gives the spurious vector of input 7.</summary>
    [KernelFunction("kvm_pic_read_irq", File = "arch/x86/kvm/i8259.c")]
    public int ReadIrq()
    {
        using var _ = FunctionTrace.Enter("kvm_pic_read_irq");
        _output = false;
        PicLock();
        int vector;
        int irq = GetIrq(_pics[0]);
        if (irq < 0)
        {
            vector = _pics[0].State.irq_base + 7;
        }
        else
        {
            Intack(_pics[0], irq);
            vector = _pics[0].State.irq_base + irq;
            if (irq == 2)
            {
                int irq2 = GetIrq(_pics[1]);
                if (irq2 >= 0)
                    Intack(_pics[1], irq2);
                else
                    irq2 = 7;
                vector = _pics[1].State.irq_base + irq2;
            }
        }

        UpdateIrqLocked();
        PicUnlock();
        return vector;
    }

    // ---- userspace ----

    internal kvm_pic_state Get(int chip) => _pics[chip].State;

    internal void Set(int chip, in kvm_pic_state state)
    {
        using var held = _lock.Enter();
        _pics[chip].State = state;
    }

    /// <summary>kvm_pic_update_irq.</summary>
    internal void UpdateIrq()
    {
        PicLock();
        UpdateIrqLocked();
        PicUnlock();
    }
}

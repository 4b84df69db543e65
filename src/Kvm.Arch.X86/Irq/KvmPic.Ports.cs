using Kvm.Abi;
using Kvm.Core;
using static Kvm.Abi.Uapi;

namespace Kvm.Arch.X86;

/// <remarks>Ports 20h, 21h, A0h, A1h and the edge/level registers 4D0h, 4D1h.</remarks>
public sealed unsafe partial class KvmPic
{
    private sealed class PortDevice(KvmPic pic) : KvmIoDevice
    {
        public override KvmResult Read(KvmVcpu? vcpu, ulong address, int length, void* value) => pic.PortRead((uint)address, length, (byte*)value);

        public override KvmResult Write(KvmVcpu? vcpu, ulong address, int length, void* value) => pic.PortWrite((uint)address, length, *(byte*)value);
    }

    private void Unimplemented(string text) => _vm.Host.Log.Err($"kvm: pic: {text}");

    private KvmResult PortWrite(uint port, int length, byte value)
    {
        if (length != 1)
        {
            Unimplemented("non byte write");
            return 0;
        }

        switch (port)
        {
            case 0x20 or 0x21:
                PicLock();
                Write(_pics[0], port, value);
                PicUnlock();
                return 0;
            case 0xa0 or 0xa1:
                PicLock();
                Write(_pics[1], port, value);
                PicUnlock();
                return 0;
            case 0x4d0 or 0x4d1:
                PicLock();
                ref kvm_pic_state s = ref _pics[port & 1].State;
                s.elcr = (byte)(value & s.elcr_mask);
                PicUnlock();
                return 0;
            default:
                return Errno.EOPNOTSUPP;
        }
    }

    private KvmResult PortRead(uint port, int length, byte* value)
    {
        if (length != 1)
        {
            new Span<byte>(value, length).Clear();
            Unimplemented("non byte read");
            return 0;
        }

        switch (port)
        {
            case 0x20 or 0x21 or 0xa0 or 0xa1:
                PicLock();
                *value = Read(_pics[port >> 7], port);
                PicUnlock();
                return 0;
            case 0x4d0 or 0x4d1:
                *value = _pics[port & 1].State.elcr;
                return 0;
            default:
                return Errno.EOPNOTSUPP;
        }
    }

    // ---- writes ----

    private void Write(KvmPicChip s, uint port, byte value)
    {
        if ((port & 1) != 0)
            WriteData(s, value);
        else if ((value & 0x10) != 0)
            Icw1(s, value);
        else if ((value & 0x08) != 0)
            Ocw3(ref s.State, value);
        else
            Ocw2(s, value);
    }

    private void Icw1(KvmPicChip s, byte value)
    {
        s.State.init4 = (byte)(value & 1);
        if ((value & 2) != 0)
            Unimplemented("single mode not supported");
        if ((value & 8) != 0)
            Unimplemented("level sensitive irq not supported");
        Reset(s);
    }

    /// <summary>kvm_pic_reset: edge requests are lost; whoever waits for their acknowledgement gets it.</summary>
    private void Reset(KvmPicChip s)
    {
        byte edge = (byte)(s.State.irr & ~s.State.elcr);
        s.State.last_irr = 0;
        s.State.irr &= s.State.elcr;
        s.State.imr = 0;
        s.State.priority_add = 0;
        s.State.special_mask = 0;
        s.State.read_reg_select = 0;
        if (s.State.init4 == 0)
        {
            s.State.special_fully_nested_mode = 0;
            s.State.auto_eoi = 0;
        }

        s.State.init_state = 1;
        bool accepted = false;
        foreach (KvmVcpu v in _vm.Vcpus)
            accepted |= v is X86Vcpu { Apic: { } apic } && apic.AcceptPicIntr();
        for (int irq = 0; accepted && irq < PIC_NUM_PINS / 2; irq++)
        {
            if ((edge & (1 << irq)) != 0)
                ClearIsr(s, irq);
        }
    }

    private static void Ocw3(ref kvm_pic_state s, byte value)
    {
        if ((value & 0x04) != 0)
            s.poll = 1;
        if ((value & 0x02) != 0)
            s.read_reg_select = (byte)(value & 1);
        if ((value & 0x40) != 0)
            s.special_mask = (byte)((value >> 5) & 1);
    }

    private void Ocw2(KvmPicChip s, byte value)
    {
        int command = value >> 5;
        int irq = value & 7;
        switch (command)
        {
            case 0 or 4: // rotate in automatic EOI mode, off and on
                s.State.rotate_on_auto_eoi = (byte)(command >> 2);
                return;
            case 1 or 5: // non-specific EOI, with rotation
                int priority = s.Priority(s.State.isr);
                if (priority == 8)
                    return;
                irq = (priority + s.State.priority_add) & 7;
                if (command == 5)
                    s.State.priority_add = (byte)((irq + 1) & 7);
                ClearIsr(s, irq);
                break;
            case 3: // specific EOI
                ClearIsr(s, irq);
                break;
            case 6: // set priority
                s.State.priority_add = (byte)((value + 1) & 7);
                break;
            case 7: // specific EOI with rotation
                s.State.priority_add = (byte)((irq + 1) & 7);
                ClearIsr(s, irq);
                break;
            default:
                return;
        }

        UpdateIrqLocked();
    }

    private void WriteData(KvmPicChip s, byte value)
    {
        switch (s.State.init_state)
        {
            case 0: // OCW1
                int changed = s.State.imr ^ value;
                int first = s.IsMaster ? 0 : 8;
                s.State.imr = value;
                for (int irq = 0; irq < PIC_NUM_PINS / 2; irq++)
                {
                    if ((changed & (1 << irq)) != 0)
                        _vm.FireMaskNotifiers(SelectPic(irq + first), (uint)(irq + first), (value & (1 << irq)) != 0);
                }

                UpdateIrqLocked();
                break;
            case 1: // ICW2
                s.State.irq_base = (byte)(value & 0xf8);
                s.State.init_state = 2;
                break;
            case 2: // ICW3
                s.State.init_state = s.State.init4 != 0 ? (byte)3 : (byte)0;
                break;
            case 3: // ICW4
                s.State.special_fully_nested_mode = (byte)((value >> 4) & 1);
                s.State.auto_eoi = (byte)((value >> 1) & 1);
                s.State.init_state = 0;
                break;
        }
    }

    // ---- reads ----

    private byte Read(KvmPicChip s, uint port)
    {
        if (s.State.poll != 0)
        {
            byte polled = (byte)PollRead(s, port);
            s.State.poll = 0;
            return polled;
        }

        if ((port & 1) != 0)
            return s.State.imr;
        return s.State.read_reg_select != 0 ? s.State.isr : s.State.irr;
    }

    private int PollRead(KvmPicChip s, uint port)
    {
        int irq = GetIrq(s);
        if (irq < 0)
        {
            UpdateIrqLocked();
            return 7;
        }

        bool slave = port >> 7 != 0;
        if (slave)
        {
            _pics[0].State.isr &= unchecked((byte)~(1 << 2));
            _pics[0].State.irr &= unchecked((byte)~(1 << 2));
        }

        s.State.irr &= (byte)~(1 << irq);
        ClearIsr(s, irq);
        if (slave || irq != 2)
            UpdateIrqLocked();
        return irq;
    }
}

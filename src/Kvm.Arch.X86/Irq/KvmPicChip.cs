using Kvm.Abi;

namespace Kvm.Arch.X86;

/// <summary>One 8259A (struct kvm_kpic_state): its registers, and the rules of priority among its eight inputs.</summary>
internal sealed class KvmPicChip(bool master)
{
    /// <summary>What KVM_GET_IRQCHIP and KVM_SET_IRQCHIP carry.</summary>
    public kvm_pic_state State = new() { elcr_mask = master ? (byte)0xf8 : (byte)0xde };

    public bool IsMaster { get; } = master;

    /// <summary>pic_set_irq1: -1 the input is masked, 0 it was requested already, 1 otherwise.</summary>
    public int SetIrq(int irq, bool level)
    {
        byte mask = (byte)(1 << irq);
        int ret = 1;
        if ((State.elcr & mask) != 0)
        {
            if (level)
            {
                ret = (State.irr & mask) == 0 ? 1 : 0;
                State.irr |= mask;
                State.last_irr |= mask;
            }
            else
            {
                State.irr &= (byte)~mask;
                State.last_irr &= (byte)~mask;
            }
        }
        else if (level)
        {
            if ((State.last_irr & mask) == 0)
            {
                ret = (State.irr & mask) == 0 ? 1 : 0;
                State.irr |= mask;
            }

            State.last_irr |= mask;
        }
        else
        {
            State.last_irr &= (byte)~mask;
        }

        return (State.imr & mask) != 0 ? -1 : ret;
    }

    /// <summary>get_priority: 0 is the highest; 8 when the mask is empty.</summary>
    public int Priority(int mask)
    {
        if (mask == 0)
            return 8;
        int priority = 0;
        while ((mask & (1 << ((priority + State.priority_add) & 7))) == 0)
            priority++;
        return priority;
    }

    /// <summary>pic_get_irq: the input that wants service and may have it, or -1.</summary>
    public int GetIrq()
    {
        int priority = Priority(State.irr & ~State.imr);
        if (priority == 8)
            return -1;

        // Special fully nested: the slave's input does not block itself on the master.
        int inService = State.isr;
        if (State.special_fully_nested_mode != 0 && IsMaster)
            inService &= ~(1 << 2);
        return priority < Priority(inService) ? (priority + State.priority_add) & 7 : -1;
    }
}

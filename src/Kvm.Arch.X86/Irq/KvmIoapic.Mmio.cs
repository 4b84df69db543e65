using Kvm.Abi;
using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.ApicConst;
using Redirect = Kvm.Abi.kvm_ioapic_state.redirtbl_union;

namespace Kvm.Arch.X86;

/// <remarks>The guest's access: an index register and a window.</remarks>
public sealed unsafe partial class KvmIoapic
{
    private const uint IOAPIC_VERSION_ID = 0x11;
    private const int IOAPIC_REG_SELECT = 0x00, IOAPIC_REG_WINDOW = 0x10;
    private const uint IOAPIC_REG_APIC_ID = 0, IOAPIC_REG_VERSION = 1, IOAPIC_REG_ARB_ID = 2;

    private sealed class MmioDevice(KvmIoapic ioapic) : KvmIoDevice
    {
        public override KvmResult Read(KvmVcpu? vcpu, ulong address, int length, void* value) => ioapic.MmioRead(address, length, (byte*)value);

        public override KvmResult Write(KvmVcpu? vcpu, ulong address, int length, void* value) => ioapic.MmioWrite(address, length, (byte*)value);
    }

    private bool InRange(ulong address) => address >= _baseAddress && address < _baseAddress + IOAPIC_MEM_LENGTH;

    [KernelFunction("ioapic_mmio_read", File = "arch/x86/kvm/ioapic.c")]
    private KvmResult MmioRead(ulong address, int length, byte* value)
    {
        using var _ = FunctionTrace.Enter("ioapic_mmio_read");
        if (!InRange(address))
            return Errno.EOPNOTSUPP;
        ulong result;
        using (_lock.Enter())
        {
            result = (int)(address & 0xff) switch
            {
                IOAPIC_REG_SELECT => _ioregsel,
                IOAPIC_REG_WINDOW => ReadIndirect(),
                _ => 0,
            };
        }

        if (length is 1 or 2 or 4 or 8)
            new ReadOnlySpan<byte>(&result, length).CopyTo(new Span<byte>(value, length));
        else
            _vm.Host.Log.Warn($"ioapic: wrong length {length}");
        return 0;
    }

    private uint ReadIndirect()
    {
        switch (_ioregsel)
        {
            case IOAPIC_REG_VERSION:
                return ((IOAPIC_NUM_PINS - 1) << 16) | IOAPIC_VERSION_ID;
            case IOAPIC_REG_APIC_ID:
            case IOAPIC_REG_ARB_ID:
                return (_id & 0xf) << 24;
            default:
                uint index = (_ioregsel - 0x10) >> 1;
                ulong content = index < IOAPIC_NUM_PINS ? _redirtbl[index].bits : ~0ul;
                return (_ioregsel & 1) != 0 ? (uint)(content >> 32) : (uint)content;
        }
    }

    [KernelFunction("ioapic_mmio_write", File = "arch/x86/kvm/ioapic.c")]
    private KvmResult MmioWrite(ulong address, int length, byte* value)
    {
        using var _ = FunctionTrace.Enter("ioapic_mmio_write");
        if (!InRange(address))
            return Errno.EOPNOTSUPP;
        uint data;
        switch (length)
        {
            case 8 or 4:
                data = *(uint*)value;
                break;
            case 2:
                data = *(ushort*)value;
                break;
            case 1:
                data = *value;
                break;
            default:
                _vm.Host.Log.Warn($"ioapic: Unsupported size {length}");
                return 0;
        }

        using var held = _lock.Enter();
        switch ((int)(address & 0xff))
        {
            case IOAPIC_REG_SELECT:
                _ioregsel = data & 0xff;
                break;
            case IOAPIC_REG_WINDOW:
                WriteIndirect(data);
                break;
        }

        return 0;
    }

    private void WriteIndirect(uint value)
    {
        switch (_ioregsel)
        {
            case IOAPIC_REG_VERSION or IOAPIC_REG_ARB_ID:
                break;
            case IOAPIC_REG_APIC_ID:
                _id = (value >> 24) & 0xf;
                break;
            default:
                uint index = (_ioregsel - 0x10) >> 1;
                if (index < IOAPIC_NUM_PINS)
                    WriteRedirect((int)index, value);
                break;
        }
    }

    private void WriteRedirect(int pin, uint value)
    {
        ref Redirect e = ref _redirtbl[pin];
        Redirect old = e;
        e.bits = (_ioregsel & 1) != 0 ? (uint)e.bits | ((ulong)value << 32) : (e.bits & 0xffffffff00000000) | value;

        // Read-only bits. Remote IRR goes with the level mode: guests reset it that way.
        e.fields.remote_irr = e.fields.trig_mode == 0 ? (byte)0 : old.fields.remote_irr;
        e.fields.delivery_status = old.fields.delivery_status;
        if (old.fields.mask != e.fields.mask)
            _vm.FireMaskNotifiers(KVM_IRQCHIP_IOAPIC, (uint)pin, e.fields.mask != 0);
        if (e.fields.trig_mode != 0 && (_irr & (1u << pin)) != 0)
            Service(pin, false);
        if (e.fields.delivery_mode << 8 != APIC_DM_FIXED)
        {
            _vm.MakeScanIoapicRequest();
            return;
        }

        // Those who get it now, and those who got it before.
        Span<ulong> vcpus = stackalloc ulong[X86Const.KVM_MAX_VCPUS / 64];
        vcpus.Clear();
        var irq = new KvmLapicIrq
        {
            Vector = e.fields.vector,
            DestMode = DestMode(e.fields.dest_mode != 0),
            TrigMode = e.fields.trig_mode,
            DestId = e.fields.dest_id,
        };
        _vm.BitmapOrDestVcpus(in irq, vcpus);
        if (old.fields.dest_mode != e.fields.dest_mode || old.fields.dest_id != e.fields.dest_id)
        {
            irq.DestId = old.fields.dest_id;
            _vm.BitmapOrDestVcpus(in irq, vcpus);
        }

        _vm.MakeScanIoapicRequestMask(vcpus);
    }
}

using Kvm.Abi;
using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;

namespace Kvm.Arch.X86;

/// <remarks>Counters and the ports 40h–43h and 61h.</remarks>
public sealed unsafe partial class KvmPit
{
    // How a counter is read and written: one byte, or low byte first.
    private const byte RW_STATE_LSB = 1, RW_STATE_MSB = 2, RW_STATE_WORD0 = 3, RW_STATE_WORD1 = 4;

    private sealed class PitDevice(KvmPit pit) : KvmIoDevice
    {
        public override KvmResult Read(KvmVcpu? vcpu, ulong address, int length, void* value) => pit.PortRead(address, length, (byte*)value);

        public override KvmResult Write(KvmVcpu? vcpu, ulong address, int length, void* value) => pit.PortWrite(address, *(byte*)value);
    }

    private sealed class SpeakerDevice(KvmPit pit) : KvmIoDevice
    {
        public override KvmResult Read(KvmVcpu? vcpu, ulong address, int length, void* value) => pit.SpeakerRead(address, length, (byte*)value);

        public override KvmResult Write(KvmVcpu? vcpu, ulong address, int length, void* value) => pit.SpeakerWrite(address, *(byte*)value);
    }

    private long Now => _vm.Host.KtimeNs;

    private long Elapsed(int channel)
    {
        if (channel != 0)
            return Now - _channels.channels[channel].count_load_time;
        return _period == 0 ? 0 : _period - _timer.Remaining;
    }

    /// <summary>Ticks of the 1.193181 MHz clock since the counter was loaded.</summary>
    private long Ticks(int channel) => (long)MulDiv((ulong)Elapsed(channel), KVM_PIT_FREQ, NSEC_PER_SEC);

    private int GetCount(int channel)
    {
        ref kvm_pit_channel_state c = ref _channels.channels[channel];
        long d = Ticks(channel);
        return c.mode switch
        {
            0 or 1 or 4 or 5 => (int)(c.count - d) & 0xffff,
            3 => (int)(c.count - (2 * d % c.count)),
            _ => (int)(c.count - (d % c.count)),
        };
    }

    private bool GetOut(int channel)
    {
        ref kvm_pit_channel_state c = ref _channels.channels[channel];
        long d = Ticks(channel);
        return c.mode switch
        {
            1 => d < c.count,
            2 => d % c.count == 0 && d != 0,
            3 => d % c.count < (c.count + 1) >> 1,
            4 or 5 => d == c.count,
            _ => d >= c.count,
        };
    }

    private void SetGate(int channel, byte value)
    {
        ref kvm_pit_channel_state c = ref _channels.channels[channel];

        // Modes 1, 2, 3 and 5 begin anew on a rising edge.
        if (c.mode is 1 or 2 or 3 or 5 && c.gate < value)
            c.count_load_time = Now;
        c.gate = value;
    }

    /// <summary>pit_load_count: 0 stands for 65536.</summary>
    [KernelFunction("pit_load_count", File = "arch/x86/kvm/i8254.c")]
    private void LoadCount(int channel, uint value)
    {
        using var _ = FunctionTrace.Enter("pit_load_count");
        if (value == 0)
            value = 0x10000;
        ref kvm_pit_channel_state c = ref _channels.channels[channel];
        c.count = value;
        if (channel != 0)
        {
            c.count_load_time = Now;
            return;
        }

        switch (c.mode)
        {
            case 0 or 1 or 4:
                CreateTimer(value, false);
                break;
            case 2 or 3:
                CreateTimer(value, true);
                break;
            default:
                DestroyTimer();
                break;
        }
    }

    private void LatchCount(int channel)
    {
        ref kvm_pit_channel_state c = ref _channels.channels[channel];
        if (c.count_latched != 0)
            return;
        c.latched_count = (ushort)GetCount(channel);
        c.count_latched = c.rw_mode;
    }

    private void LatchStatus(int channel)
    {
        ref kvm_pit_channel_state c = ref _channels.channels[channel];
        if (c.status_latched != 0)
            return;
        c.status = (byte)((GetOut(channel) ? 0x80 : 0) | (c.rw_mode << 4) | (c.mode << 1) | c.bcd);
        c.status_latched = 1;
    }

    // ---- 40h–43h ----

    private static bool InRange(ulong port) => port is >= KVM_PIT_BASE_ADDRESS and < KVM_PIT_BASE_ADDRESS + KVM_PIT_MEM_LENGTH;

    private KvmResult PortWrite(ulong port, byte value)
    {
        if (!InRange(port))
            return Errno.EOPNOTSUPP;
        using var held = Lock.Enter();
        int channel = (int)port & 3;
        if (channel == 3)
            WriteControl(value);
        else
            WriteCount(channel, value);
        return 0;
    }

    private void WriteControl(byte value)
    {
        int channel = value >> 6;
        if (channel == 3)
        {
            ReadBack(value);
            return;
        }

        byte access = (byte)((value >> 4) & 3);
        if (access == 0)
        {
            LatchCount(channel);
            return;
        }

        ref kvm_pit_channel_state c = ref _channels.channels[channel];
        c.rw_mode = access;
        c.read_state = access;
        c.write_state = access;
        c.mode = (byte)((value >> 1) & 7);
        if (c.mode > 5)
            c.mode -= 4;
        c.bcd = (byte)(value & 1);
    }

    private void ReadBack(byte value)
    {
        for (int channel = 0; channel < 3; channel++)
        {
            if ((value & (2 << channel)) == 0)
                continue;
            if ((value & 0x20) == 0)
                LatchCount(channel);
            if ((value & 0x10) == 0)
                LatchStatus(channel);
        }
    }

    private void WriteCount(int channel, byte value)
    {
        ref kvm_pit_channel_state c = ref _channels.channels[channel];
        switch (c.write_state)
        {
            case RW_STATE_MSB:
                LoadCount(channel, (uint)value << 8);
                break;
            case RW_STATE_WORD0:
                c.write_latch = value;
                c.write_state = RW_STATE_WORD1;
                break;
            case RW_STATE_WORD1:
                LoadCount(channel, c.write_latch | ((uint)value << 8));
                c.write_state = RW_STATE_WORD0;
                break;
            default:
                LoadCount(channel, value);
                break;
        }
    }

    private KvmResult PortRead(ulong port, int length, byte* data)
    {
        if (!InRange(port))
            return Errno.EOPNOTSUPP;
        int channel = (int)port & 3;
        if (channel == 3)
            return 0;
        int value;
        using (Lock.Enter())
            value = ReadCounter(channel);
        length = Math.Min(length, sizeof(int));
        new ReadOnlySpan<byte>(&value, length).CopyTo(new Span<byte>(data, length));
        return 0;
    }

    private int ReadCounter(int channel)
    {
        ref kvm_pit_channel_state c = ref _channels.channels[channel];
        if (c.status_latched != 0)
        {
            c.status_latched = 0;
            return c.status;
        }

        if (c.count_latched != 0)
        {
            byte latched = c.count_latched;
            c.count_latched = latched == RW_STATE_WORD0 ? RW_STATE_MSB : (byte)0;
            return latched == RW_STATE_MSB ? c.latched_count >> 8 : c.latched_count & 0xff;
        }

        int count = GetCount(channel);
        switch (c.read_state)
        {
            case RW_STATE_MSB:
                return (count >> 8) & 0xff;
            case RW_STATE_WORD0:
                c.read_state = RW_STATE_WORD1;
                return count & 0xff;
            case RW_STATE_WORD1:
                c.read_state = RW_STATE_WORD0;
                return (count >> 8) & 0xff;
            default:
                return count & 0xff;
        }
    }

    // ---- 61h ----

    private KvmResult SpeakerWrite(ulong port, byte value)
    {
        if (port != KVM_SPEAKER_BASE_ADDRESS)
            return Errno.EOPNOTSUPP;
        using var held = Lock.Enter();
        if ((value & 2) != 0)
            _flags |= KVM_PIT_FLAGS_SPEAKER_DATA_ON;
        else
            _flags &= ~(uint)KVM_PIT_FLAGS_SPEAKER_DATA_ON;
        SetGate(2, (byte)(value & 1));
        return 0;
    }

    private KvmResult SpeakerRead(ulong port, int length, byte* data)
    {
        if (port != KVM_SPEAKER_BASE_ADDRESS)
            return Errno.EOPNOTSUPP;

        // The refresh bit toggles about every 15 µs.
        uint refresh = (uint)(Now >> 14) & 1;
        uint value;
        using (Lock.Enter())
        {
            value = ((_flags & KVM_PIT_FLAGS_SPEAKER_DATA_ON) != 0 ? 2u : 0) | _channels.channels[2].gate | (GetOut(2) ? 0x20u : 0) | (refresh << 4);
        }

        length = Math.Min(length, sizeof(uint));
        new ReadOnlySpan<byte>(&value, length).CopyTo(new Span<byte>(data, length));
        return 0;
    }
}

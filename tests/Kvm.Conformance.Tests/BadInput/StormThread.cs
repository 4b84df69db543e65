using System.Collections.Concurrent;
using System.Runtime.InteropServices;
using Kvm.Abi;
using Kvm.Core;
using static Kvm.Abi.Uapi;

namespace Kvm.Conformance.Tests.BadInput;

/// <summary>One thread of <see cref="IoctlStorm"/>.</summary>
internal sealed unsafe class StormThread(HostProcess process, StormDescriptors descriptors, int seed, ConcurrentDictionary<string, int> answers)
{
    /// <summary>SIGUSR1.</summary>
    public const int Signal = 10;

    private const int BufferSize = 0x10000;

    /// <summary>What reads a state, and what sets it.</summary>
    private static readonly (string Kind, uint Get, uint Set)[] s_pairs =
    [
        ("vcpu", KVM_GET_REGS, KVM_SET_REGS), ("vcpu", KVM_GET_SREGS, KVM_SET_SREGS), ("vcpu", KVM_GET_SREGS2, KVM_SET_SREGS2), ("vcpu", KVM_GET_FPU, KVM_SET_FPU),
        ("vcpu", KVM_GET_XSAVE, KVM_SET_XSAVE), ("vcpu", KVM_GET_XCRS, KVM_SET_XCRS), ("vcpu", KVM_GET_LAPIC, KVM_SET_LAPIC), ("vcpu", KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS),
        ("vcpu", KVM_GET_MP_STATE, KVM_SET_MP_STATE), ("vcpu", KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS), ("vcpu", KVM_GET_NESTED_STATE, KVM_SET_NESTED_STATE),
        ("vm", KVM_GET_CLOCK, KVM_SET_CLOCK), ("vm", KVM_GET_IRQCHIP, KVM_SET_IRQCHIP), ("vm", KVM_GET_PIT2, KVM_SET_PIT2), ("vm", KVM_GET_PIT, KVM_SET_PIT),
    ];

    private static readonly string[] s_kinds = ["system", "vm", "vm", "vcpu", "vcpu", "vcpu", "device", "eventfd"];

    private readonly Random _random = new(seed);
    private byte* _buffer;

    /// <summary>The call in progress, for the report of one that hangs.</summary>
    public string Doing { get; private set; } = "";

    public void Run(int calls)
    {
        // Behind the buffer there is nothing: a structure that runs over its end is -EFAULT.
        ulong memory = process.MapAnonymous(2 * BufferSize);
        process.Mprotect(memory + BufferSize, BufferSize, 0);
        _buffer = (byte*)memory;
        for (int i = 0; i < calls; i++)
        {
            new Span<byte>(_buffer, 0x3000).Clear();
            switch (_random.Next(20))
            {
                case 0: Make(); break;
                case 1: if (_random.Next(4) == 0) descriptors.CloseAny(_random); break;
                case < 6: Mutate(); break;
                case < 12: Sensible(); break;
                case < 14: Call("vcpu", Uapi.KVM_RUN, 0); break;
                default: Noise(); break;
            }
        }

        process.Munmap(memory, 2 * BufferSize);
    }

    private void Make()
    {
        if (descriptors.Full) descriptors.CloseAny(_random);
        switch (_random.Next(8))
        {
            case 0: descriptors.Add("system", process.Open("/dev/kvm")); break;
            case 1 or 2: descriptors.Add("vm", Call("system", KVM_CREATE_VM, 0)); break;
            case 3: descriptors.Add("eventfd", process.Eventfd((uint)_random.Next(2), 0x800)); break;
            case 4: descriptors.Add("device", Call("vm", KVM_GET_STATS_FD, 0)); break;
            default: descriptors.Add("vcpu", Call("vm", KVM_CREATE_VCPU, (ulong)_random.Next(6))); break;
        }
    }

    /// <summary>A state is read, a little of it changed, and set.</summary>
    private void Mutate()
    {
        (string kind, uint get, uint set) = s_pairs[_random.Next(s_pairs.Length)];
        if (get == KVM_GET_NESTED_STATE) ((kvm_nested_state*)_buffer)->size = 0x2000;
        Call(kind, get, (ulong)_buffer);
        int size = Math.Max(8, (int)(set >> 16 & 0x3fff));
        for (int n = _random.Next(4); n > 0; n--) _buffer[_random.Next(size)] ^= (byte)(1 << _random.Next(8));
        Call(kind, set, (ulong)_buffer);
    }

    /// <summary>Calls that a VMM makes, with arguments that may well be right.</summary>
    private void Sensible()
    {
        switch (_random.Next(16))
        {
            case 0 or 1: Slot(); break;
            case 2: Call("vm", KVM_CREATE_IRQCHIP, 0); break;
            case 3: Call("vm", KVM_CREATE_PIT2, (ulong)_buffer); break;
            case 4: Put(new kvm_irq_level { irq = (uint)_random.Next(26), level = (uint)_random.Next(2) }); Call("vm", KVM_IRQ_LINE, (ulong)_buffer); break;
            case 5: Put(new kvm_msi { address_lo = 0xfee00000 | (uint)_random.Next(8) << 12, data = (uint)_random.Next(0x800) }); Call("vm", KVM_SIGNAL_MSI, (ulong)_buffer); break;
            case 6: Put(new kvm_irqfd { fd = (uint)Eventfd(), gsi = (uint)_random.Next(26), flags = (uint)_random.Next(4), resamplefd = (uint)Eventfd() }); Call("vm", KVM_IRQFD, (ulong)_buffer); break;
            case 7: Put(new kvm_ioeventfd { fd = Eventfd(), addr = (ulong)_random.Next(0x400) << _random.Next(12), len = 1u << _random.Next(4), flags = (uint)_random.Next(16) }); Call("vm", KVM_IOEVENTFD, (ulong)_buffer); break;
            case 8: Put(new kvm_enable_cap { cap = (uint)_random.Next(230) }); *(ulong*)(_buffer + 8) = 1ul << _random.Next(14); Call(_random.Next(3) == 0 ? "vcpu" : "vm", KVM_ENABLE_CAP, (ulong)_buffer); break;
            case 9: Put(new kvm_coalesced_mmio_zone { addr = 0xd0000 + (ulong)_random.Next(4) * 0x1000, size = 0x1000, pio = (uint)_random.Next(2) }); Call("vm", _random.Next(2) == 0 ? KVM_REGISTER_COALESCED_MMIO : KVM_UNREGISTER_COALESCED_MMIO, (ulong)_buffer); break;
            case 10: Put(new kvm_interrupt { irq = (uint)_random.Next(260) }); Call("vcpu", KVM_INTERRUPT, (ulong)_buffer); break;
            case 11: Call("vcpu", _random.Next(2) == 0 ? KVM_NMI : KVM_SMI, 0); break;
            case 12: Cpuid(); break;
            case 13: Routing(); break;
            case 14: *(kvm_dirty_log*)_buffer = new kvm_dirty_log { slot = (uint)_random.Next(4), dirty_bitmap = (ulong)_buffer + 0x1000 }; Call("vm", KVM_GET_DIRTY_LOG, (ulong)_buffer); break;
            default: Put(new kvm_guest_debug { control = (uint)_random.Next(4) }); Call("vcpu", KVM_SET_GUEST_DEBUG, (ulong)_buffer); break;
        }
    }

    private void Slot()
    {
        ulong size = _random.Next(4) == 0 ? 0 : 0x1000ul << _random.Next(9), offset = (ulong)_random.Next((int)(StormDescriptors.RamSize / 2 / 0x1000)) * 0x1000;
        if (_random.Next(4) == 0) _random.NextBytes(new Span<byte>((byte*)(descriptors.Ram + offset), 0x1000)); // code, perhaps
        Put(new kvm_userspace_memory_region
        {
            slot = (uint)_random.Next(4) | (_random.Next(8) == 0 ? 1u << 16 : 0),
            flags = (uint)_random.Next(4),
            guest_phys_addr = _random.Next(3) == 0 ? 0xffff0000 : (ulong)_random.Next(32) * 0x1000,
            memory_size = size,
            userspace_addr = descriptors.Ram + offset,
        });
        Call("vm", KVM_SET_USER_MEMORY_REGION, (ulong)_buffer);
    }

    private void Cpuid()
    {
        ((kvm_cpuid2*)_buffer)->nent = 100;
        Call("system", KVM_GET_SUPPORTED_CPUID, (ulong)_buffer);
        if (_random.Next(2) == 0) _buffer[_random.Next(0x400)] ^= (byte)(1 << _random.Next(8));
        Call("vcpu", KVM_SET_CPUID2, (ulong)_buffer);
    }

    private void Routing()
    {
        int count = _random.Next(6);
        *(uint*)_buffer = (uint)count;
        var entries = (kvm_irq_routing_entry*)(_buffer + 8);
        for (int i = 0; i < count; i++)
        {
            entries[i] = new kvm_irq_routing_entry { gsi = (uint)_random.Next(26), type = (uint)_random.Next(6) };
            *(uint*)((byte*)&entries[i] + 16) = (uint)_random.Next(4);
            *(uint*)((byte*)&entries[i] + 20) = (uint)_random.Next(26);
        }

        Call("vm", KVM_SET_GSI_ROUTING, (ulong)_buffer);
    }

    /// <summary>Any number on anything, with an argument that nobody planned.</summary>
    private void Noise()
    {
        ApiRow row = ApiRow.All[_random.Next(ApiRow.All.Count)];
        // A mask may hold the signal off that calls a guest back; KVM_RUN has its own case. A wild pointer in a slot would make this program's own memory a guest's.
        if (row.Number is KVM_SET_SIGNAL_MASK or KVM_SET_USER_MEMORY_REGION or Uapi.KVM_RUN) return;
        string kind = _random.Next(8) == 0 ? s_kinds[_random.Next(s_kinds.Length)] : row.Kind;
        int size = Math.Max(8, Math.Min(row.Size, 0x1000));
        ulong argument = (ulong)_buffer;
        switch (_random.Next(6))
        {
            case 0: argument = (ulong)_random.Next(16); break;
            case 1: argument = 0x7fff_ffff_f000UL + (ulong)_random.Next(0x2000); break;
            case 2: argument = (ulong)_buffer + BufferSize - (ulong)_random.Next(size); break;
            case 3:
                // No pointers: a word is never an address that is mapped.
                for (int i = 0; i < size / 4; i++) ((uint*)_buffer)[i] = i % 2 == 0 ? (uint)_random.Next() : 0x8000_0000 | (uint)_random.Next();
                break;
            default:
                for (int n = _random.Next(6); n > 0; n--) ((uint*)_buffer)[_random.Next(size / 4)] = _random.Next(2) == 0 ? (uint)_random.Next(8) : 0x1000u << _random.Next(16);
                break;
        }

        KvmResult result = Call(kind, row.Number, argument);
        if (row.Number == KVM_CREATE_VM) descriptors.Add("vm", result);
        if (row.Number == KVM_CREATE_VCPU) descriptors.Add("vcpu", result);
        if (row.Number == KVM_CREATE_DEVICE && !result.IsError) descriptors.Add("device", (KvmResult)(int)((kvm_create_device*)_buffer)->fd);
    }

    private KvmResult Call(string kind, uint request, ulong argument)
    {
        int fd = descriptors.Any(_random, kind);
        Doing = $"{IoctlNames.Of(request)} on {kind} {fd} with {argument:x}";
        KvmResult result = process.Ioctl(fd, request, argument);
        result.Raw.Should().BeGreaterThanOrEqualTo(-4095, Doing);
        answers.AddOrUpdate(result.IsError ? result.Errno.ToString() : "ok", 1, static (_, n) => n + 1);
        Doing = "";
        return result;
    }

    private int Eventfd() => descriptors.Any(_random, _random.Next(8) == 0 ? "vm" : "eventfd");

    private void Put<T>(T value) where T : unmanaged => MemoryMarshal.Write(new Span<byte>(_buffer, sizeof(T)), in value);
}

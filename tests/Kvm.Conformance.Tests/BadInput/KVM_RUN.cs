using Kvm.Abi;
using Kvm.Core;
using static Kvm.Abi.Uapi;

namespace Kvm.Conformance.Tests.BadInput;

/// <summary>A guest cannot hurt its host: whatever it executes ends in an exit, and memory that goes away is an errno.</summary>
public unsafe class KVM_RUN
{
    private const ulong RamSize = 0x20000;

    /// <summary>Memory of a slot that is unmapped: KVM_RUN says -EFAULT, and the same guest goes on when the slot gets memory again.</summary>
    [Theory]
    [InlineData("intel")]
    [InlineData("amd")]
    public void Returns_EFAULT_when_a_slots_memory_goes_away(string vendor)
    {
        using var computer = new Computer(vendor);
        using var guest = new Guest(computer);
        guest.Code(0xe6, 0x10, 0xeb, 0xfc); // again: out 0x10, al; jmp again
        guest.Run().Should().Be(0);
        guest.Page->exit_reason.Should().Be(KVM_EXIT_IO);

        computer.Process.Munmap(guest.Ram, RamSize).Raw.Should().Be(0);
        guest.Run().Should().Be(-(long)Errno.EFAULT);
        guest.Run().Should().Be(-(long)Errno.EFAULT);
    }

    /// <summary>A slot of a vCPU's own pages: the guest writes to them; to a private mapping's copy when that is the slot.</summary>
    [Theory]
    [InlineData("intel", Fcntl.MAP_SHARED)]
    [InlineData("intel", Fcntl.MAP_PRIVATE)]
    [InlineData("amd", Fcntl.MAP_SHARED)]
    [InlineData("amd", Fcntl.MAP_PRIVATE)]
    public void Writes_to_a_slot_of_the_vCPUs_own_pages(string vendor, int sharing)
    {
        using var computer = new Computer(vendor);
        using (var guest = new Guest(computer))
        {
            byte* mapping = (byte*)guest.MapPages(sharing);
            guest.Slot(1, 0x30000, (ulong)mapping, 0x3000);
            guest.Code(0xb8, 0x00, 0x32, 0x8e, 0xd8, 0xc6, 0x06, 0x64, 0x00, 0x5a, 0xf4); // mov ax, 3200; mov ds, ax; mov byte [64], 5a; hlt
            guest.Run().Should().Be(0);
            guest.Page->exit_reason.Should().Be(KVM_EXIT_HLT);
            mapping[0x2064].Should().Be(0x5a);
            ((byte*)guest.Page)[0x2064].Should().Be((byte)(sharing == Fcntl.MAP_SHARED ? 0x5a : 0));
            guest.Slot(1, 0x30000, (ulong)mapping, 0);
            computer.Process.Munmap((ulong)mapping, 0x3000).Should().Be(KvmResult.Ok);
        }

        computer.ShouldHaveNoLeak();
    }

    [Theory]
    [InlineData("intel", 11)]
    [InlineData("amd", 12)]
    public void Random_code_in_real_mode_ends_in_exits(string vendor, int seed) => RandomGuests(vendor, seed, (_, _) => { });

    [Theory]
    [InlineData("intel", 21)]
    [InlineData("amd", 22)]
    public void Random_code_with_random_registers_ends_in_exits(string vendor, int seed) => RandomGuests(vendor, seed, (guest, random) =>
    {
        kvm_regs regs = default;
        random.NextBytes(new Span<byte>(&regs, sizeof(kvm_regs)));
        regs.rip = (ulong)random.Next((int)RamSize);
        regs.rflags = regs.rflags & 0x10ed7 | 2;
        guest.Set(KVM_SET_REGS, ref regs);
        // protected or paged mode with tables of noise: the kernel may refuse the combination, then the guest runs in real mode
        kvm_sregs sregs = guest.Get<kvm_sregs>(KVM_GET_SREGS);
        sregs.cr0 = 0x10 | (ulong)random.Next(2) | (random.Next(2) == 0 ? 0x8000_0001UL : 0);
        sregs.cr3 = (ulong)random.Next((int)RamSize) & ~0xfffUL;
        sregs.cr4 = random.Next(2) == 0 ? 0x20UL : 0;
        if (random.Next(2) == 0 && (sregs.cr0 >> 31) != 0)
        {
            sregs.cr4 |= 0x20;
            sregs.efer = 0x500;
            sregs.cs.l = 1;
        }
        guest.TrySet(KVM_SET_SREGS, ref sregs);
    });

    private static void RandomGuests(string vendor, int seed, Action<Guest, Random> prepare)
    {
        var random = new Random(seed);
        using var computer = new Computer(vendor);
        using var stop = new CancellationTokenSource();
        for (int i = 0; i < 60; i++)
        {
            using var guest = new Guest(computer);
            random.NextBytes(new Span<byte>((void*)guest.Ram, (int)RamSize));
            prepare(guest, random);
            guest.RunForAWhile(TimeSpan.FromMilliseconds(20), exits: 200);
        }

        computer.ShouldHaveNoLeak();
    }

    /// <summary>One vCPU in real mode at address 0x1000 of 128 KiB of RAM.</summary>
    private sealed class Guest : IDisposable
    {
        private const ulong Start = 0x1000;
        private readonly Computer _computer;
        private readonly int _kvm, _vm, _vcpu;
        private readonly ulong _runSize;

        public Guest(Computer computer)
        {
            _computer = computer;
            HostProcess p = computer.Process;
            _kvm = Fd(p.Open("/dev/kvm"));
            _vm = Fd(p.Ioctl(_kvm, KVM_CREATE_VM));
            _vcpu = Fd(p.Ioctl(_vm, KVM_CREATE_VCPU, 0));
            _runSize = (ulong)p.Ioctl(_kvm, KVM_GET_VCPU_MMAP_SIZE).Raw;
            Page = (kvm_run*)p.Mmap(_runSize, Fcntl.PROT_READ | Fcntl.PROT_WRITE, Fcntl.MAP_SHARED, _vcpu).Raw;
            Ram = p.MapAnonymous(RamSize);
            var region = new kvm_userspace_memory_region { memory_size = RamSize, userspace_addr = Ram };
            p.Ioctl(_vm, KVM_SET_USER_MEMORY_REGION, ref region).Raw.Should().Be(0);
            kvm_sregs sregs = Get<kvm_sregs>(KVM_GET_SREGS);
            sregs.cs.selector = 0;
            sregs.cs.@base = 0;
            Set(KVM_SET_SREGS, ref sregs);
            var regs = new kvm_regs { rip = Start, rflags = 2, rsp = 0x8000 };
            Set(KVM_SET_REGS, ref regs);
        }

        public kvm_run* Page { get; }

        public ulong Ram { get; }

        public void Code(params byte[] bytes) => bytes.CopyTo(new Span<byte>((void*)(Ram + Start), bytes.Length));

        public ulong MapPages(int sharing) => (ulong)_computer.Process.Mmap(_runSize, Fcntl.PROT_READ | Fcntl.PROT_WRITE, sharing, _vcpu).Raw;

        public void Slot(uint slot, ulong guestAddress, ulong address, ulong size)
        {
            var region = new kvm_userspace_memory_region { slot = slot, guest_phys_addr = guestAddress, memory_size = size, userspace_addr = address };
            _computer.Process.Ioctl(_vm, KVM_SET_USER_MEMORY_REGION, ref region).Raw.Should().Be(0);
        }

        public long Run() => _computer.Process.Ioctl(_vcpu, Uapi.KVM_RUN).Raw;

        /// <summary>Runs until an exit that a VMM would not continue from, an error, the count or the time.</summary>
        public void RunForAWhile(TimeSpan time, int exits)
        {
            HostTask runner = _computer.Process.Task;
            using var timer = new Timer(_ => { Volatile.Write(ref Page->immediate_exit, 1); runner.Send(10); }, null, time, time);
            for (int i = 0; i < exits; i++)
            {
                long result = Run();
                if (result < 0)
                {
                    (-result).Should().BeOneOf((long)Errno.EINTR, (long)Errno.EFAULT, (long)Errno.EINVAL, (long)Errno.EIO, (long)Errno.EAGAIN);
                    break;
                }

                Page->exit_reason.Should().BeLessThan(40u);
                if (Page->exit_reason is KVM_EXIT_SHUTDOWN or KVM_EXIT_INTERNAL_ERROR or KVM_EXIT_FAIL_ENTRY or KVM_EXIT_HLT)
                    break;
            }
        }

        public T Get<T>(uint request) where T : unmanaged
        {
            T value = default;
            _computer.Process.Ioctl(_vcpu, request, ref value).Raw.Should().Be(0);
            return value;
        }

        public void Set<T>(uint request, ref T value) where T : unmanaged => _computer.Process.Ioctl(_vcpu, request, ref value).Raw.Should().Be(0);

        public void TrySet<T>(uint request, ref T value) where T : unmanaged => _computer.Process.Ioctl(_vcpu, request, ref value);

        public void Dispose()
        {
            HostProcess p = _computer.Process;
            p.Munmap((ulong)Page, _runSize);
            p.Munmap(Ram, RamSize);
            p.Close(_vcpu);
            p.Close(_vm);
            p.Close(_kvm);
        }

        private static int Fd(KvmResult result)
        {
            result.Raw.Should().BeGreaterThanOrEqualTo(0);
            return (int)result.Raw;
        }
    }
}

using System.Reflection;
using System.Runtime.InteropServices;
using Kvm.Abi;
using Kvm.Core;
using static Kvm.Abi.Uapi;

namespace Kvm.Conformance.Tests.BadInput;

/// <summary>ioctl(2) on every kind of fd with arguments that nobody planned: an errno at most, and nothing is left behind.</summary>
public unsafe class Ioctl
{
    private const int Calls = 20_000;
    private const int ScratchSize = 0x10000;

    /// <summary>Every ioctl number that the header knows, for any fd.</summary>
    private static readonly uint[] Requests =
        [.. typeof(Uapi).GetFields(BindingFlags.Public | BindingFlags.Static)
            .Where(f => f.IsLiteral && f.Name.StartsWith("KVM_", StringComparison.Ordinal) && f.FieldType == typeof(uint))
            .Select(f => (uint)f.GetRawConstantValue()!)
            .Where(v => (v >> 8 & 0xff) == KVMIO && v > 0xffff - 0x5200)
            .Distinct()];

    [Theory]
    [InlineData("intel", 1)]
    [InlineData("amd", 2)]
    public void Random_arguments_give_an_errno_and_leave_nothing_behind(string vendor, int seed)
    {
        using var computer = new Computer(vendor);
        HostProcess process = computer.Process;
        var random = new Random(seed);
        // memory that the model does not know of; behind it there is nothing: a structure that runs over its end is -EFAULT
        byte* scratch = mmap(null, 2 * ScratchSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        mprotect(scratch + ScratchSize, ScratchSize, PROT_NONE).Should().Be(0);
        for (int session = 0; session < 40; session++)
            Session(process, random, scratch, Calls / 40);

        munmap(scratch, 2 * ScratchSize).Should().Be(0);
        computer.ShouldHaveNoLeak();
    }

    private static void Session(HostProcess process, Random random, byte* scratch, int calls)
    {
        int kvm = (int)process.Open("/dev/kvm").Raw;
        int vm = (int)process.Ioctl(kvm, KVM_CREATE_VM).Raw;
        int vcpu = (int)process.Ioctl(vm, KVM_CREATE_VCPU, 0).Raw;
        new[] { kvm, vm, vcpu }.Should().OnlyContain(fd => fd >= 0);
        ulong run = (ulong)process.Mmap((ulong)process.Ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE).Raw, Fcntl.PROT_READ | Fcntl.PROT_WRITE, Fcntl.MAP_SHARED, vcpu).Raw;
        var extra = new List<int>();
        for (int i = 0; i < calls; i++)
        {
            ((kvm_run*)run)->immediate_exit = 1; // a random guest may run for ever; those have a test of their own
            uint request = Requests[random.Next(Requests.Length)];
            int fd = random.Next(8) switch { 0 => kvm, 1 or 2 or 3 => vm, 7 => random.Next(-1, 12), _ => vcpu };
            ulong argument = Argument(random, scratch);
            long result = process.Ioctl(fd, request, argument).Raw;
            result.Should().BeGreaterThanOrEqualTo(-4095, "{0} on fd {1} with {2:x}", IoctlNames.Of(request), fd, argument);
            if (result > vcpu && request is KVM_CREATE_VM or KVM_CREATE_VCPU or KVM_GET_STATS_FD or KVM_CREATE_DEVICE)
                extra.Add((int)result);
        }

        process.Munmap(run, 3 * 4096);
        foreach (int fd in extra.Append(vcpu).Append(vm).Append(kvm).Distinct())
            process.Close(fd);
        for (int fd = 0; fd < 64; fd++)
            process.Close(fd); // eventfds, dups and VMs that a random argument made
    }

    [DllImport("libc")]
    private static extern byte* mmap(void* address, nuint length, int protection, int flags, int fd, nint offset);

    [DllImport("libc")]
    private static extern int mprotect(void* address, nuint length, int protection);

    [DllImport("libc")]
    private static extern int munmap(void* address, nuint length);

    /// <summary>Small numbers, wild pointers, misaligned and page-end pointers, and structures of noise or of zeros with noise in few fields.</summary>
    private static ulong Argument(Random random, byte* scratch)
    {
        switch (random.Next(10))
        {
            case 0: return (ulong)random.Next(16);
            case 1: return (ulong)random.NextInt64();
            case 2: return 0x7fff_ffff_f000UL + (ulong)random.Next(0x2000);
            case 3: return (ulong)scratch + ScratchSize - (ulong)random.Next(16);
            case 4 or 5:
                random.NextBytes(new Span<byte>(scratch, 4096));
                return (ulong)scratch;
            default:
                new Span<byte>(scratch, 4096).Clear();
                for (int n = random.Next(6); n > 0; n--)
                    *(uint*)(scratch + 4 * random.Next(24)) = random.Next(3) switch { 0 => (uint)random.Next(8), 1 => (uint)random.Next(), _ => 0x1000u << random.Next(16) };
                return (ulong)scratch;
        }
    }
}

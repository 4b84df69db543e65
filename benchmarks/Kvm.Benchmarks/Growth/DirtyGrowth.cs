using System.Runtime.InteropServices;
using Kvm.Abi;
using Kvm.Benchmarks.Api;
using Kvm.Client;
using static Kvm.Abi.Uapi;

namespace Kvm.Benchmarks.Growth;

/// <summary>The dirty log of one large slot, harvested: all pages clean, one in a hundred dirty, all dirty; and the dirty ring.</summary>
internal static unsafe partial class DirtyGrowth
{
    private const uint Piece = 64 << 20; // the guest stops after each, and the memory behind it is given back

    public static IEnumerable<GrowthRow> Measure(string vendor, GrowthSizes sizes)
    {
        string[] names = [.. sizes.Pages.Select(static n => n >= 1 << 18 ? $"{n >> 18} GiB" : $"{n >> 8} MiB")];
        var costs = new double[5][];
        for (int i = 0; i < costs.Length; i++) costs[i] = new double[sizes.Pages.Length];
        int rounds = Math.Min(3, sizes.Slices);
        for (int i = 0; i < sizes.Pages.Length; i++)
        {
            costs[0][i] = Bitmap(vendor, sizes.Pages[i], 1, rounds, out costs[2][i], out costs[3][i]);
            costs[1][i] = Bitmap(vendor, sizes.Pages[i], 100, rounds, out _, out _);
            costs[4][i] = Ring(vendor, sizes.Pages[i], rounds);
        }

        yield return new("all clean: get + clear", "linear", "us", names, costs[2]);
        yield return new("1 % dirty: get + clear", "linear", "us", names, costs[1]);
        yield return new("all dirty: get + clear", "linear", "us", names, costs[0]);
        yield return new("all dirty: the guest's write to a clean page", "flat", "ns", names, costs[3]);
        yield return new("dirty ring: a page harvested and reset", "flat", "ns", names, costs[4]);
    }

    /// <summary>Microseconds of KVM_GET_DIRTY_LOG and KVM_CLEAR_DIRTY_LOG after every <paramref name="each"/>th page was written.</summary>
    private static double Bitmap(string vendor, ulong pages, uint each, int rounds, out double clean, out double write)
    {
        using KvmSystem kvm = KvmSystem.Open(KvmBackend.ByName("model", vendor));
        using Vm vm = kvm.CreateVm();
        vm.EnableCap(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE);
        using GuestMemory ram = vm.MapMemory(0, 0, pages * 4096, (uint)KVM_MEM_LOG_DIRTY_PAGES);
        using Vcpu vcpu = Writer(vm, ram, each);
        var bitmap = new ulong[pages / 64];
        double harvest = clean = write = double.MaxValue;
        for (int round = 0; round <= rounds; round++)
        {
            double wrote = Cost.Once(() => Pass(vcpu, ram)) / (pages / each);
            double full = Harvest(), empty = Harvest();
            if (round == 0) continue; // pages are mapped, and code compiled
            (write, harvest, clean) = (Math.Min(write, wrote), Math.Min(harvest, full), Math.Min(clean, empty));
        }

        return harvest;

        double Harvest() => Cost.Once(() =>
        {
            vm.GetDirtyLog(0, bitmap);
            vm.ClearDirtyLog(0, 0, (uint)pages, bitmap);
        }) / 1000;
    }

    /// <summary>Nanoseconds a page: its entry read and marked, and KVM_RESET_DIRTY_RINGS.</summary>
    private static double Ring(string vendor, ulong pages, int rounds)
    {
        const uint entries = 65536;
        using KvmSystem kvm = KvmSystem.Open(KvmBackend.ByName("model", vendor));
        using Vm vm = kvm.CreateVm();
        vm.EnableCap(KVM_CAP_DIRTY_LOG_RING, entries * (ulong)sizeof(kvm_dirty_gfn));
        using GuestMemory ram = vm.MapMemory(0, 0, pages * 4096, (uint)KVM_MEM_LOG_DIRTY_PAGES);
        using Vcpu vcpu = Writer(vm, ram, 1);
        ulong bytes = entries * (ulong)sizeof(kvm_dirty_gfn);
        var ring = (kvm_dirty_gfn*)vm.Backend.Mmap(vcpu.Fd.Number, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, KVM_DIRTY_LOG_PAGE_OFFSET * 4096);
        uint next = 0;
        double least = double.MaxValue;
        for (int round = 0; round <= rounds; round++)
        {
            double cost = 0;
            long harvested = 0;
            for (bool end = false; !end;)
            {
                VcpuExit exit = vcpu.Run();
                if (exit.Reason == KVM_EXIT_IO)
                {
                    end = vcpu.RunPage.io.port == 0x81;
                    GiveBack(ram, vcpu);
                    if (!end) continue;
                }
                else if (exit.Reason != KVM_EXIT_DIRTY_RING_FULL)
                {
                    throw new InvalidOperationException($"exit {exit.Reason}");
                }

                cost += Cost.Once(() =>
                {
                    for (; (Volatile.Read(ref ring[next % entries].flags) & KVM_DIRTY_GFN_F_DIRTY) != 0; next++, harvested++)
                        Volatile.Write(ref ring[next % entries].flags, (uint)KVM_DIRTY_GFN_F_RESET);
                    vm.ResetDirtyRings();
                });
            }

            if (round > 0) least = Math.Min(least, cost / harvested);
        }

        vm.Backend.Munmap((ulong)ring, bytes);
        return least;
    }

    /// <summary>A vCPU in flat 32-bit mode; its code is the last page of the memory.</summary>
    private static Vcpu Writer(Vm vm, GuestMemory ram, uint each)
    {
        const ulong end = 1UL << 32;
        uint stride = each * 4096;

        ulong code = Math.Min(ram.Size, end) - 4096;
        byte[] program = Programs.WriteLoop(code, code, stride, Piece);
        program.CopyTo(ram.At(code, program.Length));
        Vcpu vcpu = vm.CreateVcpu(0);
        kvm_sregs s = vcpu.SRegs;
        s.cr0 = 0x11;
        s.cs = new kvm_segment { limit = uint.MaxValue, selector = 8, type = 11, present = 1, db = 1, s = 1, g = 1 };
        s.ds = s.es = s.ss = s.fs = s.gs = new kvm_segment { limit = uint.MaxValue, selector = 16, type = 3, present = 1, db = 1, s = 1, g = 1 };
        vcpu.SRegs = s;
        vcpu.Regs = new kvm_regs { rip = code, rflags = 2 };
        return vcpu;
    }

    private static void Pass(Vcpu vcpu, GuestMemory ram)
    {
        for (; ; )
        {
            VcpuExit exit = vcpu.Run();
            if (exit.Reason != KVM_EXIT_IO) throw new InvalidOperationException($"exit {exit.Reason}");
            GiveBack(ram, vcpu);
            if (vcpu.RunPage.io.port == 0x81) return;
        }
    }

    /// <summary>What the guest wrote is of no use: 4 GiB need not be there at once.</summary>
    private static void GiveBack(GuestMemory ram, Vcpu vcpu)
    {
        ulong at = vcpu.Regs.rdi & ~4095UL;
        ulong end = Math.Min(at, ram.Size - 4096), start = end > Piece ? end - Piece - 4096 : 0;
        if (end > start) _ = madvise(ram.Host + start, (nuint)(end - start), MADV_DONTNEED);
    }

    private const int MADV_DONTNEED = 4;

    [LibraryImport("libc")]
    private static partial int madvise(void* address, nuint length, int advice);
}

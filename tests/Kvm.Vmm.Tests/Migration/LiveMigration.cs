using Kvm.Abi;
using Kvm.Client;
using Kvm.Client.Tests.Soak;
using Kvm.Emulator;
using Kvm.Vmm.Migration;
using Xunit.Abstractions;

namespace Kvm.Vmm.Tests.Migration;

/// <summary>A busy guest goes from host to host, again and again, and nothing of it is lost.</summary>
public class LiveMigration(ITestOutputHelper output)
{
    private const int Vcpus = 4;

    [Theory]
    [InlineData("intel", "", 100)]
    [InlineData("amd", "", 100)]
    [InlineData("intel", "enable_apicv=0", 25)]
    [InlineData("intel", "ept=0", 25)]
    [InlineData("intel", "preemption_timer=0", 25)]
    [InlineData("amd", "npt=0", 25)]
    public void Of_a_busy_guest_loses_nothing(string vendor, string parameters, int times) => Migrate(vendor, parameters, times, seed: null);

    /// <summary>The same while the scheduler takes every vCPU to another processor at every exit.</summary>
    [Theory]
    [InlineData("intel", "", 11)]
    [InlineData("intel", "enable_apicv=0", 12)]
    [InlineData("intel", "ept=0", 13)]
    [InlineData("amd", "", 14)]
    [InlineData("amd", "npt=0", 15)]
    public void Of_a_busy_guest_on_a_host_that_preempts_at_every_exit_loses_nothing(string vendor, string parameters, ulong seed) => Migrate(vendor, parameters, 10, seed);

    private void Migrate(string vendor, string parameters, int times, ulong? seed)
    {
        var random = new Random(4711);
        IKvmBackend[] hosts = [Host(vendor, parameters, seed), Host(vendor, parameters, seed + 100)];
        using KvmSystem first = KvmSystem.Open(hosts[0]), second = KvmSystem.Open(hosts[1]); // they stay switched on
        var vm = new SmpVm(hosts[0], Vcpus);
        int live = 0, dirty = 0;
        try
        {
            vm.Run.Start();
            for (int i = 1; i <= times; i++)
            {
                Thread.Sleep(random.Next(4));
                using var wire = new MemoryStream();
                if (random.Next(2) == 0)
                {
                    live++;
                    dirty += SendRunning(vm, wire, random);
                }
                else
                {
                    SendStopped(vm, wire);
                }

                vm.Dispose();
                vm = Receive(hosts[i & 1], wire);
                vm.Run.Start();
            }

            vm.Run.Watch(() => Enumerable.Range(0, Vcpus).All(i => vm.Guest.RoundsOf(vm.Memory.Span, i) >= 20));
            SmpFigures figures = vm.Run.Finish(restored: true);
            output.WriteLine($"{vendor} {parameters}: {times} migrations, {live} of them with memory first ({dirty} dirty pages): {figures}, lost 0");
            live.Should().BeInRange(1, times - 1);
            figures.Timers.Should().BePositive();
        }
        finally
        {
            vm.Dispose();
        }
    }

    private static IKvmBackend Host(string vendor, string parameters, ulong? seed) => KvmBackend.Model(options =>
    {
        options.Vendor = vendor == "intel" ? CpuVendor.Intel : CpuVendor.Amd;
        options.Processors = Vcpus;
        options.PreemptionSeed = seed;
        foreach (string[] p in parameters.Split(' ', StringSplitOptions.RemoveEmptyEntries).Select(static p => p.Split('='))) options.ModuleParameters[p[0]] = p[1];
    });

    private static void SendStopped(SmpVm vm, Stream wire)
    {
        vm.Run.Pause();
        VmState state = VmState.Save(vm.System, vm.Vm, vm.Vcpus);
        using var writer = new StateWriter(wire, state.Vendor);
        MemoryState.Write(writer, vm.Memory);
        state.Write(writer);
        writer.Finish();
    }

    /// <summary>All memory while the guest runs, then twice what it has written meanwhile, and the rest when it has stopped.</summary>
    private static int SendRunning(SmpVm vm, Stream wire, Random random)
    {
        using var writer = new StateWriter(wire, VmState.VendorOf(vm.System));
        vm.Memory.Protect((uint)Uapi.KVM_MEM_LOG_DIRTY_PAGES);
        MemoryState.Write(writer, vm.Memory);
        int dirty = 0;
        for (int round = 0; round < 2; round++)
        {
            Thread.Sleep(random.Next(3));
            dirty += MemoryState.WriteDirty(writer, vm.Memory, vm.Memory.GetDirtyLog());
        }

        vm.Run.Pause();
        // The state first: to save it may write memory (the guest's clock pages).
        VmState state = VmState.Save(vm.System, vm.Vm, vm.Vcpus);
        dirty += MemoryState.WriteDirty(writer, vm.Memory, vm.Memory.GetDirtyLog());
        state.Write(writer);
        writer.Finish();
        return dirty;
    }

    private static SmpVm Receive(IKvmBackend host, MemoryStream wire)
    {
        SmpVm vm = SmpVm.Empty(host, Vcpus);
        wire.Position = 0;
        using var reader = new StateReader(wire, "the wire");
        VmState state = VmState.Read(reader, r => MemoryState.Take(r, [vm.Memory]));
        state.Restore(vm.System, vm.Vm, vm.Vcpus);
        StateComparison.Differences(state, VmState.Save(vm.System, vm.Vm, vm.Vcpus)).Should().BeEmpty();
        return vm;
    }
}

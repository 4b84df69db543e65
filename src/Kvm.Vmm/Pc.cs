using Kvm.Abi;
using Kvm.Client;
using Kvm.Vmm.Boot;
using Kvm.Vmm.Bus;
using Kvm.Vmm.Devices;
using static Kvm.Abi.Uapi;

namespace Kvm.Vmm;

/// <summary>
/// A small PC with one processor: RAM, COM1, clock, keyboard controller, reset ports, debug ports, an empty PCI bus; interrupt controllers and timer where the
/// kernel has none.
/// </summary>
public sealed class Pc : IDisposable
{
    /// <summary>Where Intel hosts without unrestricted guest may put four pages of their own: below the BIOS at the top of 4 GiB.</summary>
    private const ulong KvmPages = 0xfffb_c000;

    private const ulong LeastMemory = 1 << 20, PageSize = 4096;
    private const int TimerLine = 0;

    private readonly Serial16550 _serial;
    private readonly Pic8259? _pic;
    private readonly Pit8254? _pit;

    /// <param name="kvm">Where the VM is made; stays the caller's.</param>
    /// <param name="options">What it is made of.</param>
    /// <exception cref="ArgumentOutOfRangeException">The memory is less than 1 MiB or not whole pages.</exception>
    /// <exception cref="KvmException">The VM could not be made.</exception>
    public Pc(KvmSystem kvm, PcOptions options)
    {
        ArgumentNullException.ThrowIfNull(kvm);
        ArgumentNullException.ThrowIfNull(options);
        if (options.Memory < LeastMemory || options.Memory % PageSize != 0)
            throw new ArgumentOutOfRangeException(nameof(options), options.Memory, "PcOptions.Memory: a PC has at least 1 MiB, in whole pages of 4 KiB");
        Stop = new StopSignal();
        Vm = kvm.CreateVm();
        try
        {
            Vm.SetIdentityMapAddr(KvmPages);
            Vm.SetTssAddr(KvmPages + 0x1000);
            HasIrqchip = options.Irqchip ?? (Vm.CheckExtension(KVM_CAP_IRQCHIP) > 0 && Vm.CheckExtension(KVM_CAP_PIT2) > 0);
            if (HasIrqchip)
            {
                Vm.CreateIrqchip();
                Vm.CreatePit2();
            }

            Ram = new GuestRam(Vm, options.Memory);
            Vcpu = Vm.CreateVcpu(0);
            GuestCpuid.Apply(kvm, Vcpu, HasIrqchip);
        }
        catch
        {
            Dispose();
            throw;
        }

        Loop = new VcpuLoop(Vcpu, Ports, Mmio, Stop);
        if (!HasIrqchip)
        {
            _pic = new Pic8259();
            _pit = new Pit8254(options.Time, level => _pic.SetLine(TimerLine, level));
            Loop.Interrupts = _pic;
        }

        _serial = new Serial16550(Serial16550.Com1, options.Output, options.Input,
            level => SetLine(Serial16550.Com1Gsi, level));
        AddDevices(options);
    }

    /// <summary>The VM, for ioctls that the PC does not make itself.</summary>
    public Vm Vm { get; }

    /// <summary>The only processor, id 0.</summary>
    public Vcpu Vcpu { get; }

    /// <summary>The guest's memory.</summary>
    public GuestRam Ram { get; }

    /// <summary>The I/O ports; more devices can be added before the guest runs.</summary>
    public PortBus Ports { get; } = new();

    /// <summary>Devices in guest-physical memory; more can be added before the guest runs.</summary>
    public MmioBus Mmio { get; } = new();

    /// <summary>Ends the guest, from any thread.</summary>
    public StopSignal Stop { get; }

    /// <summary>The vCPU's loop: counters, an observer.</summary>
    public VcpuLoop Loop { get; }

    /// <summary>Interrupt controllers and timer are the kernel's.</summary>
    public bool HasIrqchip { get; }

    /// <summary>Loads a Linux kernel. See <see cref="LinuxLoader"/>.</summary>
    public void LoadLinux(BzImage image, LinuxEntry entry, string commandLine, ReadOnlyMemory<byte> initrd = default) =>
        LinuxLoader.Load(Ram, Vcpu, image, entry, commandLine, initrd);

    /// <summary>Loads a multiboot image. See <see cref="MultibootLoader"/>.</summary>
    public void LoadMultiboot(ReadOnlyMemory<byte> image, string commandLine, ReadOnlyMemory<byte> module = default) =>
        MultibootLoader.Load(Ram, Vcpu, image, commandLine, module);

    /// <summary>Runs the guest on the calling thread until it ends, or is interrupted when the time is up.</summary>
    public GuestStop Run(TimeSpan? timeout = null)
    {
        using Timer? timer = timeout is { } limit
            ? new Timer(_ => Stop.Request(GuestStopReason.Interrupted, 0, $"stopped after {limit.TotalSeconds:0.###} s"), null, limit, Timeout.InfiniteTimeSpan)
            : null;
        return Loop.Run();
    }

    /// <summary>Tells COM1 that its input pipe has new bytes.</summary>
    public void PollInput() => _serial.Poll();

    /// <summary>Closes vCPU and VM, frees the RAM. Not while <see cref="Run"/> is running.</summary>
    public void Dispose()
    {
        _pit?.Dispose();
        Vcpu?.Dispose();
        Ram?.Dispose();
        Vm.Dispose();
    }

    /// <summary>Drives a GSI of whichever interrupt controller there is.</summary>
    private void SetLine(uint gsi, bool level)
    {
        if (_pic is null) Vm.IrqLine(gsi, level);
        else if (gsi < 16) _pic.SetLine((int)gsi, level);
    }

    private void AddDevices(PcOptions options)
    {
        Ports.Add(Serial16550.Com1, Serial16550.Ports, _serial);
        Ports.Add(DebugExit.Port, DebugExit.Ports, new DebugExit(Stop));
        if (options.DebugOutput is not null) Ports.Add(DebugConsole.Port, 1, new DebugConsole(options.DebugOutput));
        Ports.Add(CmosRtc.Port, CmosRtc.Ports, new CmosRtc(options.Time, Ram.LowSize));

        var keyboard = new I8042(Stop);
        Ports.Add(I8042.DataPort, 1, keyboard);
        Ports.Add(I8042.CommandPort, 1, keyboard);

        // 0xcf8 and 0xcf9 overlap: a dword at 0xcf8 is PCI's, a byte at 0xcf9 is the reset register's. Accesses are looked up by their first port.
        var pci = new PciConfig();
        Ports.Add(PciConfig.Address, 1, pci);
        Ports.Add(PciConfig.Data, 4, pci);

        var control = new SystemControl(Stop);
        Ports.Add(SystemControl.PortA, 1, control);
        Ports.Add(SystemControl.ResetControl, 1, control);

        Ports.Add(FwCfg.Port, FwCfg.Ports, new FwCfg(Ram.Size, cpus: 1));
        new TestDevice(SetLine).AddTo(Ports, Mmio);

        if (_pic is not null && _pit is not null)
        {
            Ports.Add(Pic8259.MasterPort, 2, _pic);
            Ports.Add(Pic8259.SlavePort, 2, _pic);
            Ports.Add(Pic8259.EdgeLevelPort, 2, _pic);
            Ports.Add(Pit8254.Port, Pit8254.Ports, _pit);
            Ports.Add(Pit8254.SpeakerPort, 1, _pit);
        }
    }
}

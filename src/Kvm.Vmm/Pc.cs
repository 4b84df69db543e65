using System.Runtime.ExceptionServices;
using System.Runtime.InteropServices;
using Kvm.Abi;
using Kvm.Client;
using Kvm.Vmm.Acpi;
using Kvm.Vmm.Boot;
using Kvm.Vmm.Bus;
using Kvm.Vmm.Devices;
using Kvm.Vmm.Pci;
using Kvm.Vmm.Virtio;
using static Kvm.Abi.Uapi;

namespace Kvm.Vmm;

/// <summary>
/// A small PC: processors, RAM, COM1, clock, keyboard controller, reset ports, debug ports, a PCI bus with host bridge, ISA bridge and power management;
/// interrupt controllers and timer where the kernel has none.
/// </summary>
public sealed partial class Pc : IDisposable
{
    /// <summary>Where Intel hosts without unrestricted guest may put four pages of their own: below the largest firmware.</summary>
    private const ulong KvmPages = GuestRam.HoleEnd - FirmwareImage.LargestSize - KvmPagesSize, KvmPagesSize = 0x4000;

    private const uint FirmwareSlot = 2, VariablesSlot = 3;

    private const ulong LeastMemory = 1 << 20, PageSize = 4096;
    private const int TimerLine = 0;

    // Virtio devices: on PCI from device 2 on; else a page each from 3 GiB on, on the I/O APIC's pins that PCs leave free, or on an ISA interrupt that does.
    private const int FirstPciDevice = 2, MostPciDevices = 32, MostMmioDevices = 8;
    private const uint MmioDevices = (uint)GuestRam.HoleStart, MmioDeviceStep = 0x1000, FirstFreePin = 16, FreeIsaInterrupt = 5;

    private readonly Serial16550 _serial;
    private readonly Pic8259? _pic;
    private readonly Pit8254? _pit;
    private readonly List<Vcpu> _vcpus = [];
    private readonly List<VcpuLoop> _loops = [];
    private readonly IsaBridge _isaBridge = new();
    private readonly PowerManagement _power;
    private readonly PciInterrupts _pciInterrupts;
    private readonly PciMemory _pciMemory = new();
    private readonly SortedDictionary<int, VirtioPci> _pciDevices = [];
    private readonly List<VirtioMmio> _mmioDevices = [];
    private readonly bool _hyperv;
    private GuestMemory? _firmware;
    private CfiFlash? _variables;

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
        if (options.Processors is < 1 or > PcOptions.MostProcessors)
            throw new ArgumentOutOfRangeException(nameof(options), options.Processors, $"PcOptions.Processors: 1 to {PcOptions.MostProcessors}");
        _hyperv = options.Hyperv;
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
                Vm.CreatePit2(KVM_PIT_SPEAKER_DUMMY); // port 0x61 too, by which guests measure their clocks
            }

            if (!HasIrqchip && options.Processors > 1)
                throw new ArgumentException("PcOptions.Processors: more than one processor needs the kernel's interrupt controllers", nameof(options));
            Ram = new GuestRam(Vm, options.Memory);
            for (uint id = 0; id < options.Processors; id++) AddProcessor(kvm, id, options);
        }
        catch
        {
            Dispose();
            throw;
        }

        foreach (Vcpu vcpu in _vcpus) _loops.Add(new VcpuLoop(vcpu, Ports, Mmio, Stop));
        if (!HasIrqchip)
        {
            _pic = new Pic8259();
            _pit = new Pit8254(options.Time, level => _pic.SetLine(TimerLine, level));
            Loop.Interrupts = _pic;
        }

        FwCfg = new FwCfg(Ram.Size, (ushort)options.Processors, Ram);
        _serial = new Serial16550(Serial16550.Com1, options.Output, options.Input,
            level => SetLine(Serial16550.Com1Gsi, level));
        _power = new PowerManagement(Ports, Stop, options.Time);
        _pciInterrupts = new PciInterrupts(_isaBridge, SetLine);
        AddDevices(options);
    }

    /// <summary>The VM, for ioctls that the PC does not make itself.</summary>
    public Vm Vm { get; }

    /// <summary>The processor that starts, id 0.</summary>
    public Vcpu Vcpu => _vcpus[0];

    /// <summary>All processors, by id.</summary>
    public IReadOnlyList<Vcpu> Vcpus => _vcpus;

    /// <summary>The guest's memory.</summary>
    public GuestRam Ram { get; }

    /// <summary>The I/O ports; more devices can be added before the guest runs.</summary>
    public PortBus Ports { get; } = new();

    /// <summary>Devices in guest-physical memory; more can be added before the guest runs.</summary>
    public MmioBus Mmio { get; } = new();

    /// <summary>Ends the guest, from any thread.</summary>
    public StopSignal Stop { get; }

    /// <summary>The first vCPU's loop.</summary>
    public VcpuLoop Loop => _loops[0];

    /// <summary>The vCPUs' loops, by id: counters, an observer.</summary>
    public IReadOnlyList<VcpuLoop> Loops => _loops;

    /// <summary>PCI bus 0; functions can be added before the guest runs.</summary>
    public PciConfig Pci { get; } = new();

    /// <summary>What firmware reads about the machine; files can be added before the guest runs.</summary>
    public FwCfg FwCfg { get; }

    /// <summary>Interrupt controllers and timer are the kernel's.</summary>
    public bool HasIrqchip { get; }

    /// <summary>Adds a virtio device, which the PC disposes of; before anything is loaded, because the tables tell of it.</summary>
    /// <exception cref="InvalidOperationException">There is no room for more.</exception>
    public void AddVirtio(VirtioDevice device, VirtioTransport transport = VirtioTransport.Pci)
    {
        ArgumentNullException.ThrowIfNull(device);
        if (transport == VirtioTransport.Mmio) AddMmioDevice(device);
        else AddPciDevice(device);
    }

    /// <summary>Loads a Linux kernel. See <see cref="LinuxLoader"/>.</summary>
    public void LoadLinux(BzImage image, LinuxEntry entry, string commandLine, ReadOnlyMemory<byte> initrd = default)
    {
        StandInForFirmware();
        LinuxLoader.Load(Ram, Vcpu, image, entry, commandLine, initrd);
    }

    /// <summary>Loads a multiboot image. See <see cref="MultibootLoader"/>.</summary>
    public void LoadMultiboot(ReadOnlyMemory<byte> image, string commandLine, ReadOnlyMemory<byte> module = default)
    {
        StandInForFirmware();
        MultibootLoader.Load(Ram, Vcpu, image, commandLine, module);
    }

    /// <summary>Loads an ELF kernel that has a PVH entry point. See <see cref="PvhLoader"/>.</summary>
    public void LoadPvh(ReadOnlyMemory<byte> image, string commandLine, ReadOnlyMemory<byte> initrd = default)
    {
        StandInForFirmware();
        PvhLoader.Load(Ram, Vcpu, image, commandLine, initrd, AcpiTables.RootPointer);
    }

    /// <summary>Puts firmware below 4 GiB, read-only, and a copy of its end below 1 MiB; the vCPU, as it comes out of reset, starts there.</summary>
    /// <param name="image">The firmware.</param>
    /// <param name="variables">The content of a flash right below the image, in which UEFI firmware keeps its variables; empty: no such flash.</param>
    /// <param name="writer">Keeps what the guest changes in that flash.</param>
    /// <exception cref="BootException">There is not enough RAM or address space, or the variables are no whole blocks.</exception>
    /// <returns>The flash; null without variables.</returns>
    /// <exception cref="KvmException">No read-only memory here.</exception>
    public CfiFlash? LoadFirmware(FirmwareImage image, ReadOnlyMemory<byte> variables = default, FlashWriter? writer = null)
    {
        ArgumentNullException.ThrowIfNull(image);
        if (variables.Length % CfiFlash.BlockSize != 0) throw new BootException($"the variables have {variables.Length} bytes, which is not a multiple of {CfiFlash.BlockSize}");
        if (image.Bytes.Length + (long)variables.Length > FirmwareImage.LargestSize)
            throw new BootException($"firmware and variables have more than {FirmwareImage.LargestSize >> 20} MiB");
        _firmware = Vm.MapMemory(FirmwareSlot, image.Address, (ulong)image.Bytes.Length, KVM_MEM_READONLY);
        image.Bytes.Span.CopyTo(_firmware.Span);
        Ram.Write(LeastMemory - (ulong)image.Legacy.Length, image.Legacy.Span);
        if (variables.Length > 0)
        {
            ulong at = image.Address - (ulong)variables.Length;
            _variables = new CfiFlash(Vm, VariablesSlot, at, variables.Span, writer);
            Mmio.Add(at, (ulong)variables.Length, _variables);
        }

        FwCfg.AddFile("etc/e820", FirmwareMap());
        return _variables;
    }

    /// <summary>Runs the guest until it ends, or is interrupted when the time is up: the first processor on the calling thread, each other one on its own.</summary>
    public GuestStop Run(TimeSpan? timeout = null)
    {
        using Timer? timer = timeout is { } limit
            ? new Timer(_ => Stop.Request(GuestStopReason.Interrupted, 0, $"stopped after {limit.TotalSeconds:0.###} s"), null, limit, Timeout.InfiniteTimeSpan)
            : null;
        ExceptionDispatchInfo? failure = null;
        var others = new Thread[_loops.Count - 1];
        for (int i = 0; i < others.Length; i++)
        {
            VcpuLoop loop = _loops[i + 1];
            others[i] = new Thread(() => RunOne(loop)) { Name = $"vcpu {i + 1}", IsBackground = true };
            others[i].Start();
        }

        RunOne(Loop);
        foreach (Thread thread in others) thread.Join();
        failure?.Throw();
        return Stop.Stop!;

        // What a device could not do, on whichever processor's thread, ends the guest and is the caller's to hear of.
        void RunOne(VcpuLoop loop)
        {
            try
            {
                loop.Run();
            }
            catch (Exception e)
            {
                Interlocked.CompareExchange(ref failure, ExceptionDispatchInfo.Capture(e), null);
                Stop.Request(GuestStopReason.HostFailed, 0, e.Message);
            }
        }
    }

    /// <summary>Tells COM1 that its input pipe has new bytes.</summary>
    public void PollInput() => _serial.Poll();

    /// <summary>Closes vCPU and VM, frees the RAM. Not while <see cref="Run"/> is running.</summary>
    public void Dispose()
    {
        // Their threads use the RAM.
        foreach (VirtioPci device in _pciDevices.Values) device.Dispose();
        foreach (VirtioMmio device in _mmioDevices) device.Dispose();
        _pit?.Dispose();
        _variables?.Dispose();
        _firmware?.Dispose();
        foreach (Vcpu vcpu in _vcpus) vcpu.Dispose();
        Ram?.Dispose();
        Vm.Dispose();
    }

    private void AddProcessor(KvmSystem kvm, uint id, PcOptions options)
    {
        Vcpu vcpu = Vm.CreateVcpu(id);
        _vcpus.Add(vcpu);
        GuestCpuid.Apply(kvm, vcpu, HasIrqchip, options.PhysicalBits, options.Hyperv, options.Processors);
        if (options.Hyperv) vcpu.EnableCap(KVM_CAP_HYPERV_SYNIC2);
    }

    /// <summary>What firmware does before it starts anything: power management's registers and PCI's interrupts get their places, and tables tell them.</summary>
    private void StandInForFirmware()
    {
        _power.PlaceAt(AcpiTables.PowerPorts);
        _isaBridge.RouteAll();
        var routes = new List<(int Device, int Pin, uint Gsi)>();
        foreach ((int number, VirtioPci device) in _pciDevices)
        {
            byte interrupt = IsaBridge.StandardRoutes[PciInterrupts.LineOf(number)];
            device.Place(_pciMemory);
            device.Write(PciFunction.InterruptLine, [interrupt]);
            routes.Add((number, 0, interrupt));
        }

        AcpiTables.Install(Ram, _vcpus.Count, HasIrqchip,
            [AcpiTables.Devices(routes), .. _mmioDevices.Select((_, i) => AcpiTables.VirtioMmioDevice(i, MmioAddress(i), VirtioMmio.Size, MmioGsi(i)))]);
    }

    /// <summary>The memory, RAM or firmware, at a guest-physical address. False: not all of it is memory.</summary>
    public bool TryMemory(ulong address, int length, out Span<byte> bytes)
    {
        if (Ram.TryAt(address, length, out bytes)) return true;
        bool firmware = _firmware is not null && _firmware.Contains(address, (ulong)length);
        if (firmware) bytes = _firmware!.At(address, length);
        return firmware;
    }

    private void AddPciDevice(VirtioDevice device)
    {
        int number = FirstPciDevice + _pciDevices.Count;
        if (number >= MostPciDevices) throw new InvalidOperationException($"PCI bus 0 has room for {MostPciDevices - FirstPciDevice} virtio devices");
        uint classCode = device.Type switch { 1 => 0x020000u, 2 => 0x010000u, 3 or 19 => 0x078000u, _ => 0x00ff00u };
        var function = new VirtioPci(device, Vm, Ram, Mmio, classCode, HasIrqchip, _pciInterrupts.Connect(number));
        _pciDevices.Add(number, function);
        Pci.Add(number, 0, function);
    }

    private void AddMmioDevice(VirtioDevice device)
    {
        int number = _mmioDevices.Count, most = HasIrqchip ? MostMmioDevices : 1;
        if (number >= most) throw new InvalidOperationException($"there is room for {most} virtio-mmio devices");
        var registers = new VirtioMmio(device, Vm, Ram, MmioAddress(number), level => SetLine(MmioGsi(number), level));
        _mmioDevices.Add(registers);
        Mmio.Add(MmioAddress(number), VirtioMmio.Size, registers);
    }

    private static uint MmioAddress(int number) => MmioDevices + (uint)number * MmioDeviceStep;

    private uint MmioGsi(int number) => HasIrqchip ? FirstFreePin + (uint)number : FreeIsaInterrupt;

    /// <summary>Drives a GSI of whichever interrupt controller there is.</summary>
    private void SetLine(uint gsi, bool level)
    {
        if (_pic is null) Vm.IrqLine(gsi, level);
        else if (gsi < 16) _pic.SetLine((int)gsi, level);
    }

    /// <summary>RAM, and what is not firmware's to give away.</summary>
    private byte[] FirmwareMap()
    {
        var map = new List<E820Entry> { new(0, Ram.LowSize, E820Type.Ram), new(KvmPages, KvmPagesSize, E820Type.Reserved) };
        if (Ram.HighSize > 0) map.Add(new(GuestRam.HoleEnd, Ram.HighSize, E820Type.Ram));
        return MemoryMarshal.AsBytes(map.ToArray().AsSpan()).ToArray();
    }

    private void AddDevices(PcOptions options)
    {
        Ports.Add(Serial16550.Com1, Serial16550.Ports, _serial);
        Ports.Add(DebugExit.Port, DebugExit.Ports, new DebugExit(Stop));
        if (options.DebugOutput is not null) Ports.Add(DebugConsole.Port, 1, new DebugConsole(options.DebugOutput));
        if (options.FirmwareOutput is not null) Ports.Add(DebugConsole.FirmwarePort, 1, new DebugConsole(options.FirmwareOutput));
        var clock = new CmosRtc(options.Time, Ram.LowSize);
        Ports.Add(CmosRtc.Port, CmosRtc.Ports, clock);

        var keyboard = new I8042(Stop, level => SetLine(I8042.KeyboardGsi, level));
        Ports.Add(I8042.DataPort, 1, keyboard);
        Ports.Add(I8042.CommandPort, 1, keyboard);

        // 0xcf8 and 0xcf9 overlap: a dword at 0xcf8 is PCI's, a byte at 0xcf9 is the reset register's. Accesses are looked up by their first port.
        Ports.Add(PciConfig.Address, 1, Pci);
        Ports.Add(PciConfig.Data, 4, Pci);
        Pci.Add(0, 0, new HostBridge());
        Pci.Add(1, 0, _isaBridge);
        Pci.Add(1, 3, _power);

        var control = new SystemControl(Stop);
        Ports.Add(SystemControl.PortA, 1, control);
        Ports.Add(SystemControl.ResetControl, 1, control);

        Ports.Add(FwCfg.Port, FwCfg.Ports, FwCfg);
        Ports.Add(FwCfg.DmaPort, FwCfg.DmaPorts, FwCfg);
        var test = new TestDevice(SetLine, Ram.TakePageAway);
        test.AddTo(Ports, Mmio);
        _saved.AddRange([_serial, clock, keyboard, Pci, control, FwCfg, test]);

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

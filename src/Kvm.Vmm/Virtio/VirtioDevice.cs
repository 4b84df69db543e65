using System.Buffers.Binary;
using Kvm.Client;
using Kvm.Vmm.Boot;

namespace Kvm.Vmm.Virtio;

/// <summary>
/// A virtio device, whatever transport it is behind: features, status, queues, and a thread that serves the queues when the driver rings.
/// </summary>
/// <remarks>
/// Virtio specification 1.2, "Basic Facilities of a Virtio Device". The registers are used by vCPU threads, the queues by the device's thread; both under
/// <see cref="Gate"/>. The doorbell is an eventfd: KVM signals it itself when the guest writes to a notification register.
/// </remarks>
public abstract class VirtioDevice : IDisposable
{
    /// <summary>VIRTIO_F_RING_INDIRECT_DESC, VIRTIO_F_RING_EVENT_IDX, VIRTIO_F_VERSION_1.</summary>
    private const ulong IndirectDescriptors = 1UL << 28, EventIndex = 1UL << 29, Version1 = 1UL << 32;

    private const byte Acknowledge = 1, Driver = 2, DriverOk = 4, FeaturesOk = 8, NeedsReset = 0x40, Failed = 0x80;

    private readonly ushort[] _queueSizes;
    private readonly string _name;
    private VirtioQueue[] _queues = [];
    private IVirtioInterrupts? _interrupts;
    private GuestRam? _ram;
    private EventFd? _doorbell;
    private Thread? _thread;
    private volatile bool _ending;

    /// <param name="type">The device type: 1 network, 2 block…</param>
    /// <param name="name">For the thread.</param>
    /// <param name="queueSizes">The queues' largest sizes, powers of two.</param>
    protected VirtioDevice(uint type, string name, params ushort[] queueSizes)
    {
        Type = type;
        _name = name;
        _queueSizes = queueSizes;
    }

    /// <summary>The device type.</summary>
    public uint Type { get; }

    /// <summary>What it offers beyond what all offer.</summary>
    protected abstract ulong DeviceFeatures { get; }

    /// <summary>Bytes of the device's own configuration.</summary>
    public virtual int ConfigSize => 0;

    /// <summary>Held by whoever uses registers or queues.</summary>
    protected Lock Gate { get; } = new();

    /// <summary>The guest's memory.</summary>
    protected GuestRam Ram => _ram!;

    /// <summary>The queues, by number.</summary>
    public IReadOnlyList<VirtioQueue> Queues => _queues;

    /// <summary>All that it offers.</summary>
    public ulong OfferedFeatures => DeviceFeatures | IndirectDescriptors | EventIndex | Version1;

    /// <summary>What the driver has accepted; only what was offered counts.</summary>
    public ulong AcceptedFeatures { get; private set; }

    /// <summary>The driver has set everything up.</summary>
    protected bool Running => (Status & (DriverOk | NeedsReset | Failed)) == DriverOk;

    /// <summary>The status register.</summary>
    internal byte Status { get; private set; }

    /// <summary>Changes with every change of the configuration.</summary>
    internal byte ConfigGeneration { get; private set; }

    internal EventFd Doorbell => _doorbell!;

    /// <summary>Gives the device its RAM, its doorbell and its way to interrupt.</summary>
    internal void Attach(GuestRam ram, IKvmBackend backend, IVirtioInterrupts interrupts)
    {
        if (_doorbell is not null) throw new InvalidOperationException("the device has a transport already");
        _ram = ram;
        _doorbell = new EventFd(backend);
        _interrupts = interrupts;
        _queues = [.. _queueSizes.Select((size, index) => new VirtioQueue(ram, index, size))];
    }

    /// <summary>Reads the device's configuration; beyond its end: zeroes.</summary>
    internal void ReadConfig(int offset, Span<byte> data)
    {
        Span<byte> whole = stackalloc byte[Math.Max(ConfigSize, 1)];
        whole.Clear();
        data.Clear();
        lock (Gate) FillConfig(whole);
        if (offset < ConfigSize) whole[offset..Math.Min(ConfigSize, offset + data.Length)].CopyTo(data);
    }

    /// <summary>The driver wrote to the configuration.</summary>
    internal void WriteConfig(int offset, ReadOnlySpan<byte> data)
    {
        lock (Gate)
        {
            if (offset + data.Length <= ConfigSize) OnConfigWritten(offset, data);
        }
    }

    /// <summary>One half of the accepted features.</summary>
    internal void AcceptFeatures(uint half, uint value)
    {
        lock (Gate)
        {
            if (half > 1 || (Status & FeaturesOk) != 0) return;
            int shift = (int)half * 32;
            AcceptedFeatures = (AcceptedFeatures & ~(0xffffffffUL << shift)) | (ulong)value << shift;
        }
    }

    /// <summary>The driver wrote the status register; 0 resets.</summary>
    internal void WriteStatus(byte value)
    {
        lock (Gate)
        {
            if (value == 0)
            {
                Reset();
                return;
            }

            // A driver that wants what is not offered, or no modern device, finds that FEATURES_OK does not stay.
            if ((value & FeaturesOk) != 0 && ((AcceptedFeatures & ~OfferedFeatures) != 0 || (AcceptedFeatures & Version1) == 0)) value &= unchecked((byte)~FeaturesOk);
            bool started = (value & ~Status & DriverOk) != 0;
            Status = (byte)(value | (Status & NeedsReset));
            if (!started) return;
            foreach (VirtioQueue queue in _queues)
            {
                queue.EventIndex = (AcceptedFeatures & EventIndex) != 0;
                queue.IndirectDescriptors = (AcceptedFeatures & IndirectDescriptors) != 0;
            }

            OnStarted();
        }

        if (_thread is null)
        {
            _thread = new Thread(Serve) { Name = _name, IsBackground = true };
            _thread.Start();
        }

        Doorbell.Signal(); // what came before DRIVER_OK
    }

    /// <summary>Ends the thread.</summary>
    public virtual void Dispose()
    {
        GC.SuppressFinalize(this);
        if (_doorbell is null) return;
        _ending = true;
        _doorbell.Signal();
        _thread?.Join();
        _doorbell.Dispose();
    }

    /// <summary>Runs under the gate whenever the driver, or <see cref="Wake"/>, has rung: takes from the queues what is there.</summary>
    protected abstract void Process();

    /// <summary>Fills the device's configuration; under the gate.</summary>
    protected virtual void FillConfig(Span<byte> config)
    {
    }

    /// <summary>The driver wrote to the configuration; under the gate.</summary>
    protected virtual void OnConfigWritten(int offset, ReadOnlySpan<byte> data)
    {
    }

    /// <summary>DRIVER_OK; under the gate.</summary>
    protected virtual void OnStarted()
    {
    }

    /// <summary>The driver reset the device; under the gate.</summary>
    protected virtual void OnReset()
    {
    }

    /// <summary>Makes the device's thread run <see cref="Process"/>, from any thread.</summary>
    protected void Wake()
    {
        if (!_ending) _doorbell?.Signal();
    }

    /// <summary>Tells the driver of buffers that were given back, if it wants to hear.</summary>
    protected void Interrupt(VirtioQueue queue)
    {
        if (queue.ShouldInterrupt()) _interrupts!.Used(queue);
    }

    /// <summary>The configuration changed; under the gate.</summary>
    protected void ConfigChanged()
    {
        ConfigGeneration++;
        if (Running) _interrupts!.ConfigurationChanged();
    }

    private void Reset()
    {
        Status = 0;
        AcceptedFeatures = 0;
        foreach (VirtioQueue queue in _queues) queue.Reset();
        OnReset();
    }

    private void Serve()
    {
        while (true)
        {
            Doorbell.Wait();
            if (_ending) return;
            lock (Gate)
            {
                if (!Running) continue;
                Process();
                if (_queues.Any(static q => q.Broken)) Break();
            }
        }
    }

    /// <summary>DEVICE_NEEDS_RESET: the driver put something into a queue that can't be.</summary>
    private void Break()
    {
        Status |= NeedsReset;
        _interrupts!.ConfigurationChanged();
    }
}

using Kvm.Abi;
using Kvm.Client;
using Kvm.Client.Backends;
using Kvm.Core.Tracing;
using Kvm.Emulator;
using static Kvm.Abi.Uapi;

namespace Kvm.Tool;

/// <summary>The embedded guest on one model, step by step, each step with the functions that the kernel went through.</summary>
internal sealed class TracedGuest : IDisposable
{
    private readonly ModelBackend _backend;
    private readonly KvmSystem _kvm;
    private Vm? _vm;
    private GuestMemory? _ram;
    private Vcpu? _vcpu;

    public TracedGuest(string cpu, int processors)
    {
        _backend = (ModelBackend)Backends.Create("model", cpu, processors);
        _kvm = Backends.Open(_backend);
        _ = _kvm.VcpuMmapSize; // so that it is not asked while a call is traced
    }

    /// <summary>For example <c>model, intel-skylake</c>.</summary>
    public string Name => _backend.Name;

    /// <summary>What the guest has printed.</summary>
    public string Output { get; private set; } = "";

    /// <summary>The path of KVM_CREATE_VM.</summary>
    public FunctionTraceSession CreateVm() => Trace(() => _vm = _kvm.CreateVm());

    /// <summary>The path of KVM_CREATE_VCPU, and of the mapping of its kvm_run page (see <see cref="IsIoctl"/>). Afterwards the vCPU is ready to run.</summary>
    public FunctionTraceSession CreateVcpu()
    {
        FunctionTraceSession path = Trace(() => _vcpu = _vm!.CreateVcpu(0));
        _ram = _vm!.MapMemory(0, DemoGuest.Start, 0x1000);
        DemoGuest.Assemble().CopyTo(_ram.Span);
        _vcpu!.SetCpuid(_kvm.GetSupportedCpuid());
        kvm_sregs sregs = _vcpu.SRegs;
        sregs.cs.@base = 0;
        sregs.cs.selector = 0;
        _vcpu.SRegs = sregs;
        _vcpu.Regs = new kvm_regs { rip = DemoGuest.Start, rsp = DemoGuest.Start + 0x1000, rflags = 2 };
        return path;
    }

    /// <summary>Runs the guest to its HLT.</summary>
    /// <returns>The path of the first KVM_RUN: entry, what the kernel handles itself, and the exit to userspace.</returns>
    public FunctionTraceSession Run()
    {
        FunctionTraceSession path = Trace(() => Serve(_vcpu!.Run()));
        while (Serve(_vcpu!.Run()))
        {
        }

        return path;
    }

    /// <summary>A root of the trace that belongs to an ioctl, not to the mmap of the vCPU's pages and the touching of them.</summary>
    public static bool IsIoctl(FunctionTraceNode root) => root.Name is not ("kvm_vcpu_mmap" or "kvm_vcpu_fault");

    public void Dispose()
    {
        _vcpu?.Dispose();
        _ram?.Dispose();
        _vm?.Dispose();
        _kvm.Dispose();
    }

    /// <summary>False at the guest's end.</summary>
    private bool Serve(VcpuExit exit)
    {
        switch (exit.Reason)
        {
            case KVM_EXIT_IO when exit.Io.IsOut:
                foreach (byte value in exit.Io.Data) Output += (char)value;
                return true;
            case KVM_EXIT_HLT:
                return false;
            default:
                throw new ToolException(ExitCode.GuestCrashed, $"{Name}: the embedded guest ended with {exit.ReasonName}");
        }
    }

    private FunctionTraceSession Trace(Action step)
    {
        using FunctionTraceSession session = FunctionTrace.Start(_backend.Host);
        step();
        return session;
    }
}

using System.Globalization;
using System.Text.Json;
using Kvm.Abi;
using Kvm.Client;
using Kvm.Conformance.Tests.Sessions;
using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;

namespace Kvm.Conformance.Tests.Events;

/// <summary>The recorded program on the model: one vCPU, the guest of <see cref="Real16Session"/>, exits answered as the program did.</summary>
internal sealed unsafe class GuestRun
{
    private readonly HostProcess _process;
    private readonly List<string> _events = [];
    private byte _next = 0x5a;

    public GuestRun(string vendor, string parameters)
    {
        // kvm_amd was recorded on an emulator without "next RIP saved": instructions are skipped by decoding them.
        var options = new ModelOptions();
        if (vendor == "amd") RecordedMachine.Amd(options);
        using var model = new ModelHost(vendor, vendor == "amd" ? options.Cpu : null);
        model.LoadKvm();
        model.LoadVendor(parameters).Should().Be((KvmResult)0);
        _process = model.Host.Process;
        TracepointHandler handler = (in TracepointRecord record) => Note(record, model.Host);
        Tracepoints.Event += handler;
        try
        {
            Run();
        }
        finally
        {
            Tracepoints.Event -= handler;
        }
    }

    /// <summary>Every event, as "name: text".</summary>
    public IReadOnlyList<string> Events => _events;

    /// <summary>What userspace sees at each exit, by the names of the recording.</summary>
    public List<Dictionary<string, string>> Exits { get; } = [];

    private void Note(in TracepointRecord record, Host host)
    {
        // Other tests run at the same time, on hosts of their own.
        if (record.Task?.Host != host) return;
        lock (_events) _events.Add($"{record.Name}: {record.Text}".TrimEnd());
    }

    private void Run()
    {
        int kvm = _process.Open("/dev/kvm").Value, vm = _process.Ioctl(kvm, KVM_CREATE_VM).Value;
        _process.Ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000);
        ulong identity = 0xfffbc000;
        _process.Ioctl(vm, KVM_SET_IDENTITY_MAP_ADDR, ref identity);
        const ulong size = 0x10000;
        ulong memory = _process.MapAnonymous(size), cpuid = _process.MapAnonymous(0x4000);
        Real16Session.Code.CopyTo(new Span<byte>((byte*)memory + 0x1000, 0x1000));
        "ABCD"u8.CopyTo(new Span<byte>((byte*)memory + 0x2000, 4));
        var region = new kvm_userspace_memory_region { memory_size = size, userspace_addr = memory };
        _process.Ioctl(vm, KVM_SET_USER_MEMORY_REGION, ref region).Should().Be((KvmResult)0);
        int vcpu = _process.Ioctl(vm, KVM_CREATE_VCPU, 0).Value;
        var run = (kvm_run*)_process.Mmap(0x3000, Fcntl.PROT_READ | Fcntl.PROT_WRITE, Fcntl.MAP_SHARED, vcpu).Raw;
        ((kvm_cpuid2*)cpuid)->nent = 256;
        _process.Ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid);
        _process.Ioctl(vcpu, KVM_SET_CPUID2, cpuid).Should().Be((KvmResult)0);
        kvm_sregs sregs = default;
        _process.Ioctl(vcpu, KVM_GET_SREGS, ref sregs);
        (sregs.cs.@base, sregs.cs.selector) = (0, 0);
        _process.Ioctl(vcpu, KVM_SET_SREGS, ref sregs);
        var regs = new kvm_regs { rip = 0x1000, rsp = 0x8000, rflags = 2 };
        _process.Ioctl(vcpu, KVM_SET_REGS, ref regs);
        do
        {
            KvmResult r = _process.Ioctl(vcpu, KVM_RUN);
            Exits.Add(Describe(r, vcpu, run));
            Answer(run);
        }
        while (run->exit_reason != KVM_EXIT_HLT && Exits.Count < 100);
        foreach (int fd in (int[])[vcpu, vm, kvm]) _process.Close(fd);
        _process.Munmap((ulong)run, 0x3000);
    }

    /// <summary>Whatever is read is the next few numbers.</summary>
    private void Answer(kvm_run* run)
    {
        if (run->exit_reason == KVM_EXIT_IO && run->io.direction == KVM_EXIT_IO_IN)
        {
            for (int i = 0; i < run->io.size * (int)run->io.count; i++)
                ((byte*)run)[run->io.data_offset + (ulong)i] = (byte)(_next + i);
            _next++;
        }
        else if (run->exit_reason == KVM_EXIT_MMIO && run->mmio.is_write == 0)
        {
            for (int i = 0; i < (int)run->mmio.len; i++)
                ((byte*)&run->mmio.data)[i] = (byte)(0xa0 + i);
        }
    }

    private Dictionary<string, string> Describe(KvmResult r, int vcpu, kvm_run* run)
    {
        kvm_regs regs = default;
        kvm_sregs sregs = default;
        _process.Ioctl(vcpu, KVM_GET_REGS, ref regs);
        _process.Ioctl(vcpu, KVM_GET_SREGS, ref sregs);
        var fields = new Dictionary<string, string>
        {
            ["ret"] = r.IsError ? "-1" : "0",
            ["errno"] = Number((ulong)r.Errno),
            ["exit_reason"] = Number(run->exit_reason),
            ["run.ready_for_interrupt_injection"] = Number(run->ready_for_interrupt_injection),
            ["run.if_flag"] = Number(run->if_flag),
            ["run.flags"] = Number(run->flags),
            ["run.cr8"] = Hex(run->cr8),
            ["run.apic_base"] = Hex(run->apic_base),
            ["rip"] = Hex(regs.rip),
            ["rflags"] = Hex(regs.rflags),
            ["rax"] = Hex(regs.rax),
            ["rbx"] = Hex(regs.rbx),
            ["rcx"] = Hex(regs.rcx),
            ["rdx"] = Hex(regs.rdx),
            ["rsi"] = Hex(regs.rsi),
            ["rdi"] = Hex(regs.rdi),
            ["rsp"] = Hex(regs.rsp),
            ["r13"] = Hex(regs.r13),
            ["r14"] = Hex(regs.r14),
            ["cr0"] = Hex(sregs.cr0),
            ["cr2"] = Hex(sregs.cr2),
            ["cr3"] = Hex(sregs.cr3),
            ["cr4"] = Hex(sregs.cr4),
            ["cr8"] = Hex(sregs.cr8),
            ["efer"] = Hex(sregs.efer),
            ["cs_base"] = Hex(sregs.cs.@base),
            ["ds_sel"] = Hex(sregs.ds.selector),
        };
        if (run->exit_reason == KVM_EXIT_IO)
        {
            fields["io.dir"] = run->io.direction == KVM_EXIT_IO_OUT ? "out" : "in";
            fields["io.size"] = Number(run->io.size);
            fields["io.port"] = Hex(run->io.port);
            fields["io.count"] = Number(run->io.count);
            fields["io.data_offset"] = Hex(run->io.data_offset);
            fields["io.data"] = Convert.ToHexStringLower(new ReadOnlySpan<byte>((byte*)run + run->io.data_offset, run->io.size * (int)run->io.count));
        }
        else if (run->exit_reason == KVM_EXIT_MMIO)
        {
            fields["mmio.phys"] = Hex(run->mmio.phys_addr);
            fields["mmio.len"] = Number(run->mmio.len);
            fields["mmio.is_write"] = Number(run->mmio.is_write);
            fields["mmio.data"] = Convert.ToHexStringLower(new ReadOnlySpan<byte>(&run->mmio.data, 8));
        }

        return fields;
    }

    /// <summary>The recording's object as the same flat names.</summary>
    public static Dictionary<string, string> Flatten(JsonElement exit, string prefix = "")
    {
        var fields = new Dictionary<string, string>();
        foreach (JsonProperty p in exit.EnumerateObject().Where(static p => p.Name != "n"))
        {
            if (p.Value.ValueKind == JsonValueKind.Object)
            {
                foreach ((string name, string value) in Flatten(p.Value, $"{prefix}{p.Name}.")) fields[name] = value;
            }
            else
            {
                fields[prefix + p.Name] = p.Value.ToString();
            }
        }

        return fields;
    }

    private static string Hex(ulong value) => $"0x{value:x}";

    private static string Number(ulong value) => value.ToString(CultureInfo.InvariantCulture);
}

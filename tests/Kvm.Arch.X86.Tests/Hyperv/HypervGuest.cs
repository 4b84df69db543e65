using Iced.Intel;
using Kvm.Abi;
using Kvm.Core;
using Kvm.Core.Tracing;
using static Iced.Intel.AssemblerRegisters;
using static Kvm.Abi.Uapi;

namespace Kvm.Arch.X86.Tests.Hyperv;

/// <summary>
/// A guest in 64-bit mode at privilege 0 whose CPUID has the Hyper-V leaves, with in-kernel interrupt controllers and enabled APICs. An interrupt or exception without a handler
/// ends in OUT to port 99 with its vector; programs end with <see cref="Done"/>.
/// </summary>
internal sealed unsafe class HypervGuest : IDisposable
{
    public const ulong Code = 0x10000, Handler = 0x18000, Data = 0x20000, MessagePage = 0x30000, HypercallPage = 0x31000, TscPage = 0x32000, AssistPage = 0x33000;
    public const ulong Stack = 0x60000;
    public const int Port = 0x98, UnexpectedPort = 0x99;
    private const ulong tables = 0x100000, gdt = 0x2000, idt = 0x3000, handlers = 0x4000;

    public HypervGuest(string vendor, int vcpus = 1, bool irqchip = true, string parameters = "", Func<kvm_cpuid_entry2, kvm_cpuid_entry2>? leaves = null, bool synic = true)
    {
        Host = new Guest(vendor, Math.Max(2, vcpus), true, parameters, irqchip: irqchip);
        Vcpus = new int[vcpus];
        Runs = new kvm_run*[vcpus];
        Vcpus[0] = Host.VcpuFd;
        Runs[0] = Host.Run;
        for (int i = 1; i < vcpus; i++)
        {
            Vcpus[i] = Host.CreateVcpu((uint)i, out kvm_run* run);
            Runs[i] = run;
        }

        WriteTables();
        for (int i = 0; i < vcpus; i++)
        {
            SetCpuid(i, leaves);
            SetUp(i);
            if (irqchip)
                EnableApic(i);
            if (irqchip && synic)
                EnableCap(KVM_CAP_HYPERV_SYNIC2, i).Raw.Should().Be(0);
        }
    }

    public Guest Host { get; }
    public int[] Vcpus { get; }
    public kvm_run*[] Runs { get; }
    public byte* Memory => Host.Memory;
    public X86Vcpu Vcpu(int i = 0) => (X86Vcpu)Host.Vm.Vcpus[i];

    /// <summary>KVM_EXIT_HYPERV of type SYNIC that <see cref="Run"/> went over.</summary>
    public List<(uint Msr, ulong Control, ulong Event, ulong Message)> SynicExits { get; } = [];

    public ulong At(ulong gpa) => *(ulong*)(Memory + gpa);

    // ---- set-up ----

    private void WriteTables()
    {
        var g = (ulong*)(Memory + gdt);
        g[1] = 0x00af9b000000ffff;
        g[2] = 0x00cf93000000ffff;
        for (uint v = 0; v < 256; v++)
        {
            // mov al, v; out 99, al
            new byte[] { 0xb0, (byte)v, 0xe6, UnexpectedPort }.CopyTo(new Span<byte>(Memory + handlers + (v * 4), 4));
            SetGate(v, handlers + (v * 4));
        }

        var pml4 = (ulong*)(Memory + tables);
        pml4[0] = tables + 0x1000 | 3;
        pml4[512] = tables + 0x2000 | 3;
        for (ulong i = 0; i < 512; i++)
            pml4[1024 + i] = i << 21 | 0x83;
    }

    public void SetGate(uint vector, ulong at)
    {
        *(ulong*)(Memory + idt + (vector * 16)) = (at & 0xffff) | (8ul << 16) | (0x8eul << 40) | ((at >> 16) << 48);
        *(ulong*)(Memory + idt + (vector * 16) + 8) = 0;
    }

    public static kvm_cpuid_entry2[] SupportedHv(Guest host, int fd)
    {
        byte* buffer = stackalloc byte[8 + (10 * sizeof(kvm_cpuid_entry2))];
        ((kvm_cpuid2*)buffer)->nent = 10;
        Guest.Ok(host.Process.Ioctl(fd, KVM_GET_SUPPORTED_HV_CPUID, (ulong)buffer));
        return new Span<kvm_cpuid_entry2>(buffer + 8, 10).ToArray();
    }

    private void SetCpuid(int vcpu, Func<kvm_cpuid_entry2, kvm_cpuid_entry2>? leaves)
    {
        byte* buffer = stackalloc byte[8 + (120 * sizeof(kvm_cpuid_entry2))];
        ((kvm_cpuid2*)buffer)->nent = 100;
        Guest.Ok(Host.Process.Ioctl(Host.KvmFd, KVM_GET_SUPPORTED_CPUID, (ulong)buffer));
        List<kvm_cpuid_entry2> entries = [.. new Span<kvm_cpuid_entry2>(buffer + 8, (int)((kvm_cpuid2*)buffer)->nent).ToArray().Where(static e => e.function >> 28 != 4)];
        entries.AddRange(SupportedHv(Host, Vcpus[vcpu]).Select(e => leaves is null ? e : leaves(e)));
        ((kvm_cpuid2*)buffer)->nent = (uint)entries.Count;
        entries.ToArray().CopyTo(new Span<kvm_cpuid_entry2>(buffer + 8, 120));
        Guest.Ok(Host.Process.Ioctl(Vcpus[vcpu], KVM_SET_CPUID2, (ulong)buffer));
    }

    private void SetUp(int vcpu)
    {
        kvm_sregs s;
        Guest.Ok(Host.Process.Ioctl(Vcpus[vcpu], KVM_GET_SREGS, (ulong)&s));
        var data = new kvm_segment { limit = ~0u, selector = 0x10, type = 3, present = 1, s = 1, db = 1, g = 1 };
        s.ds = s.es = s.ss = s.fs = s.gs = data;
        s.cs = data with { selector = 8, type = 11, db = 0, l = 1 };
        s.tr = new kvm_segment { @base = 0x1000, limit = 0x67, selector = 0x18, type = 11, present = 1 };
        s.ldt = new kvm_segment { unusable = 1 };
        (s.gdt.@base, s.gdt.limit, s.idt.@base, s.idt.limit) = (gdt, 23, idt, 0xfff);
        (s.cr0, s.cr3, s.cr4, s.efer) = (0x80000033, tables, 0x620, 0x500);
        Guest.Ok(Host.Process.Ioctl(Vcpus[vcpu], KVM_SET_SREGS, (ulong)&s));
        kvm_mp_state state = default;
        if (vcpu != 0)
            Guest.Ok(Host.Process.Ioctl(Vcpus[vcpu], KVM_SET_MP_STATE, (ulong)&state));
        SetRip(Code, vcpu);
    }

    private void EnableApic(int vcpu)
    {
        kvm_lapic_state apic = Apic(vcpu);
        *(uint*)((byte*)&apic + 0xf0) = 0x1ff;
        Guest.Ok(Host.Process.Ioctl(Vcpus[vcpu], KVM_SET_LAPIC, (ulong)&apic));
    }

    public kvm_lapic_state Apic(int vcpu)
    {
        kvm_lapic_state apic;
        Guest.Ok(Host.Process.Ioctl(Vcpus[vcpu], KVM_GET_LAPIC, (ulong)&apic));
        return apic;
    }

    /// <summary>The interrupt waits in the vCPU's APIC.</summary>
    public bool IsRequested(int vcpu, int vector)
    {
        kvm_lapic_state apic = Apic(vcpu);
        return (*(uint*)((byte*)&apic + 0x200 + (vector / 32 * 16)) >> (vector & 31) & 1) != 0;
    }

    public KvmResult EnableCap(int cap, int vcpu = 0, ulong argument = 0)
    {
        var c = new kvm_enable_cap { cap = (uint)cap };
        c.args[0] = argument;
        return Host.Process.Ioctl(Vcpus[vcpu], KVM_ENABLE_CAP, (ulong)&c);
    }

    // ---- MSRs ----

    /// <summary>KVM_SET_MSRS: true when it was taken.</summary>
    public bool SetMsr(uint index, ulong value, int vcpu = 0)
    {
        ulong* m = stackalloc ulong[3];
        (m[0], m[1], m[2]) = (1, index, value);
        return Guest.Ok(Host.Process.Ioctl(Vcpus[vcpu], KVM_SET_MSRS, (ulong)m)) == 1;
    }

    public ulong? GetMsr(uint index, int vcpu = 0)
    {
        ulong* m = stackalloc ulong[3];
        (m[0], m[1], m[2]) = (1, index, 0);
        return Guest.Ok(Host.Process.Ioctl(Vcpus[vcpu], KVM_GET_MSRS, (ulong)m)) == 1 ? m[2] : null;
    }

    /// <summary>WRMSR as the guest would make it: true when it does not fault.</summary>
    public bool GuestSetMsr(uint index, ulong value) => Host.OnVcpu(v => v.SetMsr(index, value)) == 0;

    public bool GuestGetMsr(uint index) => Host.OnVcpu(v => v.GetMsr(index, out ulong _)) == 0;

    // ---- running ----

    public void Assemble(Action<Assembler> program, ulong at = Code)
    {
        var a = new Assembler(64);
        program(a);
        using var stream = new MemoryStream();
        a.Assemble(new StreamCodeWriter(stream), at);
        stream.ToArray().CopyTo(new Span<byte>(Memory + at, (int)stream.Length));
    }

    public static void Wrmsr(Assembler a, uint msr, ulong value)
    {
        a.mov(ecx, msr);
        a.mov(eax, (uint)value);
        a.mov(edx, (uint)(value >> 32));
        a.wrmsr();
    }

    /// <summary>RDMSR into RAX.</summary>
    public static void Rdmsr(Assembler a, uint msr)
    {
        a.mov(ecx, msr);
        a.rdmsr();
        a.shl(rdx, 32);
        a.or(rax, rdx);
    }

    /// <summary>Ends the program: OUT to <see cref="Port"/>.</summary>
    public static void Done(Assembler a) => a.@out(Port, al);

    public void SetRip(ulong rip, int vcpu = 0)
    {
        var r = new kvm_regs { rip = rip, rsp = Stack + ((ulong)vcpu * 0x1000), rflags = 2 };
        Guest.Ok(Host.Process.Ioctl(Vcpus[vcpu], KVM_SET_REGS, (ulong)&r));
    }

    /// <summary>KVM_RUN until it exits for something else than a SynIC register.</summary>
    public uint RunToExit(int vcpu = 0)
    {
        for (; ; )
        {
            KvmResult r = Host.Process.Ioctl(Vcpus[vcpu], KVM_RUN);
            r.Raw.Should().Be(0, string.Join("\n", Host.Kernel.Host.Log.Lines.TakeLast(20)));
            kvm_run* run = Runs[vcpu];
            if (run->exit_reason != KVM_EXIT_HYPERV || run->hyperv.type != KVM_EXIT_HYPERV_SYNIC)
                return run->exit_reason;
            SynicExits.Add((run->hyperv.u.synic.msr, run->hyperv.u.synic.control, run->hyperv.u.synic.evt_page, run->hyperv.u.synic.msg_page));
        }
    }

    /// <summary>Runs a program to its end.</summary>
    public void Run(Action<Assembler> program)
    {
        Assemble(a =>
        {
            program(a);
            Done(a);
        });
        SetRip(Code);
        RunToDone();
    }

    public void RunToDone(int vcpu = 0)
    {
        RunToExit(vcpu).Should().Be((uint)KVM_EXIT_IO);
        byte* data = (byte*)Runs[vcpu] + Runs[vcpu]->io.data_offset;
        Runs[vcpu]->io.port.Should().Be(Port, $"vector {*data} was not expected");
    }

    /// <summary>The Hyper-V tracepoints of this guest's threads while something runs.</summary>
    public List<string> EventsOf(Action action)
    {
        List<string> events = [];
        TracepointHandler listen = (in TracepointRecord r) =>
        {
            if (r.Name.StartsWith("kvm_hv_", StringComparison.Ordinal) && r.Name != "kvm_hv_timer_state" && r.Task?.Process == Host.Process)
                events.Add($"{r.Name}: {r.Text}");
        };
        Tracepoints.Event += listen;
        action();
        Tracepoints.Event -= listen;
        return events;
    }

    public ulong Rax => Host.Regs.rax;

    public void Dispose() => Host.Dispose();
}

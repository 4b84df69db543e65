using Iced.Intel;
using Kvm.Abi;
using Kvm.Core;
using static Iced.Intel.AssemblerRegisters;
using static Kvm.Abi.Uapi;

namespace Kvm.Arch.X86.Tests.Perf;

/// <summary>A real-mode guest with all of the CPUID that KVM supports, which programs its performance counters and leaves what it finds at <see cref="Data"/>.</summary>
internal sealed unsafe class PmuGuest : IDisposable
{
    public const uint Counter0 = 0xc1, Select0 = 0x186, Fixed0 = 0x309, FixedControl = 0x38d, GlobalStatus = 0x38e, GlobalControl = 0x38f, GlobalOverflow = 0x390, Wide0 = 0x4c1;
    public const uint K7Select0 = 0xc0010000, K7Counter0 = 0xc0010004, CoreSelect0 = 0xc0010200, CoreCounter0 = 0xc0010201;
    public const uint Instructions = 0xc0, Os = 1 << 17, User = 1 << 16, Interrupt = 1 << 20, Enable = 1 << 22;
    public const ushort Data = 0x7000;
    private const uint pmcVector = 0x40;

    public PmuGuest(string vendor, string parameters = "", string kvmParameters = "", int cpus = 1, bool disabled = false)
    {
        Vendor = vendor;
        Host = new Guest(vendor, cpus, vm: true, parameters, kvmParameters, irqchip: true, disabled ? Disable : null);
        byte* cpuid = (byte*)Host.Process.MapAnonymous(0x4000);
        *(uint*)cpuid = 256;
        Guest.Ok(Host.Process.Ioctl(Host.KvmFd, KVM_GET_SUPPORTED_CPUID, (ulong)cpuid));
        Supported = new ReadOnlySpan<kvm_cpuid_entry2>(cpuid + 8, *(int*)cpuid).ToArray();
        Guest.Ok(Host.VcpuIoctl(KVM_SET_CPUID2, cpuid));
    }

    private static void Disable(Guest g)
    {
        var cap = new kvm_enable_cap { cap = KVM_CAP_PMU_CAPABILITY };
        cap.args[0] = KVM_PMU_CAP_DISABLE;
        Guest.Ok(g.Process.Ioctl(g.VmFd, KVM_ENABLE_CAP, ref cap));
    }

    public string Vendor { get; }
    public Guest Host { get; }
    public kvm_cpuid_entry2[] Supported { get; }

    public bool Intel => Vendor == "intel";

    public kvm_cpuid_entry2 Leaf(uint leaf) => Supported.Single(e => e.function == leaf && e.index == 0);

    /// <summary>Runs a program that ends with a write to port 0x80; writes to other ports go nowhere.</summary>
    public void Run(Action<Assembler> program, Action? eachExit = null)
    {
        var a = new Assembler(16);
        program(a);
        a.@out(0x80, al);
        using var code = new MemoryStream();
        a.Assemble(new StreamCodeWriter(code), 0x1000);
        Host.Load(code.ToArray());
        for (int i = 0; ; i++)
        {
            i.Should().BeLessThan(1000);
            uint reason = Host.RunToExit();
            reason.Should().Be(KVM_EXIT_IO, "at {0:x}", Host.Regs.rip);
            eachExit?.Invoke();
            if (Host.Run->io.port == 0x80)
                return;
        }
    }

    /// <summary>The handler of the counters' interrupt: what it does, then end of interrupt.</summary>
    public void Handler(Action<Assembler> program)
    {
        var a = new Assembler(16);
        program(a);
        Wrmsr(a, 0x80b, 0);
        a.iret();
        using var code = new MemoryStream();
        a.Assemble(new StreamCodeWriter(code), 0x3000);
        code.ToArray().CopyTo(new Span<byte>(Host.Memory + 0x3000, 0x1000));
        *(uint*)(Host.Memory + 4 * pmcVector) = 0x3000;
    }

    /// <summary>x2APIC on, the counters' entry unmasked, interrupts on.</summary>
    public static void EnableInterrupts(Assembler a)
    {
        Wrmsr(a, 0x1b, 0xfee00d00);
        Wrmsr(a, 0x80f, 0x1ff);
        Wrmsr(a, 0x834, pmcVector);
        a.sti();
    }

    /// <summary>Four instructions; the last one ends in an exit.</summary>
    public static void Wrmsr(Assembler a, uint msr, ulong value)
    {
        a.mov(ecx, msr);
        a.mov(eax, (uint)value);
        a.mov(edx, (uint)(value >> 32));
        a.wrmsr();
    }

    public static void Rdmsr(Assembler a, uint msr, int at)
    {
        a.mov(ecx, msr);
        a.rdmsr();
        a.mov(__dword_ptr[Data + at], eax);
        a.mov(__dword_ptr[Data + at + 4], edx);
    }

    /// <summary>1 + 2 * <paramref name="count"/> instructions.</summary>
    public static void Loop(Assembler a, ushort count)
    {
        Label again = a.CreateLabel();
        a.mov(bx, count);
        a.Label(ref again);
        a.dec(bx);
        a.jne(again);
    }

    public ulong At(int offset) => *(ulong*)(Host.Memory + Data + offset);

    public uint Int(int offset) => *(uint*)(Host.Memory + Data + offset);

    public ushort Word(int offset) => *(ushort*)(Host.Memory + Data + offset);

    /// <summary>KVM_GET_MSRS of one; null: it does not exist.</summary>
    public ulong? GetMsr(uint index)
    {
        ulong* msrs = stackalloc ulong[3] { 1, index, 0 };
        KvmResult r = Host.VcpuIoctl(KVM_GET_MSRS, msrs);
        return r.Value == 1 ? msrs[2] : null;
    }

    public bool SetMsr(uint index, ulong value)
    {
        ulong* msrs = stackalloc ulong[3] { 1, index, value };
        return Host.VcpuIoctl(KVM_SET_MSRS, msrs).Value == 1;
    }

    public KvmResult SetFilter(uint action, uint fixedBitmap, params ulong[] events)
    {
        byte* filter = stackalloc byte[32 + 8 * events.Length];
        *(uint*)filter = action;
        *(int*)(filter + 4) = events.Length;
        *(uint*)(filter + 8) = fixedBitmap;
        for (int i = 0; i < events.Length; i++)
            *(ulong*)(filter + 32 + 8 * i) = events[i];
        return Host.Process.Ioctl(Host.VmFd, KVM_SET_PMU_EVENT_FILTER, (ulong)filter);
    }

    public void Dispose() => Host.Dispose();
}

using System.Diagnostics;
using Iced.Intel;
using Kvm.Abi;
using Kvm.Client;
using static Iced.Intel.AssemblerRegisters;
using static Kvm.Abi.Uapi;

namespace Kvm.Benchmarks.Api;

/// <summary>
/// An interrupt's way: a thread writes an irqfd, the guest, which runs, takes the MSI, and its handler writes a port that is an ioeventfd, which the thread waits for.
/// And what it costs to end an interrupt.
/// </summary>
internal static class IrqCosts
{
    private const ushort Code = 0x1000, Handler = 0x2000;
    private const byte EventPort = 0x90;
    private const byte Vector = 0x41;
    private const uint Gsi = 20, EoiMsr = 0x80b, SpuriousMsr = 0x80f;

    /// <summary>Nanoseconds from the write of the irqfd to the answer. Wall time of two threads: half of the rounds are faster.</summary>
    public static double RoundTrip(string vendor, int rounds)
    {
        using KvmSystem kvm = Open(vendor);
        using Vm vm = kvm.CreateVm();
        using GuestMemory ram = vm.MapMemory(0, 0, 0x10000);
        using Vcpu vcpu = Create(kvm, vm, ram, static c =>
        {
            Label spin = c.CreateLabel();
            c.@out(0x80, al); // its APIC is on from here
            c.sti();
            c.Label(ref spin);
            c.inc(ebx);
            c.jmp(spin);
        });
        using var request = new KvmFd(kvm.Fd.Backend, (int)kvm.Fd.Backend.Eventfd(0, EFD_NONBLOCK));
        using var answer = new KvmFd(kvm.Fd.Backend, (int)kvm.Fd.Backend.Eventfd(0, EFD_NONBLOCK));
        var route = new kvm_irq_routing_entry { gsi = Gsi, type = (uint)KVM_IRQ_ROUTING_MSI };
        route.u.msi = new kvm_irq_routing_msi { address_lo = 0xfee00000, data = Vector };
        vm.SetGsiRouting([route]);
        vm.Irqfd(request.Number, Gsi);
        vm.IoEventfd(answer.Number, EventPort, 1, (uint)KVM_IOEVENTFD_FLAG_PIO);
        vcpu.Run();
        bool stop = false;
        var thread = new Thread(() =>
        {
            while (!Volatile.Read(ref stop)) vcpu.Run();
        });
        thread.Start();
        var times = new double[rounds];
        for (int i = 0; i < rounds; i++) times[i] = Once(kvm.Fd.Backend, request.Number, answer.Number);
        Volatile.Write(ref stop, true);
        while (!thread.Join(1)) vcpu.Kick();
        Array.Sort(times);
        return times[rounds / 2];
    }

    private static unsafe double Once(IKvmBackend backend, int request, int answer)
    {
        ulong one = 1, count = 0;
        long start = Stopwatch.GetTimestamp();
        backend.Write(request, (ulong)&one, sizeof(ulong));
        while (backend.Read(answer, (ulong)&count, sizeof(ulong)) < 0)
        {
        }

        return Stopwatch.GetElapsedTime(start).TotalNanoseconds;
    }

    /// <summary>
    /// Nanoseconds of the end of an interrupt that is in service: an exit handled in the kernel, or none where the processor virtualizes it. The vCPU is given
    /// all interrupts in service, then the guest ends them all.
    /// </summary>
    public static double Eoi(string vendor, bool x2apic, int exits)
    {
        const int vectors = 224;
        double Loop(bool eoi)
        {
            using KvmSystem kvm = Open(vendor);
            using Vm vm = kvm.CreateVm();
            using GuestMemory ram = vm.MapMemory(0, 0, 0x10000);
            using Vcpu vcpu = Create(kvm, vm, ram, c =>
            {
                Label again = c.CreateLabel(), inner = c.CreateLabel();
                c.Label(ref again);
                c.mov(si, vectors);
                c.mov(ecx, EoiMsr);
                c.xor(eax, eax);
                c.xor(edx, edx);
                c.Label(ref inner);
                if (eoi && x2apic) c.wrmsr();
                if (eoi && !x2apic) c.mov(__dword_ptr.es[0xb0], eax);
                c.dec(si);
                c.jne(inner);
                c.@out(0x80, al);
                c.jmp(again);
            }, x2apic);
            vcpu.Run();
            kvm_lapic_state inService = vcpu.Lapic;
            for (int vector = 256 - vectors; vector < 256; vector++) inService.regs[0x100 + vector / 32 * 16 + vector / 8 % 4] |= (byte)(1 << vector % 8);
            double least = double.MaxValue;
            int rounds = Math.Max(10, exits / vectors);
            for (int i = 0; i < rounds; i++)
            {
                vcpu.Lapic = inService;
                long start = Stopwatch.GetTimestamp();
                vcpu.Run();
                double time = Stopwatch.GetElapsedTime(start).TotalNanoseconds;
                if (i >= rounds / 4) least = Math.Min(least, time / vectors);
            }

            return least;
        }

        return Loop(eoi: true) - Loop(eoi: false);
    }

    private static KvmSystem Open(string vendor) => KvmSystem.Open(KvmBackend.ByName("model", vendor, processors: 3));

    /// <summary>A vCPU in real mode whose local APIC is software-enabled, in x2APIC mode or at the base of ES.</summary>
    private static Vcpu Create(KvmSystem kvm, Vm vm, GuestMemory ram, Action<Assembler> program, bool x2apic = true)
    {
        vm.CreateIrqchip();
        Put(ram, Handler, static c =>
        {
            c.push(ecx);
            c.@out(EventPort, al);
            c.mov(ecx, EoiMsr);
            c.xor(eax, eax);
            c.xor(edx, edx);
            c.wrmsr();
            c.pop(ecx);
            c.iret();
        });
        ram.At<uint>(Vector * 4u) = Handler;
        Put(ram, Code, c =>
        {
            c.mov(ecx, SpuriousMsr);
            c.mov(eax, 0x1ffu);
            c.xor(edx, edx);
            if (x2apic) c.wrmsr();
            else c.mov(__dword_ptr.es[0xf0], eax);
            program(c);
        });
        Vcpu vcpu = vm.CreateVcpu(0);
        vcpu.SetCpuid(kvm.GetSupportedCpuid());
        kvm_sregs s = vcpu.SRegs;
        (s.cs.@base, s.cs.selector) = (0, 0);
        s.apic_base |= x2apic ? 0xc00u : 0x800u;
        s.es.@base = 0xfee00000;
        vcpu.SRegs = s;
        vcpu.Regs = new kvm_regs { rip = Code, rsp = 0x8000, rflags = 2 };
        return vcpu;
    }

    private static void Put(GuestMemory ram, ushort at, Action<Assembler> code)
    {
        var assembler = new Assembler(16);
        code(assembler);
        using var bytes = new MemoryStream();
        assembler.Assemble(new StreamCodeWriter(bytes), at);
        bytes.ToArray().CopyTo(ram.At(at, (int)bytes.Length));
    }
}

using Iced.Intel;
using Kvm.Abi;
using static Iced.Intel.AssemblerRegisters;
using static Kvm.Abi.Uapi;

namespace Kvm.Client.Tests.Interrupts;

/// <summary>A VM with interrupt controllers in the kernel, 64 KiB at 0 and vCPUs in real mode. Programs end with a write to port 0x80, whose value is the answer.</summary>
internal sealed class InterruptGuest : IDisposable
{
    public const ushort Code = 0x1000, ApCode = 0x2000, Handlers = 0x3000, Stack = 0x8000;
    public const uint ApicBase = 0xfee00000, IoapicBase = 0xfec00000;

    public InterruptGuest(string kernel, int vcpus = 1, bool irqchip = true, bool pit = false)
    {
        System = Kernels.Open(kernel);
        Vm = System.CreateVm();
        if (irqchip) Vm.CreateIrqchip();
        if (pit) Vm.CreatePit2((uint)KVM_PIT_SPEAKER_DUMMY);
        Ram = Vm.MapMemory(slot: 0, guestAddress: 0, size: 0x10000);
        kvm_cpuid_entry2[] cpuid = System.GetSupportedCpuid();
        Vcpus = [.. Enumerable.Range(0, vcpus).Select(i => Vm.CreateVcpu((uint)i))];
        foreach (Vcpu vcpu in Vcpus)
        {
            for (int i = 0; i < cpuid.Length; i++)
            {
                if (cpuid[i].function != 1) continue;
                cpuid[i].ebx = cpuid[i].ebx & 0xffffff | vcpu.Id << 24;
                // The deadline timer, which is never among what is supported: it needs the APICs.
                if (irqchip) cpuid[i].ecx |= 1 << 24;
            }

            vcpu.SetCpuid(cpuid);
        }
    }

    public KvmSystem System { get; }

    public Vm Vm { get; }

    public GuestMemory Ram { get; }

    public Vcpu[] Vcpus { get; }

    public Vcpu Vcpu => Vcpus[0];

    /// <summary>The interrupt controllers' registers, by chip.</summary>
    public kvm_pic_state Pic(uint chip) => Vm.GetIrqchip(chip).chip.pic;

    public kvm_ioapic_state Ioapic => Vm.GetIrqchip((uint)KVM_IRQCHIP_IOAPIC).chip.ioapic;

    public static byte[] Assemble(ulong at, Action<Assembler> program)
    {
        var assembler = new Assembler(16);
        program(assembler);
        using var code = new MemoryStream();
        assembler.Assemble(new StreamCodeWriter(code), at);
        return code.ToArray();
    }

    /// <summary>Puts a program of the first vCPU in place. DS reaches what lies at <paramref name="data"/>; 0 is the memory.</summary>
    public void Load(Action<Assembler> program, uint data = 0)
    {
        Put(Code, program);
        kvm_sregs s = Vcpu.SRegs;
        s.cs.@base = 0;
        s.cs.selector = 0;
        s.ds.@base = data;
        Vcpu.SRegs = s;
        Vcpu.Regs = new kvm_regs { rip = Code, rflags = 2, rsp = Stack };
    }

    public void Put(ushort at, Action<Assembler> code)
    {
        byte[] bytes = Assemble(at, code);
        bytes.CopyTo(Ram.At(at, bytes.Length));
    }

    /// <summary>What an interrupt of this vector runs.</summary>
    public void Handler(byte vector, Action<Assembler> code)
    {
        var at = (ushort)(Handlers + vector * 0x40);
        Put(at, code);
        Ram.At<uint>(vector * 4u) = at;
    }

    /// <summary>Runs the first vCPU to the next write to port 0x80: what was written.</summary>
    public uint Run()
    {
        // A guest that nothing wakes must not stop the tests.
        using var tooLong = new Timer(_ => Vcpu.Kick(), null, 20_000, Timeout.Infinite);
        VcpuExit exit = Vcpu.Run();
        exit.Reason.Should().Be(KVM_EXIT_IO, $"{exit.ReasonName} at {Vcpu.Regs.rip:x}");
        exit.Io.Port.Should().Be(0x80);
        uint value = 0;
        for (int i = 0; i < exit.Io.Size; i++) value |= (uint)exit.Io.Data[i] << (8 * i);
        return value;
    }

    /// <summary>Port accesses in order; of those that read, the answers.</summary>
    public byte[] Ports(params (ushort Port, byte? Value)[] accesses)
    {
        Load(c =>
        {
            ushort answer = 0x7000;
            foreach ((ushort port, byte? value) in accesses)
            {
                c.mov(dx, port);
                if (value is { } v)
                {
                    c.mov(al, v);
                    c.@out(dx, al);
                }
                else
                {
                    c.@in(al, dx);
                    c.mov(__byte_ptr[answer++], al);
                }
            }

            c.@out(0x80, al);
        });
        Run();
        return Ram.At(0x7000, accesses.Count(static a => a.Value is null)).ToArray();
    }

    /// <summary>Initializes both PICs as a PC does: vectors 0x20 and 0x28, the slave at 2, everything unmasked.</summary>
    public void InitializePics(byte icw4 = 1)
    {
        Ports((0x20, 0x11), (0x21, 0x20), (0x21, 4), (0x21, icw4), (0xa0, 0x11), (0xa1, 0x28), (0xa1, 2), (0xa1, 1), (0x21, 0), (0xa1, 0));
    }

    /// <summary>The errno of a call that must fail.</summary>
    public static Errno Fails(Action call) => call.Should().Throw<KvmException>().Which.Errno;

    public void Dispose()
    {
        foreach (Vcpu vcpu in Vcpus) vcpu.Dispose();
        Ram.Dispose();
        Vm.Dispose();
        System.Dispose();
    }
}

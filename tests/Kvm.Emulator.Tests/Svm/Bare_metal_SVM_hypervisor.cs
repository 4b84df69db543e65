using Iced.Intel;
using Kvm.Emulator.Svm;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Emulator.Tests.Svm;

/// <summary>A hypervisor as machine code, without KVM: it turns SVM on, runs a 16-bit guest from a VMCB in memory and handles its exits.</summary>
public sealed unsafe class Bare_metal_SVM_hypervisor
{
    [Fact]
    public void Runs_a_guest_and_handles_its_exits()
    {
        var bus = new PortLog();
        using var machine = new Machine(new MachineOptions { Processors = [new ProcessorOptions(CpuModel.AmdZen)], Bus = bus });
        Processor cpu = machine.Processors[0];
        ulong ram = machine.Memory.AllocateLow(0x400000);
        ram.Should().NotBe(0, "the test needs memory below 4 GiB");
        ulong tables = ram + 0x200000, vmcbPa = ram + 0x210000, hsave = ram + 0x211000, stack = ram + 0x220000, code = ram + 0x230000;
        MapIdentity(tables);
        var vmcb = (Vmcb*)vmcbPa;
        FillVmcb(vmcb, ram);
        byte[] hypervisor = SvmMachine.Assemble(64, code, a => Hypervisor(a, vmcbPa, hsave));
        hypervisor.CopyTo(new Span<byte>((byte*)code, hypervisor.Length));
        byte[] guest = SvmMachine.Assemble(16, 0x7c00, Guest);
        guest.CopyTo(new Span<byte>((byte*)ram + 0x7c00, guest.Length));

        cpu.EnterKernelMode(new KernelContext { Cr3 = tables, StackTop = stack });
        cpu.State->Rip = code;
        cpu.Run(100_000).Should().Be(StopReason.Halted);

        bus.Written.Should().Equal((0x10, 'H'), (0x10, 'i'), (0x80, 0x5a));
        cpu.State->Gpr[3].Should().Be(3, "exits handled: OUT, CPUID, VMMCALL; the HLT ends the loop");
        vmcb->Control.ExitCode.Should().Be((ulong)SvmExitCode.Hlt);
        cpu.NonRoot.Should().BeNull();
        (cpu.State->Efer & Efer.SVME).Should().Be(Efer.SVME);
    }

    /// <summary>Identity map of the low 4 GiB with 2 MiB pages.</summary>
    private static void MapIdentity(ulong tables)
    {
        var entries = (ulong*)tables;
        entries[0] = (tables + 0x1000) | 3;
        for (ulong i = 0; i < 4; i++)
        {
            entries[512 + i] = (tables + 0x2000 + (i * 0x1000)) | 3;
            for (ulong j = 0; j < 512; j++)
                entries[1024 + (i * 512) + j] = (i << 30) | (j << 21) | 0x83;
        }
    }

    /// <summary>Guest memory is host memory here: no nested paging; the guest's segments are based at the start of its block.</summary>
    private static void FillVmcb(Vmcb* vmcb, ulong ram)
    {
        vmcb->Control.Asid = 1;
        vmcb->Control.Intercepts3 = SvmIntercepts3.Cpuid | SvmIntercepts3.Hlt | SvmIntercepts3.Ioio | SvmIntercepts3.Shutdown;
        vmcb->Control.Intercepts4 = SvmIntercepts4.Vmrun | SvmIntercepts4.Vmmcall;
        vmcb->Control.IopmBasePa = ram + 0x300000;
        ((byte*)ram)[0x300000 + (0x80 >> 3)] = 1; // port 0x80 exits, port 0x10 does not
        var data = new VmcbSegment { Attributes = 0x93, Limit = 0xffff, Base = ram };
        vmcb->Save.Es = vmcb->Save.Ss = vmcb->Save.Ds = data;
        vmcb->Save.Cs = new VmcbSegment { Attributes = 0x9b, Limit = 0xffff, Base = ram };
        vmcb->Save.Gdtr.Limit = vmcb->Save.Idtr.Limit = 0xffff;
        vmcb->Save.Efer = Efer.SVME;
        vmcb->Save.Cr0 = Cr0.ET;
        vmcb->Save.Dr6 = 0xffff_0ff0;
        vmcb->Save.Dr7 = 0x400;
        vmcb->Save.Rflags = 2;
        vmcb->Save.Rip = 0x7c00;
        vmcb->Save.Rsp = 0x7000;
    }

    private static void Guest(Assembler a)
    {
        a.mov(al, (byte)'H');
        a.@out(0x10, al);
        a.mov(al, (byte)'i');
        a.@out(0x10, al);
        a.mov(al, 0x5a);
        a.@out(0x80, al);
        a.xor(eax, eax);
        a.cpuid();
        a.vmmcall();
        a.hlt();
    }

    /// <summary>RBX counts the exits handled. The exit code is at 0x70 of the VMCB, next RIP at 0xc8, RIP at 0x578, RAX at 0x5f8.</summary>
    private static void Hypervisor(Assembler a, ulong vmcb, ulong hsave)
    {
        Label loop = a.CreateLabel(), notIo = a.CreateLabel(), advance = a.CreateLabel(), done = a.CreateLabel();
        a.mov(ecx, unchecked((int)Msr.IA32_EFER));
        a.rdmsr();
        a.or(eax, 0x1000);
        a.wrmsr();
        a.mov(ecx, unchecked((int)Msr.AMD_VM_HSAVE_PA));
        a.mov(eax, (uint)hsave);
        a.xor(edx, edx);
        a.wrmsr();
        a.xor(ebx, ebx);
        a.clgi();
        a.Label(ref loop);
        a.mov(rax, vmcb);
        a.vmload();
        a.vmrun();
        a.vmsave();
        a.mov(rdi, vmcb);
        a.mov(rcx, __qword_ptr[rdi + 0x70]);
        a.cmp(rcx, 0x78);
        a.je(done);
        a.cmp(rcx, 0x7b);
        a.jne(notIo);
        // IOIO: do the OUT for the guest: port in 31:16 of EXITINFO1, AL from the save area.
        a.mov(rdx, __qword_ptr[rdi + 0x78]);
        a.shr(rdx, 16);
        a.mov(rax, __qword_ptr[rdi + 0x5f8]);
        a.@out(dx, al);
        a.jmp(advance);
        a.Label(ref notIo);
        a.cmp(rcx, 0x72);
        a.je(advance);
        a.cmp(rcx, 0x81);
        a.jne(done);
        a.Label(ref advance);
        a.inc(ebx);
        a.mov(rax, __qword_ptr[rdi + 0xc8]);
        a.mov(__qword_ptr[rdi + 0x578], rax);
        a.jmp(loop);
        a.Label(ref done);
        a.stgi();
        a.cli();
        a.hlt();
    }

    private sealed class PortLog : IMachineBus
    {
        public List<(int Port, int Value)> Written { get; } = [];
        public uint ReadPort(ushort port, int size) => uint.MaxValue;
        public void WritePort(ushort port, int size, uint value) => Written.Add((port, (int)value));
        public ulong ReadMmio(ulong address, int size) => ulong.MaxValue;
        public void WriteMmio(ulong address, int size, ulong value) { }
    }
}

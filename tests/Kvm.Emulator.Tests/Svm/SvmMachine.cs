using Iced.Intel;
using Kvm.Emulator.Svm;

namespace Kvm.Emulator.Tests.Svm;

/// <summary>
/// An AMD machine whose processor 0 runs C# "kernel" code with SVM enabled, one VMCB, nested tables that map 2 MiB of guest memory at 0, and a guest that starts
/// in real mode at 0:0x1000 with a stack at 0x8000.
/// </summary>
public sealed unsafe class SvmMachine : IDisposable
{
    public const ulong GuestSize = 0x200000;
    public const ulong CodeGpa = 0x1000;

    public SvmMachine(CpuModel? model = null, bool nestedPaging = true)
    {
        Machine = new Machine(model ?? CpuModel.AmdZen);
        Cpu = Machine.Processors[0];
        HostRam = Machine.Memory.Allocate(0x100000);
        Guest = (byte*)Machine.Memory.Allocate(GuestSize);
        VmcbPa = HostRam;
        HsavePa = HostRam + 0x1000;
        IopmPa = HostRam + 0x2000;
        MsrpmPa = HostRam + 0x5000;
        NptPa = HostRam + 0x8000;
        Cpu.EnterKernelMode(new KernelContext { Cr3 = HostRam + 0x10000, StackTop = HostRam + 0x20000 });
        Cpu.WriteMsr(Msr.IA32_EFER, Cpu.State->Efer | Efer.SVME).Ok.Should().BeTrue();
        Cpu.WriteMsr(Msr.AMD_VM_HSAVE_PA, HsavePa).Ok.Should().BeTrue();
        BuildNestedTables();
        RealModeGuest();
        if (nestedPaging)
            EnableNestedPaging();
    }

    public Machine Machine { get; }
    public Processor Cpu { get; }
    public ulong HostRam { get; }
    public byte* Guest { get; }
    public ulong VmcbPa { get; }
    public ulong HsavePa { get; }
    public ulong IopmPa { get; }
    public ulong MsrpmPa { get; }
    public ulong NptPa { get; }
    public Vmcb* Vmcb => (Vmcb*)VmcbPa;
    public VmcbControlArea* Control => &Vmcb->Control;
    public VmcbSaveArea* Save => &Vmcb->Save;

    /// <summary>The leaf entry of a guest page in the nested tables.</summary>
    public ulong* NestedPte(ulong gpa) => (ulong*)(NptPa + 0x3000) + (gpa >> 12);
    public ulong* NestedPml4e => (ulong*)NptPa;
    public ulong* NestedPdpte => (ulong*)(NptPa + 0x1000);
    public ulong* NestedPde => (ulong*)(NptPa + 0x2000);

    private void BuildNestedTables()
    {
        *NestedPml4e = (NptPa + 0x1000) | 7;
        *NestedPdpte = (NptPa + 0x2000) | 7;
        *NestedPde = (NptPa + 0x3000) | 7;
        for (ulong gpa = 0; gpa < GuestSize; gpa += 0x1000)
            *NestedPte(gpa) = ((ulong)Guest + gpa) | 7;
    }

    private void EnableNestedPaging()
    {
        Control->NestedControl = SvmNestedControl.NpEnable;
        Control->NestedCr3 = NptPa;
        Save->GPat = 0x0007_0406_0007_0406;
    }

    private void RealModeGuest()
    {
        *Vmcb = default;
        Control->Asid = 1;
        Control->Intercepts4 = SvmIntercepts4.Vmrun | SvmIntercepts4.Vmmcall;
        Control->Intercepts3 = SvmIntercepts3.Hlt | SvmIntercepts3.Shutdown | SvmIntercepts3.Intr | SvmIntercepts3.Nmi;
        Control->IntControl = SvmIntControl.VIntrMasking;
        Control->IopmBasePa = IopmPa;
        Control->MsrpmBasePa = MsrpmPa;
        var data = new VmcbSegment { Attributes = 0x93, Limit = 0xffff };
        Save->Es = Save->Ss = Save->Ds = Save->Fs = Save->Gs = data;
        Save->Cs = new VmcbSegment { Attributes = 0x9b, Limit = 0xffff };
        Save->Gdtr.Limit = Save->Idtr.Limit = 0xffff;
        Save->Ldtr = new VmcbSegment { Attributes = 0x82, Limit = 0xffff };
        Save->Tr = new VmcbSegment { Attributes = 0x8b, Limit = 0xffff };
        Save->Efer = Efer.SVME;
        Save->Cr0 = Cr0.ET;
        Save->Dr6 = 0xffff_0ff0;
        Save->Dr7 = 0x400;
        Save->Rflags = 2;
        Save->Rip = CodeGpa;
        Save->Rsp = 0x8000;
    }

    /// <summary>Turns the guest into 64-bit code with flat segments and its own identity tables at 0x10000 (one 2 MiB page, user-accessible).</summary>
    public void LongModeGuest()
    {
        ulong* tables = (ulong*)(Guest + 0x10000);
        tables[0] = 0x11000 | 7;
        tables[512] = 0x12000 | 7;
        tables[1024] = 0x87;
        Save->Cr3 = 0x10000;
        Save->Cr4 = Cr4.PAE;
        Save->Cr0 = Cr0.PE | Cr0.PG | Cr0.ET | Cr0.WP | Cr0.NE;
        Save->Efer = Efer.SVME | Efer.LME | Efer.LMA | Efer.SCE | Efer.NXE;
        Save->Cs = new VmcbSegment { Selector = 8, Attributes = 0xa9b, Limit = uint.MaxValue };
        Save->Ss = Save->Ds = Save->Es = new VmcbSegment { Selector = 16, Attributes = 0xc93, Limit = uint.MaxValue };
    }

    public static byte[] Assemble(int bitness, ulong address, Action<Assembler> write)
    {
        var a = new Assembler(bitness);
        write(a);
        var stream = new MemoryStream();
        a.Assemble(new StreamCodeWriter(stream), address);
        return stream.ToArray();
    }

    public void Code16(Action<Assembler> write) => Load(CodeGpa, Assemble(16, CodeGpa, write));
    public void Code64(Action<Assembler> write)
    {
        LongModeGuest();
        Load(CodeGpa, Assemble(64, CodeGpa, write));
    }

    /// <summary>Writes guest memory as a device would; the next VMRUN flushes, so that changed code is noticed.</summary>
    public void Load(ulong gpa, params byte[] bytes)
    {
        bytes.CopyTo(new Span<byte>(Guest + gpa, bytes.Length));
        Control->TlbControl = TlbControl.FlushAll;
    }

    /// <summary>VMRUN; the exit code.</summary>
    public SvmExitCode Run()
    {
        Cpu.Vmrun(VmcbPa).Ok.Should().BeTrue();
        Control->TlbControl = TlbControl.DoNothing;
        return (SvmExitCode)Control->ExitCode;
    }

    /// <summary>VMRUN that must leave with <paramref name="expected"/>.</summary>
    public void RunTo(SvmExitCode expected) => Run().Should().Be(expected, "info1 {0:x} info2 {1:x} rip {2:x} rule {3}", Control->ExitInfo1, Control->ExitInfo2, Save->Rip, Cpu.Svm.FailedRule);

    public void Dispose() => Machine.Dispose();
}

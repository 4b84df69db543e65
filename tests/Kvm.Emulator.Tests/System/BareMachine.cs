using System.Runtime.InteropServices;
using Iced.Intel;

namespace Kvm.Emulator.Tests;

/// <summary>
/// A machine without firmware or hypervisor: one or more processors and 16 MiB of RAM at physical address 0. Helpers put processor 0 into real, protected,
/// or long mode with a GDT, an IDT, a TSS and page tables at fixed places, and run assembled code there.
/// </summary>
internal sealed unsafe class BareMachine : IDisposable
{
    public const ulong RamSize = 16 << 20;
    // Physical layout.
    public const ulong Gdt = 0x1000, Idt = 0x2000, Tss = 0x3000, Ldt = 0x3800, Tss2 = 0x3c00, Code = 0x8000, UserCode = 0xa000, Stack = 0x7000, InnerStack = 0x6000, IstStack = 0x5000, UserStack = 0xc000, Data = 0xd000, Tables = 0x100000;

    // Selectors of the GDT that the helpers build.
    public const ushort Code32 = 0x08, Data32 = 0x10, Code64 = 0x18, UserCode32 = 0x23, UserData = 0x2b, UserCode64 = 0x33, TssSelector = 0x40, LdtSelector = 0x50, Tss2Selector = 0x60;

    private readonly void* ram;

    public BareMachine(CpuModel? model = null, int processors = 1, IMachineBus? bus = null, BiosSettings? bios = null, TimeProvider? time = null)
    {
        MachineOptions options = MachineOptions.Uniform(model ?? CpuModel.IntelSkylake, processors, bios) with { Bus = bus, Time = time ?? TimeProvider.System };
        Machine = new Machine(options);
        ram = NativeMemory.AlignedAlloc((nuint)RamSize, 4096);
        NativeMemory.Clear(ram, (nuint)RamSize);
        Machine.Memory.Map(0, RamSize, (byte*)ram);
        Cpu = Machine.Processors[0];
    }

    public Machine Machine { get; }
    public Processor Cpu { get; }
    public CpuState* State => Cpu.State;
    public byte* At(ulong physical) => (byte*)ram + physical;
    public ulong* Qword(ulong physical) => (ulong*)At(physical);

    // ---- descriptors ----

    public static ulong Segment(uint @base, uint limit, uint rights)
    {
        // rights in AccessRights format; a limit above 1 MiB is stored in pages.
        bool pages = limit > 0xf_ffff;
        uint stored = pages ? limit >> 12 : limit;
        if (pages)
            rights |= SegmentRights.G;
        return (stored & 0xffff) | (ulong)(@base & 0xff_ffff) << 16 | (ulong)(rights & 0xf0ff) << 40 | (ulong)(stored >> 16 & 0xf) << 48 | (ulong)(@base >> 24) << 56;
    }

    public static ulong Gate(int type, ushort selector, ulong offset, int dpl = 0, bool present = true, int count = 0)
        => (offset & 0xffff) | (ulong)selector << 16 | (ulong)count << 32 | (ulong)type << 40 | (ulong)dpl << 45 | (present ? 1UL << 47 : 0) | (offset >> 16 & 0xffff) << 48;

    public void SetGdt(ushort selector, ulong descriptor) => Qword(Gdt)[selector >> 3] = descriptor;
    public ulong GetGdt(ushort selector) => Qword(Gdt)[selector >> 3];

    public void SetGate32(int vector, ulong gate) => Qword(Idt)[vector] = gate;

    public void SetGate64(int vector, int type, ushort selector, ulong offset, int dpl = 0, bool present = true, int ist = 0)
    {
        Qword(Idt)[vector * 2] = Gate(type, selector, offset, dpl, present, ist);
        Qword(Idt)[(vector * 2) + 1] = offset >> 32;
    }

    private void BuildGdt()
    {
        SetGdt(Code32, Segment(0, uint.MaxValue, 0x409b));
        SetGdt(Data32, Segment(0, uint.MaxValue, 0x4093));
        SetGdt(Code64, Segment(0, uint.MaxValue, 0x209b));
        SetGdt(UserCode32, Segment(0, uint.MaxValue, 0x40fb));
        SetGdt(UserData, Segment(0, uint.MaxValue, 0x40f3));
        SetGdt(UserCode64, Segment(0, uint.MaxValue, 0x20fb));
        SetGdt(TssSelector, Segment((uint)Tss, 0x67, 0x8b));
        SetGdt(LdtSelector, Segment((uint)Ldt, 0x3f, 0x82));
        SetGdt(Tss2Selector, Segment((uint)Tss2, 0x67, 0x89));
        State->Gdtr = new DescriptorTableRegister { Base = Gdt, Limit = 0x7f };
        State->Idtr = new DescriptorTableRegister { Base = Idt, Limit = 0xfff };
    }

    // ---- modes ----

    /// <summary>Real mode at 0:Code, stack 0:Stack, IVT at 0.</summary>
    public void Real()
    {
        Cpu.Reset(init: false);
        for (Seg seg = Seg.ES; seg <= Seg.GS; seg++)
            Cpu.Segment(seg) = new SegmentCache { Limit = 0xffff, AccessRights = seg == Seg.CS ? 0x9bu : 0x93u };
        State->Idtr = new DescriptorTableRegister { Limit = 0x3ff };
        State->Rip = Code;
        State->Gpr[4] = Stack;
        Cpu.UpdateMode();
    }

    /// <summary>Flat 32-bit protected mode without paging, CPL 0 (or user segments for CPL 3).</summary>
    public void Protected(int cpl = 0)
    {
        Cpu.Reset(init: false);
        BuildGdt();
        State->Cr0 = Cr0.PE | Cr0.ET | Cr0.NE;
        ((uint*)At(Tss))[1] = (uint)InnerStack;
        ((uint*)At(Tss))[2] = Data32;
        LoadSegments(cpl, cpl == 0 ? Code32 : UserCode32, 0x409b);
        Cpu.Segment(Seg.TR) = new SegmentCache { Selector = TssSelector, Base = Tss, Limit = 0x67, AccessRights = 0x8b };
        State->Gpr[4] = cpl == 0 ? Stack : UserStack;
        State->Rip = cpl == 0 ? Code : UserCode;
        Cpu.UpdateMode();
    }

    /// <summary>64-bit mode; the first 16 MiB are mapped one to one with 4 KiB user-accessible writable pages below 2 MiB, 2 MiB pages above.</summary>
    public void Long(int cpl = 0)
    {
        Cpu.Reset(init: false);
        BuildGdt();
        Paging4();
        State->Cr4 = Cr4.PAE | Cr4.PGE;
        State->Efer = Efer.LME | Efer.LMA | Efer.NXE | Efer.SCE;
        State->Cr0 = Cr0.PE | Cr0.PG | Cr0.ET | Cr0.NE | Cr0.WP;
        *(ulong*)(At(Tss) + 4) = InnerStack;
        *(ulong*)(At(Tss) + 36) = IstStack;
        LoadSegments(cpl, cpl == 0 ? Code64 : UserCode64, 0x209b);
        Cpu.Segment(Seg.TR) = new SegmentCache { Selector = TssSelector, Base = Tss, Limit = 0x67, AccessRights = 0x8b };
        State->Gpr[4] = cpl == 0 ? Stack : UserStack;
        State->Rip = cpl == 0 ? Code : UserCode;
        Cpu.UpdateMode();
    }

    private void LoadSegments(int cpl, ushort code, uint codeRights)
    {
        uint dpl = (uint)cpl << 5;
        ushort data = cpl == 0 ? Data32 : UserData;
        for (Seg seg = Seg.ES; seg <= Seg.GS; seg++)
            Cpu.Segment(seg) = new SegmentCache { Selector = data, Limit = uint.MaxValue, AccessRights = 0xc093 | dpl };
        Cpu.Segment(Seg.CS) = new SegmentCache { Selector = code, Limit = uint.MaxValue, AccessRights = codeRights | SegmentRights.G | dpl };
        Cpu.Segment(Seg.LDTR) = new SegmentCache { AccessRights = SegmentRights.Unusable };
        State->Cpl = (byte)cpl;
    }

    public const ulong Pml4 = Tables, Pdpt = Tables + 0x1000, Pd = Tables + 0x2000, Pt = Tables + 0x3000;

    public void Paging4()
    {
        *Qword(Pml4) = Pdpt | 7;
        *Qword(Pdpt) = Pd | 7;
        Qword(Pd)[0] = Pt | 7;
        for (ulong i = 1; i < 8; i++)
            Qword(Pd)[i] = i << 21 | 0x87;
        for (ulong i = 0; i < 512; i++)
            Qword(Pt)[i] = i << 12 | 7;
        State->Cr3 = Pml4;
    }

    /// <summary>Page-table entry of a linear address below 2 MiB (long mode helpers).</summary>
    public ulong* Pte(ulong linear) => Qword(Pt) + (linear >> 12);

    // ---- code ----

    public void Assemble(ulong address, Action<Assembler> write, int bits = 64)
    {
        var assembler = new Assembler(bits);
        write(assembler);
        var stream = new MemoryStream();
        assembler.Assemble(new StreamCodeWriter(stream), address);
        byte[] bytes = stream.ToArray();
        for (int i = 0; i < bytes.Length; i++)
            At(address)[i] = bytes[i];
    }

    public void Bytes(ulong address, params byte[] bytes)
    {
        for (int i = 0; i < bytes.Length; i++)
            At(address)[i] = bytes[i];
    }

    /// <summary>Runs until HLT (or another stop) and returns why it stopped.</summary>
    public StopReason Run(ulong limit = 100_000) => Cpu.Run(limit);

    /// <summary>What DeliverPending and the run loop would do with a failed access: the fault.</summary>
    public Fault Pending => Cpu.PendingFault;

    public void Dispose()
    {
        Machine.Dispose();
        NativeMemory.AlignedFree(ram);
    }
}

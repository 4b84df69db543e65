using System.Runtime.InteropServices;
using Iced.Intel;
using Kvm.Emulator.Vector;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Emulator.Tests.Engine;

/// <summary>A machine of one processor with low RAM, for programs of a few instructions in real, protected (flat 32-bit) or long mode.</summary>
/// <remarks>
/// Long mode maps the first gigabyte one to one with 2 MiB pages. Every exception enters a handler (at <see cref="HandlerBase"/> + 16 × vector) that is a HLT,
/// so <see cref="Run"/> tells by the final RIP which vector it was; <see cref="Fault"/> decodes that.
/// </remarks>
internal sealed unsafe class GuestMachine : IDisposable
{
    internal const ulong Size = 4 << 20, CodeBase = 0x10000, DataBase = 0x100000, StackTop = 0x80000;
    internal const ulong HandlerBase = 0x3000, Idt = 0x4000, Gdt = 0x5000, Tss = 0x5800, PageTables = 0x6000;

    private readonly byte* ram;
    internal Machine Machine { get; }
    internal Processor Cpu => Machine.Processors[0];
    internal CpuState* State => Cpu.State;
    internal byte* Ram => ram;

    internal GuestMachine(CpuModel? model = null, int processors = 1, VectorEngine vectorEngine = VectorEngine.Auto, EngineOptions? engine = null)
    {
        Machine = new Machine(MachineOptions.Uniform(model ?? CpuModel.IntelSkylake, processors) with { VectorEngine = vectorEngine, Engine = engine ?? EngineOptions.Default });
        ram = (byte*)NativeMemory.AlignedAlloc((nuint)Size, 4096);
        NativeMemory.Clear(ram, (nuint)Size);
        Machine.Memory.Map(0, Size, ram);
        BuildTables();
    }

    /// <summary>Handlers and tables as they were, whatever a guest has made of them; no breakpoints.</summary>
    internal void Restore()
    {
        const ulong end = PageTables + 0x3000;
        NativeMemory.Clear(ram, (nuint)end);
        BuildTables();
        Cpu.Code.CodeWritten(0, (int)end);
        State->Dr[7] = 0x400;
        Cpu.OnDebugRegisters();
    }

    private void BuildTables()
    {
        for (int v = 0; v < 32; v++)
            ram[HandlerBase + (ulong)(v * 16)] = 0xf4;
        ulong* gdt = (ulong*)(ram + Gdt);
        gdt[1] = 0x00cf9b000000ffff;
        gdt[2] = 0x00af9b000000ffff;
        gdt[3] = 0x00cf93000000ffff;
        gdt[4] = 0x00cffb000000ffff;
        gdt[5] = 0x00cff3000000ffff;
        gdt[6] = 0x00affb000000ffff;
        ulong* pml4 = (ulong*)(ram + PageTables), pdpt = (ulong*)(ram + PageTables + 0x1000), pd = (ulong*)(ram + PageTables + 0x2000);
        pml4[0] = (PageTables + 0x1000) | 7;
        pdpt[0] = (PageTables + 0x2000) | 7;
        for (ulong i = 0; i < 512; i++)
            pd[i] = (i << 21) | 0x87;
    }

    private void BuildIdt(bool longMode)
    {
        for (uint v = 0; v < 32; v++)
        {
            ulong target = HandlerBase + v * 16;
            ulong low = (target & 0xffff) | (longMode ? 0x10UL : 0x08UL) << 16 | 0x8e00UL << 32 | (target >> 16 & 0xffff) << 48;
            if (longMode)
            {
                *(ulong*)(ram + Idt + v * 16) = low;
                *(ulong*)(ram + Idt + v * 16 + 8) = 0;
            }
            else
                *(ulong*)(ram + Idt + v * 8) = low;
        }
    }

    internal static byte[] Assemble(int bits, ulong ip, Action<Assembler> program)
    {
        var a = new Assembler(bits);
        program(a);
        using var stream = new MemoryStream();
        a.Assemble(new StreamCodeWriter(stream), ip);
        return stream.ToArray();
    }

    internal ulong Quad(ulong address) => *(ulong*)(ram + address);

    internal void Load(ulong address, ReadOnlySpan<byte> bytes) => bytes.CopyTo(new Span<byte>(ram + address, bytes.Length));

    /// <summary>Loads a program at <see cref="CodeBase"/> and sets the mode up: 16 real, 32 protected flat, 64 long.</summary>
    internal void Start(int bits, Action<Assembler> program) => Start(bits, Assemble(bits, bits == 16 ? 0 : CodeBase, program));

    internal void Start(int bits, ReadOnlySpan<byte> code)
    {
        Load(CodeBase, code);
        Cpu.Code.CodeWritten(CodeBase, code.Length);
        Enter(bits);
    }

    internal void Enter(int bits)
    {
        CpuState* s = State;
        s->Activity = ActivityState.Active;
        s->InterruptShadow = 0;
        s->PendingDebug = 0;
        s->Cpl = 0;
        Cpu.Rflags = 2;
        s->Gpr[4] = StackTop;
        s->Cr3 = PageTables;
        BuildIdt(bits == 64);
        s->Gdtr = new DescriptorTableRegister { Base = Gdt, Limit = 0x3f };
        s->Idtr = new DescriptorTableRegister { Base = Idt, Limit = 0xfff };
        Segment(Seg.TR) = new SegmentCache { Selector = 0x40, Base = Tss, Limit = 0x67, AccessRights = 0x8b };
        switch (bits)
        {
            case 16:
                s->Cr0 = 0x60000010;
                s->Cr4 = 0;
                s->Efer = 0;
                s->Idtr = new DescriptorTableRegister { Base = 0, Limit = 0x3ff };
                for (uint v = 0; v < 32; v++)
                    *(uint*)(ram + v * 4) = (uint)(HandlerBase + v * 16);
                for (Seg seg = Seg.ES; seg <= Seg.GS; seg++)
                    Segment(seg) = new SegmentCache { Limit = 0xffff, AccessRights = 0x93 };
                Segment(Seg.CS) = new SegmentCache { Selector = (ushort)(CodeBase >> 4), Base = CodeBase, Limit = 0xffff, AccessRights = 0x9b };
                s->Gpr[4] = 0x8000;
                s->Rip = 0;
                break;
            case 32:
                s->Cr0 = 0x60000011;
                s->Cr4 = 0;
                s->Efer = 0;
                Flat(0x08, 0xc09b);
                s->Rip = CodeBase;
                break;
            default:
                s->Cr0 = 0x80000031;
                s->Cr4 = 0x6a0;
                s->Efer = 0x500;
                Flat(0x10, 0xa09b);
                s->Rip = CodeBase;
                break;
        }
        Cpu.Mmu.FlushAll();
        Cpu.UpdateMode();
    }

    private void Flat(ushort cs, uint csRights)
    {
        for (Seg seg = Seg.ES; seg <= Seg.GS; seg++)
            Segment(seg) = new SegmentCache { Selector = 0x18, Limit = uint.MaxValue, AccessRights = 0xc093 };
        Segment(Seg.CS) = new SegmentCache { Selector = cs, Limit = uint.MaxValue, AccessRights = csRights };
    }

    internal ref SegmentCache Segment(Seg seg) => ref Cpu.Segment(seg);

    /// <summary>Runs to HLT (or until the budget is used up).</summary>
    internal StopReason Run(ulong budget = 100_000) => Cpu.Run(budget);

    /// <summary>After a run that ended in an exception handler: its vector, else -1.</summary>
    internal int Fault
    {
        get
        {
            ulong linear = Segment(Seg.CS).Base + State->Rip - 1;
            ulong offset = linear - HandlerBase;
            return offset < 512 && offset % 16 == 0 ? (int)(offset / 16) : -1;
        }
    }

    /// <summary>After one instruction: the vector whose handler is next, else -1.</summary>
    internal int PendingVector
    {
        get
        {
            ulong offset = Segment(Seg.CS).Base + State->Rip - HandlerBase;
            return offset < 512 && offset % 16 == 0 ? (int)(offset / 16) : -1;
        }
    }

    /// <summary>RIP in the frame that a protected- or long-mode exception handler was entered with.</summary>
    internal ulong FaultRip(int vector, bool longMode)
    {
        bool errorCode = vector is 8 or (>= 10 and <= 14) or 17;
        ulong sp = State->Gpr[4] + (errorCode ? (longMode ? 8UL : 4) : 0);
        return longMode ? *(ulong*)(ram + sp) : *(uint*)(ram + sp);
    }

    public void Dispose()
    {
        Machine.Dispose();
        NativeMemory.AlignedFree(ram);
    }
}

using Iced.Intel;
using Kvm.Emulator.Tests.Engine;
using Kvm.Emulator.Vector;

namespace Kvm.Emulator.Tests.State;

/// <summary>A guest whose x87, SSE, AVX and PKRU state is filled with values that differ in every byte, for instructions that save and load it.</summary>
internal sealed unsafe class StateGuest : IDisposable
{
    /// <summary>A page, and one more behind it in the same 2 MiB.</summary>
    internal const ulong Area = 0x1f_e000;

    private readonly GuestMachine machine;

    internal StateGuest(string model = "intel-skylake", ulong xcr0 = 7) : this(CpuModel.Load(model), xcr0) { }

    internal StateGuest(CpuModel model, ulong xcr0 = 7)
    {
        machine = new GuestMachine(model);
        Xcr0 = xcr0;
    }

    internal GuestMachine Machine => machine;
    internal Processor Cpu => machine.Cpu;
    internal CpuState* State => machine.State;
    internal ulong Xcr0 { get; set; }

    internal byte* At(ulong offset = 0) => machine.Ram + Area + offset;
    internal ref ulong Quad(ulong offset) => ref *(ulong*)At(offset);
    internal ref uint Word32(ulong offset) => ref *(uint*)At(offset);
    internal ref ushort Word16(ulong offset) => ref *(ushort*)At(offset);

    /// <summary>The page behind the area is not there. Long mode only.</summary>
    internal void EndMemoryAfter(ulong page)
    {
        ulong* directory = (ulong*)(machine.Ram + GuestMachine.PageTables + 0x2000);
        ulong table = 0x9000;
        ulong* entries = (ulong*)(machine.Ram + table);
        ulong at = page >> 21;
        for (ulong i = 0; i < 512; i++)
            entries[i] = (at << 21 | i << 12) | (i <= (page >> 12 & 511) ? 7UL : 0);
        directory[at] = table | 7;
        Cpu.Mmu.FlushAll();
    }

    /// <summary>Assembles, puts the processor in the mode, enables everything, fills the state.</summary>
    internal StateGuest Prepare(int bits, Action<Assembler> program)
    {
        machine.Start(bits, a =>
        {
            program(a);
            a.hlt();
        });
        CpuState* s = State;
        s->Cr0 = (s->Cr0 & ~(Cr0.EM | Cr0.TS)) | Cr0.NE | Cr0.MP;
        s->Cr4 |= Cr4.OSFXSR | Cr4.OSXMMEXCPT | (Cpu.Model.Feature1Ecx(26) ? Cr4.OSXSAVE : 0);
        s->Xcr0 = Xcr0;
        Cpu.UpdateMode();
        Fill();
        return this;
    }

    internal void Fill()
    {
        CpuState* s = State;
        X87State.Clear(s);
        X87State.SetStatus(s, 5 << 11);
        X87State.SetControl(s, 0x27f);
        X87State.Tags(s) = 0x5a;
        X87State.SetPointers(s, 0x3a5, 0x1122_3344_5566, 0x77, 0x2233_4455_6677, 0x88);
        for (int i = 0; i < 8; i++)
        {
            for (int b = 0; b < 10; b++)
                X87State.St(s, i)[b] = (byte)(0x10 * i + b + 1);
        }
        for (int i = 0; i < 256; i++)
        {
            VectorUnit.Xmm(s, 0)[i] = (byte)(i ^ 0x5b);
            s->YmmHi[i] = (byte)(i ^ 0xa7);
        }
        Cpu.MxcsrValue = 0x1f81;
        Cpu.WritePkru(0x1230);
    }

    internal void FillArea(byte value, int size = 0x1000) => new Span<byte>(At(), size).Fill(value);

    /// <summary>The vector whose handler the run ended in, -1 when the program reached its end.</summary>
    internal int Run()
    {
        machine.Run();
        return machine.Fault;
    }

    public void Dispose() => machine.Dispose();
}

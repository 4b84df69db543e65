using Kvm.Abi;
using Kvm.Client;

namespace Kvm.Vmm.Boot;

/// <summary>Processor states in which boot loaders hand over.</summary>
public static class BootState
{
    private const ulong Cr0Pe = 1, Cr0Et = 1 << 4, Cr0Pg = 1UL << 31;
    private const ulong Cr4Pae = 1 << 5;
    private const ulong EferLme = 1 << 8, EferLma = 1 << 10;
    private const ushort BootCs = 0x10, BootDs = 0x18;

    /// <summary>Real mode at <paramref name="segment"/>+0x20:0 with all data segments at <paramref name="segment"/>: Linux's setup code.</summary>
    public static void EnterReal(Vcpu vcpu, ushort segment, ushort stack)
    {
        kvm_sregs sregs = vcpu.SRegs;
        SetReal(ref sregs.cs, (ushort)(segment + 0x20));
        SetReal(ref sregs.ds, segment);
        SetReal(ref sregs.es, segment);
        SetReal(ref sregs.fs, segment);
        SetReal(ref sregs.gs, segment);
        SetReal(ref sregs.ss, segment);
        vcpu.SRegs = sregs;
        vcpu.Regs = new kvm_regs { rip = 0, rsp = stack, rflags = 2 };
    }

    /// <summary>Real mode at a linear address below 1 MiB, segments at 0: flat images.</summary>
    public static void EnterFlat16(Vcpu vcpu, ushort address, ushort stack)
    {
        kvm_sregs sregs = vcpu.SRegs;
        SetReal(ref sregs.cs, 0);
        vcpu.SRegs = sregs;
        vcpu.Regs = new kvm_regs { rip = address, rsp = stack, rflags = 2 };
    }

    /// <summary>32-bit protected mode, flat 4 GiB segments, no paging, RSI at the zero page (32-bit boot protocol).</summary>
    public static void EnterProtected(GuestRam ram, Vcpu vcpu, ulong entry, ulong zeroPage)
    {
        kvm_sregs sregs = vcpu.SRegs;
        SetFlat(ram, ref sregs, code64: false);
        sregs.cr0 = Cr0Pe | Cr0Et;
        sregs.cr4 = 0;
        sregs.efer = 0;
        vcpu.SRegs = sregs;
        vcpu.Regs = new kvm_regs { rip = entry, rsi = zeroPage, rsp = RealModeMemory.Stack, rflags = 2 };
    }

    /// <summary>64-bit mode, the first 4 GiB mapped to themselves, RSI at the zero page (64-bit boot protocol).</summary>
    public static void EnterLong(GuestRam ram, Vcpu vcpu, ulong entry, ulong zeroPage)
    {
        kvm_sregs sregs = vcpu.SRegs;
        SetFlat(ram, ref sregs, code64: true);
        sregs.cr3 = IdentityMap(ram, RealModeMemory.PageTables);
        sregs.cr4 = Cr4Pae;
        sregs.cr0 = Cr0Pe | Cr0Et | Cr0Pg;
        sregs.efer = EferLme | EferLma;
        vcpu.SRegs = sregs;
        vcpu.Regs = new kvm_regs { rip = entry, rsi = zeroPage, rsp = RealModeMemory.Stack, rflags = 2 };
    }

    /// <summary>Page tables for the first 4 GiB in 2 MiB pages: six pages from <paramref name="at"/>.</summary>
    /// <returns>The value for CR3.</returns>
    public static ulong IdentityMap(GuestRam ram, ulong at)
    {
        const ulong Present = 1, Writable = 2, Large = 0x80;
        ram.At(at, 6 * 4096).Clear();
        ulong pdpt = at + 0x1000, directories = at + 0x2000;
        ram.Write(at, pdpt | Present | Writable);
        for (ulong i = 0; i < 4; i++) ram.Write(pdpt + i * 8, (directories + i * 0x1000) | Present | Writable);
        for (ulong i = 0; i < 2048; i++) ram.Write(directories + i * 8, (i << 21) | Present | Writable | Large);
        return at;
    }

    private static void SetFlat(GuestRam ram, ref kvm_sregs sregs, bool code64)
    {
        // What the segment registers hold must also be what their selectors load.
        ulong code = code64 ? 0x00af9b000000ffffUL : 0x00cf9b000000ffffUL;
        ram.Write(RealModeMemory.Gdt + 0x00, 0UL);
        ram.Write(RealModeMemory.Gdt + 0x08, 0UL);
        ram.Write(RealModeMemory.Gdt + BootCs, code);
        ram.Write(RealModeMemory.Gdt + BootDs, 0x00cf93000000ffffUL);
        sregs.gdt.@base = RealModeMemory.Gdt;
        sregs.gdt.limit = 0x1f;
        sregs.idt.@base = 0;
        sregs.idt.limit = 0;

        sregs.cs = Flat(BootCs, type: 0xb, code64);
        sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = Flat(BootDs, type: 0x3, code64: false);
    }

    private static kvm_segment Flat(ushort selector, byte type, bool code64) => new()
    {
        selector = selector,
        limit = 0xffffffff,
        type = type,
        present = 1,
        s = 1,
        g = 1,
        db = (byte)(code64 ? 0 : 1),
        l = (byte)(code64 ? 1 : 0),
    };

    private static void SetReal(ref kvm_segment segment, ushort selector)
    {
        segment.selector = selector;
        segment.@base = (ulong)selector << 4;
    }
}

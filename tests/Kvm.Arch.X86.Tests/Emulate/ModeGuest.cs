using Kvm.Abi;
using static Kvm.Abi.Uapi;

namespace Kvm.Arch.X86.Tests.Emulate;

/// <summary>
/// A guest at privilege 0 in 16-bit real, 32-bit protected or 64-bit mode with flat segments and one handler per exception, each of them a HLT:
/// an instruction in front of a HLT always ends with KVM_EXIT_HLT, and RIP tells how.
/// </summary>
internal sealed unsafe class ModeGuest : IDisposable
{
    public const ulong Code = 0x8000, StackTop = 0xa000, StackBase = 0x9e00, Data = 0xb000, Handlers = 0x1000, Hole = Guest.MemorySize;
    public const int DataSize = 0x1100;
    private const ulong tables = 0x100000, gdt = 0x2000, idt = 0x3000, tss = 0x4000;

    private readonly kvm_sregs sregs;

    public ModeGuest(string vendor, int mode)
    {
        Mode = mode;
        Guest = new Guest(vendor);
        byte* m = Guest.Memory;
        new Span<byte>(m + Handlers, 32).Fill(0xf4);
        *(ulong*)(m + gdt + 8) = mode == 64 ? 0x00af9b000000fffful : 0x00cf9b000000ffff;
        *(ulong*)(m + gdt + 16) = 0x00cf93000000ffff;
        for (ulong v = 0; v < 32; v++)
            WriteGate(m, v);
        WritePages((ulong*)(m + tables));
        SetCpuid();
        sregs = System();
        Guest.Sregs = sregs;
        sregs = Guest.Sregs;
    }

    public Guest Guest { get; }

    public int Mode { get; }

    public byte* Memory => Guest.Memory;

    private void WriteGate(byte* m, ulong v)
    {
        ulong at = Handlers + v;
        switch (Mode)
        {
            case 64:
                *(ulong*)(m + idt + v * 16) = at | 8 << 16 | 0x8eul << 40;
                break;
            case 32:
                *(ulong*)(m + idt + v * 8) = at | 8 << 16 | 0x8eul << 40;
                break;
            default:
                *(uint*)(m + v * 4) = (uint)at;
                break;
        }
    }

    /// <summary>The first GiB at its own addresses, in 2 MiB pages.</summary>
    private static void WritePages(ulong* pml4)
    {
        pml4[0] = tables + 0x1000 | 3;
        pml4[512] = tables + 0x2000 | 3;
        for (ulong i = 0; i < 512; i++)
            pml4[1024 + i] = i << 21 | 0x83;
    }

    private void SetCpuid()
    {
        byte* buffer = stackalloc byte[8 + 100 * sizeof(kvm_cpuid_entry2)];
        ((kvm_cpuid2*)buffer)->nent = 100;
        Guest.Ok(Guest.Process.Ioctl(Guest.KvmFd, KVM_GET_SUPPORTED_CPUID, (ulong)buffer));
        Guest.Ok(Guest.VcpuIoctl(KVM_SET_CPUID2, buffer));
    }

    private kvm_sregs System()
    {
        kvm_sregs s = Guest.Sregs;
        s.cr4 = 0x600; // OSFXSR, OSXMMEXCPT
        if (Mode == 16)
        {
            s.cs.@base = 0;
            s.cs.selector = 0;
            return s;
        }

        var data = new kvm_segment { limit = 0xffffffff, selector = 16, type = 3, present = 1, s = 1, db = 1, g = 1 };
        s.ds = s.es = s.ss = s.fs = s.gs = data;
        s.cs = data;
        s.cs.selector = 8;
        s.cs.type = 11;
        s.cs.db = Mode == 64 ? (byte)0 : (byte)1;
        s.cs.l = Mode == 64 ? (byte)1 : (byte)0;
        s.tr = new kvm_segment { @base = tss, limit = 0x67, selector = 24, type = 11, present = 1 };
        s.gdt.@base = gdt;
        s.gdt.limit = 31;
        s.idt.@base = idt;
        s.idt.limit = 0x1ff;
        s.cr0 = 0x33;
        if (Mode == 64)
        {
            s.cr0 |= 1ul << 31;
            s.cr3 = tables;
            s.cr4 |= 0x20;
            s.efer = 0x500;
        }

        return s;
    }

    /// <summary>The system registers that a case starts with.</summary>
    public void ResetSystem()
    {
        kvm_sregs now = Guest.Sregs, first = sregs;
        if (!new Span<byte>(&now, sizeof(kvm_sregs)).SequenceEqual(new Span<byte>(&first, sizeof(kvm_sregs))))
            Guest.Sregs = first;
    }

    public void Dispose() => Guest.Dispose();
}

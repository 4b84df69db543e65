using Iced.Intel;
using Kvm.Abi;
using Kvm.Core;
using static Kvm.Abi.Uapi;

namespace Kvm.Arch.X86.Tests.Mmu;

/// <summary>
/// A guest in protected or long mode with tables of its own: 8 MiB of memory, code at 10000 (mapped as it lies), tables from 400000, an exception handler for each
/// vector that halts.
/// </summary>
internal sealed unsafe class PagedGuest : IDisposable
{
    public const ulong Code = 0x10000, Handlers = 0x20000, StackTop = 0x38000, Data = 0x200000, Tables = 0x400000;
    public const ulong P = 1, W = 2, U = 4, A = 0x20, D = 0x40, PS = 0x80, G = 0x100, Nx = 1ul << 63;
    private const ulong gdt = 0x1000, idt = 0x2000, tss = 0x3000;
    private ulong nextTable = Tables;

    /// <param name="host">"intel" or "amd", and the vendor module's parameters behind a blank.</param>
    public PagedGuest(string host, Paging mode, int cpus = 1, string kvmParameters = "", bool cpuid = true)
    {
        string[] parts = host.Split(' ', 2);
        Host = new Guest(parts[0], cpus, true, parts.Length > 1 ? parts[1] : "", kvmParameters);
        Mode = mode;
        if (cpuid)
            SetCpuid(Host.VcpuFd);
        Root = mode == Paging.None ? 0 : NewTable();
        if (mode == Paging.Pae)
        {
            for (ulong i = 0; i < 4; i++)
                *(ulong*)At(Root + (i * 8)) = NewTable() | P;
        }

        for (ulong page = 0; page < 0x40000; page += 0x1000)
            Map(page, page, P | W | A | D);
        for (ulong i = 0; i < 32; i++)
            *At(Handlers + (i * 16)) = 0xf4;
        SetUpTables();
        SetUpVcpu(Host.VcpuFd);
    }

    public Guest Host { get; }
    public Paging Mode { get; }
    public ulong Root { get; }
    public X86Vm Vm => (X86Vm)Host.Vm;
    public bool Wide => Mode is Paging.Pae or Paging.Long;
    public byte* At(ulong gpa) => Host.Memory + gpa;

    public ulong NewTable()
    {
        nextTable += 0x1000;
        return nextTable - 0x1000;
    }

    public void SetCpuid(int vcpu)
    {
        var cpuid = (kvm_cpuid2*)Host.Process.MapAnonymous(0x4000);
        cpuid->nent = 256;
        Guest.Ok(Host.Process.Ioctl(Host.KvmFd, KVM_GET_SUPPORTED_CPUID, (ulong)cpuid));
        Guest.Ok(Host.Process.Ioctl(vcpu, KVM_SET_CPUID2, (ulong)cpuid));
        Host.Process.Munmap((ulong)cpuid, 0x4000);
    }

    // ---- tables ----

    private int Levels => Mode switch { Paging.Bits32 => 2, Paging.Pae => 3, _ => 4 };

    /// <summary>Address of the entry of a level for an address; tables on the way are made when they are missing.</summary>
    public ulong EntryGpa(ulong gva, int level = 1, ulong root = 0)
    {
        ulong table = root == 0 ? Root : root;
        for (int l = Levels; ; l--)
        {
            int bits = Wide ? 9 : 10;
            ulong at = table + (((gva >> (12 + (bits * (l - 1)))) & ((1ul << bits) - 1)) * (ulong)(Wide ? 8 : 4));
            if (l == level)
                return at;
            ulong entry = ReadEntry(at);
            if ((entry & P) == 0)
            {
                entry = NewTable() | P | W | U;
                WriteEntry(at, entry);
            }

            table = entry & 0x000ffffffffff000;
        }
    }

    public ulong ReadEntry(ulong gpa) => Wide ? *(ulong*)At(gpa) : *(uint*)At(gpa);

    public void WriteEntry(ulong gpa, ulong value)
    {
        if (Wide)
            *(ulong*)At(gpa) = value;
        else
            *(uint*)At(gpa) = (uint)value;
    }

    public void Map(ulong gva, ulong gpa, ulong flags, ulong root = 0)
    {
        if (Mode != Paging.None)
            WriteEntry(EntryGpa(gva, (flags & PS) != 0 ? 2 : 1, root), gpa | flags);
    }

    private void SetUpTables()
    {
        var g = (ulong*)At(gdt);
        g[1] = Mode == Paging.Long ? 0x00af9b000000fffful : 0x00cf9b000000ffff; // 08 kernel code
        g[2] = 0x00cf93000000ffff; // 10 kernel data
        g[3] = Mode == Paging.Long ? 0x00affb000000fffful : 0x00cffb000000ffff; // 18 user code
        g[4] = 0x00cff3000000ffff; // 20 user data
        for (ulong i = 0; i < 32; i++)
        {
            ulong handler = Handlers + (i * 16);
            if (Mode == Paging.Long)
                *(ulong*)At(idt + (i * 16)) = (handler & 0xffff) | (8ul << 16) | (0x8eul << 40) | ((handler >> 16) << 48);
            else
                *(ulong*)At(idt + (i * 8)) = (handler & 0xffff) | (8ul << 16) | (0x8eul << 40) | ((handler >> 16) << 48);
        }

        if (Mode == Paging.Long)
        {
            *(ulong*)At(tss + 4) = StackTop;
        }
        else
        {
            *(uint*)At(tss + 4) = (uint)StackTop;
            *(uint*)At(tss + 8) = 0x10;
        }
    }

    public void SetUpVcpu(int vcpu, ulong rip = Code, ulong rsp = StackTop - 0x4000)
    {
        kvm_sregs s;
        Guest.Ok(Host.Process.Ioctl(vcpu, KVM_GET_SREGS, (ulong)&s));
        s.cr0 = 0x11 | (Mode == Paging.None ? 0 : 0x80010000u);
        s.cr4 = Mode switch { Paging.Bits32 => 0x10, Paging.Pae or Paging.Long => 0x20, _ => 0ul };
        s.efer = Mode switch { Paging.Long => 0xd00ul, Paging.Pae => 0x800, _ => 0 };
        s.cr3 = Root;
        s.gdt.@base = gdt;
        s.gdt.limit = 0x7f;
        s.idt.@base = idt;
        s.idt.limit = 0xfff;
        SetSegments(ref s, false);
        s.tr = new kvm_segment { @base = tss, limit = 0x67, selector = 0x28, type = 11, present = 1 };
        s.ldt = new kvm_segment { unusable = 1 };
        Guest.Ok(Host.Process.Ioctl(vcpu, KVM_SET_SREGS, (ulong)&s));
        var r = new kvm_regs { rip = rip, rsp = rsp, rflags = 2 };
        Guest.Ok(Host.Process.Ioctl(vcpu, KVM_SET_REGS, (ulong)&r));
    }

    public void SetSegments(ref kvm_sregs s, bool user)
    {
        byte dpl = user ? (byte)3 : (byte)0;
        s.cs = new kvm_segment { limit = ~0u, selector = (ushort)(user ? 0x1b : 8), type = 11, present = 1, dpl = dpl, s = 1, g = 1, l = (byte)(Mode == Paging.Long ? 1 : 0), db = (byte)(Mode == Paging.Long ? 0 : 1) };
        s.ds = s.es = s.ss = s.fs = s.gs = new kvm_segment { limit = ~0u, selector = (ushort)(user ? 0x23 : 0x10), type = 3, present = 1, dpl = dpl, s = 1, g = 1, db = 1 };
    }

    // ---- running ----

    public delegate void Program(Assembler a);

    public int Assemble(Program program, ulong at = Code)
    {
        var a = new Assembler(Mode == Paging.Long ? 64 : 32);
        program(a);
        using var stream = new MemoryStream();
        a.Assemble(new StreamCodeWriter(stream), at);
        stream.ToArray().CopyTo(new Span<byte>(At(at), (int)stream.Length));
        return (int)stream.Length;
    }

    public delegate void SregsChange(ref kvm_sregs s);

    public void ChangeSregs(SregsChange change)
    {
        kvm_sregs s = Host.Sregs;
        change(ref s);
        Host.Sregs = s;
    }

    public void SetRip(ulong rip, ulong rflags = 2)
    {
        kvm_regs r = Host.Regs;
        r.rip = rip;
        r.rsp = StackTop - 0x4000;
        r.rflags = rflags;
        Host.Regs = r;
    }

    /// <summary>Runs to HLT: -1 when the program halted, else the exception's vector.</summary>
    public int Run()
    {
        uint reason = Host.RunToExit();
        reason.Should().Be((uint)KVM_EXIT_HLT, Describe());
        ulong rip = Host.Regs.rip - 1;
        return rip is >= Handlers and < Handlers + 0x200 ? (int)(rip - Handlers) / 16 : -1;
    }

    /// <summary>The error code that the handler of the exception finds.</summary>
    public uint ErrorCode => *(uint*)At(Host.Regs.rsp);

    public string Describe()
    {
        kvm_run* run = Host.Run;
        kvm_regs r = Host.Regs;
        return $"exit {run->exit_reason} rip {r.rip:x} rsp {r.rsp:x} suberror {(run->exit_reason == KVM_EXIT_INTERNAL_ERROR ? run->@internal.suberror : 0)} fail {(run->exit_reason == KVM_EXIT_FAIL_ENTRY ? run->fail_entry.hardware_entry_failure_reason : 0):x}\n"
            + string.Join("\n", Host.Kernel.Host.Log.Lines.TakeLast(8));
    }

    public void Dispose() => Host.Dispose();
}

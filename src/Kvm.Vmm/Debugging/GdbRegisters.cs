using System.Buffers.Binary;
using System.Globalization;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;
using Kvm.Abi;

namespace Kvm.Vmm.Debugging;

/// <summary>The registers that gdb is shown, and the target description that tells it which.</summary>
/// <remarks>
/// gdb's standard features, "i386 Features" in its manual, and one of our own, org.kvm.system. What gdb calls rip is linear: outside 64-bit mode it has the base of CS
/// in it, so that breakpoints and disassembly meet the instruction in real mode too.
/// </remarks>
internal static class GdbRegisters
{
    private delegate ref T Field<T>(VcpuRegisters state);

    private static readonly (string Feature, GdbRegister[] Registers)[] s_features =
    [
        ("org.gnu.gdb.i386.core", [.. General(), .. X87()]),
        ("org.gnu.gdb.i386.sse", [.. Sse()]),
        ("org.gnu.gdb.i386.segments",
        [
            System("fs_base", "uint64", s => ref s.System.fs.@base), System("gs_base", "uint64", s => ref s.System.gs.@base),
        ]),
        ("org.kvm.system", [.. SystemRegisters()]),
    ];

    /// <summary>All, in the order of their numbers.</summary>
    public static IReadOnlyList<GdbRegister> All { get; } = [.. s_features.SelectMany(f => f.Registers)];

    /// <summary>target.xml.</summary>
    public static string Description { get; } = Describe();

    /// <summary>System registers, for people.</summary>
    public static string System(VcpuRegisters state)
    {
        var text = new StringBuilder();
        ref kvm_sregs s = ref state.System;
        foreach ((string name, kvm_segment segment) in new[] { ("cs", s.cs), ("ds", s.ds), ("es", s.es), ("fs", s.fs), ("gs", s.gs), ("ss", s.ss), ("tr", s.tr), ("ldt", s.ldt) })
        {
            text.Append(CultureInfo.InvariantCulture, $"{name,-4}{segment.selector:x4} base {segment.@base:x16} limit {segment.limit:x8} type {segment.type:x} dpl {segment.dpl}");
            text.AppendLine(segment.unusable != 0 ? " unusable" : $" s {segment.s} p {segment.present} l {segment.l} db {segment.db} g {segment.g}");
        }

        text.AppendLine(CultureInfo.InvariantCulture, $"gdt      base {s.gdt.@base:x16} limit {s.gdt.limit:x4}");
        text.AppendLine(CultureInfo.InvariantCulture, $"idt      base {s.idt.@base:x16} limit {s.idt.limit:x4}");
        text.AppendLine(CultureInfo.InvariantCulture, $"cr0 {s.cr0:x8} cr2 {s.cr2:x16} cr3 {s.cr3:x16} cr4 {s.cr4:x8} cr8 {s.cr8:x} efer {s.efer:x}");
        text.AppendLine(CultureInfo.InvariantCulture, $"rip {state.General.rip:x16} rflags {state.General.rflags:x8}, {state.Bitness}-bit code");
        return text.ToString();
    }

    private static IEnumerable<GdbRegister> General() =>
    [
        Integer("rax", s => ref s.General.rax), Integer("rbx", s => ref s.General.rbx), Integer("rcx", s => ref s.General.rcx), Integer("rdx", s => ref s.General.rdx),
        Integer("rsi", s => ref s.General.rsi), Integer("rdi", s => ref s.General.rdi),
        Integer("rbp", s => ref s.General.rbp, "data_ptr"), Integer("rsp", s => ref s.General.rsp, "data_ptr"),
        Integer("r8", s => ref s.General.r8), Integer("r9", s => ref s.General.r9), Integer("r10", s => ref s.General.r10), Integer("r11", s => ref s.General.r11),
        Integer("r12", s => ref s.General.r12), Integer("r13", s => ref s.General.r13), Integer("r14", s => ref s.General.r14), Integer("r15", s => ref s.General.r15),
        new("rip", 64, "code_ptr",
            (s, to) => BinaryPrimitives.WriteUInt64LittleEndian(to, s.LinearRip),
            (s, from) => (s.LinearRip, s.Changed) = (BinaryPrimitives.ReadUInt64LittleEndian(from), s.Changed | VcpuRegisters.Groups.General)),
        new("eflags", 32, "i386_eflags",
            (s, to) => BinaryPrimitives.WriteUInt32LittleEndian(to, (uint)s.General.rflags),
            (s, from) => (s.General.rflags, s.Changed) = (BinaryPrimitives.ReadUInt32LittleEndian(from), s.Changed | VcpuRegisters.Groups.General)),
        Selector("cs", s => ref s.System.cs), Selector("ss", s => ref s.System.ss), Selector("ds", s => ref s.System.ds),
        Selector("es", s => ref s.System.es), Selector("fs", s => ref s.System.fs), Selector("gs", s => ref s.System.gs),
    ];

    private static IEnumerable<GdbRegister> X87()
    {
        for (int i = 0; i < 8; i++)
        {
            int n = i;
            yield return new GdbRegister($"st{n}", 80, "i387_ext",
                (s, to) => Fpu(s)[(n * 16)..(n * 16 + 10)].CopyTo(to),
                (s, from) => { from.CopyTo(Fpu(s)[(n * 16)..]); s.Changed |= VcpuRegisters.Groups.Fpu; });
        }

        yield return Control("fctrl", s => s.Fpu.fcw, (s, v) => s.Fpu.fcw = (ushort)v);
        yield return Control("fstat", s => s.Fpu.fsw, (s, v) => s.Fpu.fsw = (ushort)v);
        yield return Control("ftag", s => FullTags(s.Fpu.ftwx), null);
        yield return Control("fiseg", _ => 0, null);
        yield return Control("fioff", s => (uint)s.Fpu.last_ip, null);
        yield return Control("foseg", _ => 0, null);
        yield return Control("fooff", s => (uint)s.Fpu.last_dp, null);
        yield return Control("fop", s => s.Fpu.last_opcode, null);
    }

    private static IEnumerable<GdbRegister> Sse()
    {
        int xmm = (int)Marshal.OffsetOf<kvm_fpu>(nameof(kvm_fpu.xmm));
        for (int i = 0; i < 16; i++)
        {
            int at = xmm + i * 16;
            yield return new GdbRegister($"xmm{i}", 128, "vec128",
                (s, to) => Fpu(s)[at..(at + 16)].CopyTo(to),
                (s, from) => { from.CopyTo(Fpu(s)[at..]); s.Changed |= VcpuRegisters.Groups.Fpu; });
        }

        yield return Control("mxcsr", s => s.Fpu.mxcsr, (s, v) => s.Fpu.mxcsr = v) with { Type = "i386_mxcsr" };
    }

    private static IEnumerable<GdbRegister> SystemRegisters() =>
    [
        System("cs_base", "uint64", s => ref s.System.cs.@base), System("ss_base", "uint64", s => ref s.System.ss.@base),
        System("ds_base", "uint64", s => ref s.System.ds.@base), System("es_base", "uint64", s => ref s.System.es.@base),
        System("cr0", "uint64", s => ref s.System.cr0), System("cr2", "uint64", s => ref s.System.cr2), System("cr3", "uint64", s => ref s.System.cr3),
        System("cr4", "uint64", s => ref s.System.cr4), System("cr8", "uint64", s => ref s.System.cr8), System("efer", "uint64", s => ref s.System.efer),
        System("gdt_base", "uint64", s => ref s.System.gdt.@base), System("idt_base", "uint64", s => ref s.System.idt.@base),
        System("tr_base", "uint64", s => ref s.System.tr.@base), System("ldt_base", "uint64", s => ref s.System.ldt.@base),
    ];

    private static GdbRegister Integer(string name, Field<ulong> field, string type = "int64") => Wide(name, type, field, VcpuRegisters.Groups.General);

    private static GdbRegister System(string name, string type, Field<ulong> field) => Wide(name, type, field, VcpuRegisters.Groups.System);

    private static GdbRegister Wide(string name, string type, Field<ulong> field, VcpuRegisters.Groups group) => new(name, 64, type,
        (s, to) => BinaryPrimitives.WriteUInt64LittleEndian(to, field(s)),
        (s, from) => { field(s) = BinaryPrimitives.ReadUInt64LittleEndian(from); s.Changed |= group; });

    /// <summary>A selector; loading a descriptor with it is the guest's business, not a debugger's.</summary>
    private static GdbRegister Selector(string name, Field<kvm_segment> field) => new(name, 32, "int32",
        (s, to) => BinaryPrimitives.WriteUInt32LittleEndian(to, field(s).selector),
        (s, from) => { field(s).selector = (ushort)BinaryPrimitives.ReadUInt32LittleEndian(from); s.Changed |= VcpuRegisters.Groups.System; });

    private static GdbRegister Control(string name, Func<VcpuRegisters, uint> get, Action<VcpuRegisters, uint>? set) => new(name, 32, "int",
        (s, to) => BinaryPrimitives.WriteUInt32LittleEndian(to, get(s)),
        set is null ? null : (s, from) => { set(s, BinaryPrimitives.ReadUInt32LittleEndian(from)); s.Changed |= VcpuRegisters.Groups.Fpu; });

    private static Span<byte> Fpu(VcpuRegisters state) => MemoryMarshal.AsBytes(new Span<kvm_fpu>(ref state.Fpu));

    /// <summary>Two bits a register, where FXSAVE's byte has one: empty, or not.</summary>
    private static uint FullTags(byte present)
    {
        uint tags = 0;
        for (int i = 0; i < 8; i++) tags |= (present & (1 << i)) != 0 ? 0 : 3u << (i * 2);
        return tags;
    }

    private static string Describe()
    {
        var xml = new StringBuilder("<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\"><target version=\"1.0\"><architecture>i386:x86-64</architecture>\n");
        foreach ((string feature, GdbRegister[] registers) in s_features)
        {
            xml.Append(CultureInfo.InvariantCulture, $"<feature name=\"{feature}\">\n");
            xml.Append(Types(feature));
            foreach (GdbRegister r in registers) xml.Append(CultureInfo.InvariantCulture, $"<reg name=\"{r.Name}\" bitsize=\"{r.Bits}\" type=\"{r.Type}\"/>\n");
            xml.Append("</feature>\n");
        }

        return xml.Append("</target>\n").ToString();
    }

    private static string Types(string feature) => feature switch
    {
        "org.gnu.gdb.i386.core" => Flags("i386_eflags", ("CF", 0), ("", 1), ("PF", 2), ("AF", 4), ("ZF", 6), ("SF", 7), ("TF", 8), ("IF", 9), ("DF", 10), ("OF", 11), ("NT", 14), ("RF", 16),
            ("VM", 17), ("AC", 18), ("VIF", 19), ("VIP", 20), ("ID", 21)),
        "org.gnu.gdb.i386.sse" => """
            <vector id="v4f" type="ieee_single" count="4"/><vector id="v2d" type="ieee_double" count="2"/><vector id="v16i8" type="int8" count="16"/>
            <vector id="v8i16" type="int16" count="8"/><vector id="v4i32" type="int32" count="4"/><vector id="v2i64" type="int64" count="2"/>
            <union id="vec128"><field name="v4_float" type="v4f"/><field name="v2_double" type="v2d"/><field name="v16_int8" type="v16i8"/><field name="v8_int16" type="v8i16"/>
            <field name="v4_int32" type="v4i32"/><field name="v2_int64" type="v2i64"/><field name="uint128" type="uint128"/></union>

            """ + Flags("i386_mxcsr", ("IE", 0), ("DE", 1), ("ZE", 2), ("OE", 3), ("UE", 4), ("PE", 5), ("DAZ", 6), ("IM", 7), ("DM", 8), ("ZM", 9), ("OM", 10), ("UM", 11), ("PM", 12), ("FZ", 15)),
        _ => "",
    };

    private static string Flags(string id, params (string Name, int Bit)[] bits) =>
        $"<flags id=\"{id}\" size=\"4\">" + string.Concat(bits.Select(b => $"<field name=\"{b.Name}\" start=\"{b.Bit}\" end=\"{b.Bit}\"/>")) + "</flags>\n";
}

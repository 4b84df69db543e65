using System.Globalization;
using Kvm.Abi;
using Kvm.Core;
using static Kvm.Abi.Uapi;

namespace Kvm.Conformance.Tests.Dumps;

/// <summary>
/// What the recorder of Data/dumps asked a kernel, asked of the model, in the same order and under the same names: every answer is one line, "path" and value. CPUID entries go by leaf and subleaf, MSRs by number.
/// Sections: A a VM without interrupt controllers, B with them, C after KVM_SET_CPUID2, D a split one, E another boot CPU.
/// </summary>
internal sealed unsafe class KvmDump
{
    private readonly HostProcess process;
    private readonly int kvm;
    private readonly byte* buffer;
    private readonly List<uint> msrs = [];

    private KvmDump(HostProcess process)
    {
        this.process = process;
        kvm = (int)process.Open("/dev/kvm").Raw;
        buffer = (byte*)process.MapAnonymous(0x10000);
        System();
        WithoutIrqchip();
        WithIrqchip();
        Split();
        BootCpu();
    }

    public Dictionary<string, string> Lines { get; } = [];

    public static Dictionary<string, string> Of(HostProcess process) => new KvmDump(process).Lines;

    private void System()
    {
        Put("api_version", Ioctl(kvm, KVM_GET_API_VERSION, 0).Raw);
        Put("vcpu_mmap_size", Ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0).Raw);
        Capabilities("caps_dev", kvm);
        Cpuid("supported_cpuid", kvm, KVM_GET_SUPPORTED_CPUID, 256);
        Cpuid("emulated_cpuid", kvm, KVM_GET_EMULATED_CPUID, 256);
        Cpuid("supported_hv_cpuid_dev", kvm, KVM_GET_SUPPORTED_HV_CPUID, 256);
        Fresh(0x1000)[0] = 0xff;
        *(uint*)buffer = 1000;
        Ioctl(kvm, KVM_GET_MSR_INDEX_LIST, (ulong)buffer);
        for (int i = 0; i < *(int*)buffer; i++)
            msrs.Add(*(uint*)(buffer + 4 + 4 * i));
        for (int i = 0; i < msrs.Count; i++)
            Put($"msr_index_list[{Hex(msrs[i])}]", "");
        *(uint*)Fresh(0x1000) = 1000;
        Ioctl(kvm, KVM_GET_MSR_FEATURE_INDEX_LIST, (ulong)buffer);
        uint[] features = new ReadOnlySpan<uint>(buffer + 4, *(int*)buffer).ToArray();
        for (int i = 0; i < features.Length; i++)
            Msr("msr_feature_list", kvm, features[i]);
        var attribute = new kvm_device_attr { addr = (ulong)Fresh(8) };
        process.Ioctl(kvm, KVM_GET_DEVICE_ATTR, ref attribute);
        Put("dev_attr_xcomp_guest_supp", Hex(*(ulong*)buffer));
        Ioctl(kvm, KVM_X86_GET_MCE_CAP_SUPPORTED, (ulong)Fresh(8));
        Put("mce_cap_supported", Hex(*(ulong*)buffer));
    }

    private void WithoutIrqchip()
    {
        int vm = Create();
        Capabilities("caps_vm", vm);
        Vm("A_vm_bare", vm);
        Vcpu("A_noirqchip_vcpu0", (int)Ioctl(vm, KVM_CREATE_VCPU, 0).Raw, lapic: false);
        Vcpu("A_noirqchip_vcpu1", (int)Ioctl(vm, KVM_CREATE_VCPU, 1).Raw, lapic: false);
        Vm("A_vm_after", vm);
    }

    private void WithIrqchip()
    {
        int vm = Create();
        Ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000);
        Put("B_create_irqchip", Ioctl(vm, KVM_CREATE_IRQCHIP, 0).Raw);
        Put("B_create_pit2", Ioctl(vm, KVM_CREATE_PIT2, (ulong)Fresh(64)).Raw);
        Vm("B_vm_irqchip", vm);
        int vcpu = (int)Ioctl(vm, KVM_CREATE_VCPU, 0).Raw;
        Vcpu("B_irqchip_vcpu0_bsp", vcpu);
        Vcpu("B_irqchip_vcpu1_ap", (int)Ioctl(vm, KVM_CREATE_VCPU, 1).Raw);
        *(uint*)Fresh(0x3000) = 256;
        Ioctl(kvm, KVM_GET_SUPPORTED_CPUID, (ulong)buffer);
        Put("C_set_cpuid2", Ioctl(vcpu, KVM_SET_CPUID2, (ulong)buffer).Raw);
        Vcpu("C_after_set_cpuid2_vcpu0", vcpu, run: false);
        Cpuid("C_get_cpuid2", vcpu, KVM_GET_CPUID2, 256);
        Cpuid("supported_hv_cpuid_vcpu", vcpu, KVM_GET_SUPPORTED_HV_CPUID, 256);
    }

    private void Split()
    {
        int vm = Create();
        var cap = new kvm_enable_cap { cap = KVM_CAP_SPLIT_IRQCHIP };
        cap.args[0] = 24;
        Put("D_enable_split", process.Ioctl(vm, KVM_ENABLE_CAP, ref cap).Raw);
        Vm("D_vm_split", vm);
        Vcpu("D_split_vcpu0", (int)Ioctl(vm, KVM_CREATE_VCPU, 0).Raw);
        Vcpu("D_split_vcpu1", (int)Ioctl(vm, KVM_CREATE_VCPU, 1).Raw);
    }

    private void BootCpu()
    {
        int vm = Create();
        Ioctl(vm, KVM_CREATE_IRQCHIP, 0);
        Put("E_set_boot_cpu_id", Ioctl(vm, KVM_SET_BOOT_CPU_ID, 1).Raw);
        for (uint id = 0; id < 2; id++)
        {
            int vcpu = (int)Ioctl(vm, KVM_CREATE_VCPU, id).Raw;
            Ioctl(vcpu, KVM_GET_MP_STATE, (ulong)Fresh(4));
            Put($"E_vcpu{id}.mp_state", *(uint*)buffer);
            Ioctl(vcpu, KVM_GET_SREGS, (ulong)Fresh(312));
            Put($"E_vcpu{id}.apic_base", Hex(*(ulong*)(buffer + 272)));
        }
    }

    /// <summary>Every number up to 260: names of the recorder's header, the rest as "cap n".</summary>
    private void Capabilities(string path, int fd)
    {
        Dictionary<uint, string> names = Names();
        for (uint n = 0; n <= 260; n++)
            Put($"{path}.{names.GetValueOrDefault(n, $"cap {n}")}", Ioctl(fd, KVM_CHECK_EXTENSION, n).Raw);
    }

    private static Dictionary<uint, string> Names() => typeof(Uapi).GetFields()
        .Where(static f => f.IsLiteral && f.Name.StartsWith("KVM_CAP_", StringComparison.Ordinal)).Select(static f => (f.Name, Value: Convert.ToUInt64(f.GetRawConstantValue(), CultureInfo.InvariantCulture)))
        .Where(static f => f.Value <= 260 && RecordedDump.Names.Contains(f.Name)).ToDictionary(static f => (uint)f.Value, static f => f.Name);

    private void Cpuid(string path, int fd, uint number, uint entries)
    {
        *(uint*)Fresh(0x3000) = entries;
        if (Ioctl(fd, number, (ulong)buffer).IsError)
            return;
        for (int i = 0; i < *(int*)buffer; i++)
        {
            var entry = (kvm_cpuid_entry2*)(buffer + 8) + i;
            if (entry->function == 0 && i != 0)
                continue;
            string at = $"{path}[{Hex(entry->function)} {entry->index}]";
            Put($"{at}.flags", entry->flags);
            Put($"{at}.eax", Hex8(entry->eax));
            Put($"{at}.ebx", Hex8(entry->ebx));
            Put($"{at}.ecx", Hex8(entry->ecx));
            Put($"{at}.edx", Hex8(entry->edx));
        }
    }

    private void Vm(string path, int vm)
    {
        Ioctl(vm, KVM_GET_CLOCK, (ulong)Fresh(48));
        Put($"{path}.clock.clock_nonzero", *(ulong*)buffer != 0 ? 1 : 0);
        Put($"{path}.clock.flags", Hex(*(uint*)(buffer + 8)));
        Put($"{path}.tsc_khz", Ioctl(vm, KVM_GET_TSC_KHZ, 0).Raw);
        Put($"{path}.nr_mmu_pages", Ioctl(vm, KVM_GET_NR_MMU_PAGES, 0).Raw);
        for (uint chip = 0; chip < 3; chip++)
        {
            *(uint*)Fresh(520) = chip;
            if (Answered($"{path}.irqchip{chip}", Ioctl(vm, KVM_GET_IRQCHIP, (ulong)buffer)))
                Chip($"{path}.irqchip{chip}", chip);
        }

        if (!Answered($"{path}.pit2", Ioctl(vm, KVM_GET_PIT2, (ulong)Fresh(112))))
            return;
        Put($"{path}.pit2.flags", *(uint*)(buffer + 72));
        for (int i = 0; i < 3; i++)
        {
            byte* c = buffer + 24 * i;
            Put($"{path}.pit2.ch[{i}].count", *(uint*)c);
            Put($"{path}.pit2.ch[{i}].latched_count", *(ushort*)(c + 4));
            Bytes($"{path}.pit2.ch[{i}]", c + 6, "count_latched status_latched status read_state write_state write_latch rw_mode mode bcd gate");
            Put($"{path}.pit2.ch[{i}].count_load_time_nonzero", *(long*)(c + 16) != 0 ? 1 : 0);
        }
    }

    private bool Answered(string path, KvmResult result)
    {
        if (!result.IsError)
            return true;
        Put($"{path}.err", -1);
        Put($"{path}.errno", (int)result.Errno);
        return false;
    }

    private void Chip(string path, uint chip)
    {
        byte* c = buffer + 8;
        if (chip < 2)
        {
            Bytes(path, c, "last_irr irr imr isr priority_add irq_base read_reg_select poll special_mask init_state auto_eoi rotate_on_auto_eoi special_fully_nested_mode init4 elcr elcr_mask");
            return;
        }

        Put($"{path}.base", Hex(*(ulong*)c));
        Put($"{path}.ioregsel", Hex(*(uint*)(c + 8)));
        Put($"{path}.id", *(uint*)(c + 12));
        Put($"{path}.irr", Hex(*(uint*)(c + 16)));
        for (int i = 0; i < 24; i++)
            Put($"{path}.redirtbl[{i}]", Hex(*(ulong*)(c + 24 + 8 * i)));
    }

    private void Vcpu(string path, int vcpu, bool lapic = true, bool run = true)
    {
        Ioctl(vcpu, KVM_GET_REGS, (ulong)Fresh(144));
        Quads($"{path}.regs", buffer, "rax rbx rcx rdx rsi rdi rsp rbp r8 r9 r10 r11 r12 r13 r14 r15 rip rflags");
        Sregs(path, vcpu);
        Ioctl(vcpu, KVM_GET_FPU, (ulong)Fresh(416));
        Put($"{path}.fpu.fcw", Hex(*(ushort*)(buffer + 128)));
        Put($"{path}.fpu.fsw", Hex(*(ushort*)(buffer + 130)));
        Put($"{path}.fpu.ftwx", Hex(buffer[132]));
        Put($"{path}.fpu.last_opcode", Hex(*(ushort*)(buffer + 134)));
        Put($"{path}.fpu.last_ip", Hex(*(ulong*)(buffer + 136)));
        Put($"{path}.fpu.last_dp", Hex(*(ulong*)(buffer + 144)));
        Put($"{path}.fpu.mxcsr", Hex(*(uint*)(buffer + 408)));
        Put($"{path}.fpu.st_xmm_nonzero", new ReadOnlySpan<byte>(buffer, 128).ContainsAnyExcept((byte)0) || new ReadOnlySpan<byte>(buffer + 152, 256).ContainsAnyExcept((byte)0) ? 1 : 0);
        Ioctl(vcpu, KVM_GET_XSAVE, (ulong)Fresh(4096));
        Words($"{path}.xsave", 4096, "size");
        Ioctl(vcpu, KVM_GET_XSAVE2, (ulong)Fresh(4096));
        Words($"{path}.xsave2", 4096, "size");
        Ioctl(vcpu, KVM_GET_XCRS, (ulong)Fresh(392));
        Put($"{path}.xcrs.flags", *(uint*)(buffer + 4));
        for (int i = 0; i < *(int*)buffer; i++)
        {
            Put($"{path}.xcrs.xcrs[{i}].xcr", *(uint*)(buffer + 8 + 16 * i));
            Put($"{path}.xcrs.xcrs[{i}].value", Hex(*(ulong*)(buffer + 16 + 16 * i)));
        }

        Events(path, vcpu);
        Ioctl(vcpu, KVM_GET_MP_STATE, (ulong)Fresh(4));
        Put($"{path}.mp_state", *(uint*)buffer);
        if (lapic || Ioctl(vcpu, KVM_GET_LAPIC, (ulong)Fresh(1024)).IsError)
            Lapic($"{path}.lapic", vcpu);
        Put($"{path}.tsc_khz", Ioctl(vcpu, KVM_GET_TSC_KHZ, 0).Raw);
        *(uint*)Fresh(0x3000) = 256;
        Ioctl(vcpu, KVM_GET_CPUID2, (ulong)buffer);
        Put($"{path}.cpuid2_nent", *(uint*)buffer);
        *(uint*)(Fresh(0x3000) + 4) = 0x3000;
        Put($"{path}.nested_state.ret", Ioctl(vcpu, KVM_GET_NESTED_STATE, (ulong)buffer).Raw);
        Put($"{path}.nested_state.flags", Hex(*(ushort*)buffer));
        Put($"{path}.nested_state.format", *(ushort*)(buffer + 2));
        Put($"{path}.nested_state.size", *(uint*)(buffer + 4));
        Put($"{path}.nested_state.hdr", Convert.ToHexStringLower(new ReadOnlySpan<byte>(buffer + 8, 64)));
        for (int i = 0; i < msrs.Count; i++)
            Msr($"{path}.msrs", vcpu, msrs[i]);
        if (!run)
            return;
        ulong page = (ulong)process.Mmap(0x3000, Fcntl.PROT_READ | Fcntl.PROT_WRITE, Fcntl.MAP_SHARED, vcpu).Raw;
        new ReadOnlySpan<byte>((byte*)page, 4096).CopyTo(new Span<byte>(Fresh(4096), 4096));
        Words($"{path}.kvm_run", 4096, "size");
    }

    private void Sregs(string path, int vcpu)
    {
        Ioctl(vcpu, KVM_GET_SREGS2, (ulong)Fresh(320));
        ulong flags = *(ulong*)(buffer + 280);
        ulong[] pdptrs = new ReadOnlySpan<ulong>(buffer + 288, 4).ToArray();
        Ioctl(vcpu, KVM_GET_SREGS, (ulong)Fresh(312));
        string at = $"{path}.sregs";
        string[] segments = "cs ds es fs gs ss tr ldt".Split(' ');
        for (int i = 0; i < 8; i++)
        {
            byte* s = buffer + 24 * i;
            Put($"{at}.{segments[i]}.base", Hex(*(ulong*)s));
            Put($"{at}.{segments[i]}.limit", Hex(*(uint*)(s + 8)));
            Put($"{at}.{segments[i]}.selector", Hex(*(ushort*)(s + 12)));
            Bytes($"{at}.{segments[i]}", s + 14, "type present dpl db s l g avl unusable");
        }

        foreach ((string name, int offset) in new[] { ("gdt", 192), ("idt", 208) })
        {
            Put($"{at}.{name}.base", Hex(*(ulong*)(buffer + offset)));
            Put($"{at}.{name}.limit", Hex(*(ushort*)(buffer + offset + 8)));
        }

        Quads(at, buffer + 224, "cr0 cr2 cr3 cr4 cr8 efer apic_base");
        for (int i = 0; i < 4; i++)
            Put($"{at}.interrupt_bitmap[{i}]", Hex(*(ulong*)(buffer + 280 + 8 * i)));
        Put($"{path}.sregs2_flags.flags", Hex(flags));
        for (int i = 0; i < 4; i++)
            Put($"{path}.sregs2_flags.pdptrs[{i}]", Hex(pdptrs[i]));
    }

    private void Events(string path, int vcpu)
    {
        Ioctl(vcpu, KVM_GET_VCPU_EVENTS, (ulong)Fresh(64));
        Bytes($"{path}.events.exception", buffer, "injected nr has_error_code pending");
        Put($"{path}.events.exception.error_code", *(uint*)(buffer + 4));
        Bytes($"{path}.events.interrupt", buffer + 8, "injected nr soft shadow");
        Bytes($"{path}.events.nmi", buffer + 12, "injected pending masked");
        Put($"{path}.events.sipi_vector", *(uint*)(buffer + 16));
        Put($"{path}.events.flags", Hex(*(uint*)(buffer + 20)));
        Bytes($"{path}.events.smi", buffer + 24, "smm pending smm_inside_nmi latched_init");
        Put($"{path}.events.exception_has_payload", buffer[55]);
        Put($"{path}.events.exception_payload", Hex(*(ulong*)(buffer + 56)));
        Ioctl(vcpu, KVM_GET_DEBUGREGS, (ulong)Fresh(128));
        for (int i = 0; i < 4; i++)
            Put($"{path}.debugregs.db[{i}]", Hex(*(ulong*)(buffer + 8 * i)));
        Quads($"{path}.debugregs", buffer + 32, "dr6 dr7 flags");
    }

    private void Lapic(string path, int vcpu)
    {
        if (!Answered(path, Ioctl(vcpu, KVM_GET_LAPIC, (ulong)Fresh(1024))))
            return;
        for (int at = 0; at < 1024; at += 16)
        {
            if (*(uint*)(buffer + at) is not 0 and uint value)
                Put($"{path}.{Hex((uint)at)}", Hex8(value));
        }
    }

    private void Msr(string path, int fd, uint index)
    {
        byte* at = Fresh(24);
        *(uint*)at = 1;
        *(uint*)(at + 8) = index;
        Put($"{path}[{Hex(index)}].ret", Ioctl(fd, KVM_GET_MSRS, (ulong)at).Raw);
        Put($"{path}[{Hex(index)}].value", Hex(*(ulong*)(at + 16)));
    }

    private void Words(string path, int size, string name)
    {
        Put($"{path}.{name}", size);
        for (int at = 0; at < size; at += 4)
        {
            if (*(uint*)(buffer + at) is not 0 and uint value)
                Put($"{path}.words.{Hex((uint)at)}", Hex8(value));
        }
    }

    private void Bytes(string path, byte* at, string names)
    {
        foreach (string name in names.Split(' '))
            Put($"{path}.{name}", *at++);
    }

    private void Quads(string path, byte* at, string names)
    {
        foreach (string name in names.Split(' '))
        {
            Put($"{path}.{name}", Hex(*(ulong*)at));
            at += 8;
        }
    }

    private int Create() => (int)Ioctl(kvm, KVM_CREATE_VM, 0).Raw;

    private KvmResult Ioctl(int fd, uint number, ulong argument) => process.Ioctl(fd, number, argument);

    private byte* Fresh(int size)
    {
        new Span<byte>(buffer, size).Clear();
        return buffer;
    }

    private void Put(string path, long value) => Put(path, value.ToString(CultureInfo.InvariantCulture));

    private void Put(string path, string value) => Lines.Add(path, value);

    private static string Hex(ulong value) => $"0x{value:x}";

    private static string Hex8(uint value) => $"0x{value:x8}";
}

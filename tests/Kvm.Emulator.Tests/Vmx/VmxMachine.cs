using Iced.Intel;
using Kvm.Emulator.Vmx;

namespace Kvm.Emulator.Tests.Vmx;

/// <summary>
/// A machine with one Intel processor in the state of a 64-bit kernel, and helpers to make a VMCS whose guest enters: 2 MiB of guest memory mapped by EPT,
/// guest code at 0x1000, in real mode (unrestricted guest) or 64-bit mode.
/// </summary>
internal sealed unsafe class VmxMachine : IDisposable
{
    public const ulong GuestMemorySize = 2 << 20;
    public const ulong CodeAddress = 0x1000, StackAddress = 0x7000, PageTables = 0x8000, IdtAddress = 0xc000, GdtAddress = 0xd000, DataAddress = 0x10000;
    public const ulong HostRip = 0xffff_8000_1234_5678;

    public VmxMachine(Func<VmxCapabilities, VmxCapabilities>? capabilities = null, int processors = 1, Func<CpuModel, CpuModel>? model = null, TimeProvider? time = null, BiosSettings? bios = null)
    {
        Capabilities = capabilities?.Invoke(new VmxCapabilities()) ?? new VmxCapabilities();
        var msrs = new Dictionary<uint, ulong?>();
        for (uint i = Msr.IA32_VMX_BASIC; i <= Msr.IA32_VMX_PROCBASED_CTLS3; i++)
            msrs[i] = Capabilities.ToMsrs().TryGetValue(i, out ulong v) ? v : null;
        CpuModel cpu = CpuModel.IntelSkylake.With(msrs: msrs);
        cpu = model?.Invoke(cpu) ?? cpu;
        MachineOptions options = MachineOptions.Uniform(cpu, processors, bios);
        if (time is not null)
            options = options with { Time = time };
        Machine = new Machine(options);
        foreach (Processor p in Machine.Processors)
            EnterKernelMode(p);
    }

    public VmxCapabilities Capabilities { get; }
    public Machine Machine { get; }
    public Processor Cpu => Machine.Processors[0];
    public CpuState* State => Cpu.State;

    public ulong VmxonPage { get; private set; }
    public ulong VmcsPage { get; private set; }
    public byte* Guest { get; private set; }
    public ulong EptLeafTable { get; private set; }
    public ulong EptRoot { get; private set; }
    public byte* MsrBitmap { get; private set; }
    public byte* IoBitmaps { get; private set; }
    public byte* VirtualApic { get; private set; }

    public ulong Page() => Machine.Memory.Allocate(4096);

    public static void EnterKernelMode(Processor cpu) => cpu.EnterKernelMode(new KernelContext
    {
        Cr3 = 0x1000,
        GdtBase = 0xffff_8000_0000_1000,
        GdtLimit = 0x7f,
        IdtBase = 0xffff_8000_0000_2000,
        IdtLimit = 0xfff,
        TssBase = 0xffff_8000_0000_3000,
        TssLimit = 0x67,
        GsBase = 0xffff_8000_0000_4000,
        StackTop = 0xffff_8000_0000_8000,
    });

    /// <summary>A VMXON region and VMXON; CR4.VMXE set.</summary>
    public void EnterVmx(Processor? on = null)
    {
        Processor cpu = on ?? Cpu;
        ulong page = Page();
        *(uint*)page = Capabilities.RevisionId;
        if (cpu == Cpu)
            VmxonPage = page;
        cpu.WriteCr(4, cpu.ReadCr(4) | Cr4.VMXE).Ok.Should().BeTrue();
        cpu.Vmxon(page).Should().Be(InstructionResult.Success);
    }

    public ulong NewVmcs()
    {
        ulong page = Page();
        *(uint*)page = Capabilities.RevisionId;
        return page;
    }

    public void Write(VmcsField field, ulong value) => Cpu.Vmwrite(field, value).Ok.Should().BeTrue("VMWRITE of {0}", field);

    public ulong Read(VmcsField field)
    {
        Cpu.Vmread(field, out ulong value).Ok.Should().BeTrue("VMREAD of {0}", field);
        return value;
    }

    public VmxExitReason ExitReason => (VmxExitReason)(ushort)Read(VmcsField.VM_EXIT_REASON);
    public VmxInstructionError Error => (VmxInstructionError)Read(VmcsField.VM_INSTRUCTION_ERROR);

    /// <summary>VMX operation, a current VMCS with valid host state and a guest that would enter.</summary>
    public VmxMachine WithGuest(bool longMode = false)
    {
        EnterVmx();
        VmcsPage = NewVmcs();
        Cpu.Vmclear(VmcsPage).Should().Be(InstructionResult.Success);
        Cpu.Vmptrld(VmcsPage).Should().Be(InstructionResult.Success);
        BuildGuestMemory();
        WriteControls(longMode);
        WriteHostState();
        if (longMode)
            WriteLongModeGuest();
        else
            WriteRealModeGuest();
        return this;
    }

    private void BuildGuestMemory()
    {
        Guest = (byte*)Machine.Memory.Allocate(GuestMemorySize);
        ulong pml4 = Page(), pdpt = Page(), pd = Page();
        EptLeafTable = Page();
        EptRoot = pml4;
        *(ulong*)pml4 = pdpt | 7;
        *(ulong*)pdpt = pd | 7;
        *(ulong*)pd = EptLeafTable | 7;
        for (int i = 0; i < 512; i++)
            EptEntry(i) = ((ulong)Guest + ((ulong)i << 12)) | 7 | 6 << 3;
        MsrBitmap = (byte*)Page();
        IoBitmaps = (byte*)Machine.Memory.Allocate(8192);
        VirtualApic = (byte*)Page();
        // Guest tables of the 64-bit mode: identity map of 1 GiB by one page-directory-pointer entry per level, 2 MiB pages.
        ulong* tables = (ulong*)(Guest + PageTables);
        tables[0] = (PageTables + 0x1000) | 7;
        tables[512] = (PageTables + 0x2000) | 7;
        tables[1024] = 0x87;
    }

    /// <summary>EPT leaf entry of a guest page.</summary>
    public ref ulong EptEntry(int page) => ref ((ulong*)EptLeafTable)[page];

    private void WriteControls(bool longMode)
    {
        Write(VmcsField.PIN_BASED_VM_EXEC_CONTROL, (uint)Capabilities.PinBased | (uint)(PinBasedControls.ExternalInterruptExiting | PinBasedControls.NmiExiting));
        Write(VmcsField.CPU_BASED_VM_EXEC_CONTROL, (uint)Capabilities.TrueProcBased
            | (uint)(PrimaryControls.HltExiting | PrimaryControls.UnconditionalIoExiting | PrimaryControls.UseMsrBitmaps | PrimaryControls.ActivateSecondaryControls));
        Write(VmcsField.SECONDARY_VM_EXEC_CONTROL, (uint)(SecondaryControls.EnableEpt | SecondaryControls.UnrestrictedGuest | SecondaryControls.EnableVpid));
        Write(VmcsField.VM_EXIT_CONTROLS, (uint)Capabilities.Exit | (uint)(VmExitControls.HostAddressSpaceSize | VmExitControls.AcknowledgeInterruptOnExit
            | VmExitControls.SaveEfer | VmExitControls.LoadEfer | VmExitControls.SavePat | VmExitControls.LoadPat));
        Write(VmcsField.VM_ENTRY_CONTROLS, (uint)Capabilities.Entry | (uint)(VmEntryControls.LoadEfer | VmEntryControls.LoadPat
            | (longMode ? VmEntryControls.Ia32eModeGuest : 0)));
        Write(VmcsField.EPT_POINTER, EptRoot | 6 | 3 << 3);
        Write(VmcsField.VIRTUAL_PROCESSOR_ID, 1);
        Write(VmcsField.MSR_BITMAP, (ulong)MsrBitmap);
        Write(VmcsField.VMCS_LINK_POINTER, ulong.MaxValue);
        Write(VmcsField.TSC_MULTIPLIER, 1UL << 48);
    }

    private void WriteHostState()
    {
        Write(VmcsField.HOST_CR0, Cpu.ReadCr(0));
        Write(VmcsField.HOST_CR3, Cpu.ReadCr(3));
        Write(VmcsField.HOST_CR4, Cpu.ReadCr(4));
        Write(VmcsField.HOST_CS_SELECTOR, 0x10);
        Write(VmcsField.HOST_SS_SELECTOR, 0x18);
        Write(VmcsField.HOST_TR_SELECTOR, 0x40);
        Write(VmcsField.HOST_GS_BASE, 0xffff_8000_0000_4000);
        Write(VmcsField.HOST_TR_BASE, 0xffff_8000_0000_3000);
        Write(VmcsField.HOST_GDTR_BASE, 0xffff_8000_0000_1000);
        Write(VmcsField.HOST_IDTR_BASE, 0xffff_8000_0000_2000);
        Write(VmcsField.HOST_RIP, HostRip);
        Write(VmcsField.HOST_RSP, 0xffff_8000_0000_7000);
        Write(VmcsField.HOST_IA32_EFER, State->Efer);
        Write(VmcsField.HOST_IA32_PAT, 0x0007_0406_0007_0406);
    }

    private void WriteCommonGuest()
    {
        Write(VmcsField.GUEST_RIP, CodeAddress);
        Write(VmcsField.GUEST_RSP, StackAddress);
        Write(VmcsField.GUEST_RFLAGS, 2);
        Write(VmcsField.GUEST_IA32_PAT, 0x0007_0406_0007_0406);
        Write(VmcsField.GUEST_DR7, 0x400);
        Write(VmcsField.GUEST_TR_AR_BYTES, 0x8b);
        Write(VmcsField.GUEST_TR_LIMIT, 0xffff);
        Write(VmcsField.GUEST_LDTR_AR_BYTES, 0x10000);
        Write(VmcsField.GUEST_GDTR_LIMIT, 0xff);
        Write(VmcsField.GUEST_GDTR_BASE, GdtAddress);
    }

    private void WriteSegment(string name, ushort selector, uint limit, uint rights)
    {
        Write(Enum.Parse<VmcsField>($"GUEST_{name}_SELECTOR"), selector);
        Write(Enum.Parse<VmcsField>($"GUEST_{name}_LIMIT"), limit);
        Write(Enum.Parse<VmcsField>($"GUEST_{name}_AR_BYTES"), rights);
    }

    private void WriteRealModeGuest()
    {
        WriteCommonGuest();
        foreach (string s in new[] { "ES", "SS", "DS", "FS", "GS" })
            WriteSegment(s, 0, 0xffff, 0x93);
        WriteSegment("CS", 0, 0xffff, 0x9b);
        Write(VmcsField.GUEST_IDTR_LIMIT, 0x3ff);
        Write(VmcsField.GUEST_CR0, Cr0.ET | Cr0.NE);
        Write(VmcsField.GUEST_CR4, Cr4.VMXE);
    }

    private void WriteLongModeGuest()
    {
        WriteCommonGuest();
        foreach (string s in new[] { "ES", "SS", "DS", "FS", "GS" })
            WriteSegment(s, 0x10, 0xffff_ffff, 0xc093);
        WriteSegment("CS", 8, 0xffff_ffff, 0xa09b);
        Write(VmcsField.GUEST_IDTR_LIMIT, 0xfff);
        Write(VmcsField.GUEST_IDTR_BASE, IdtAddress);
        Write(VmcsField.GUEST_CR0, Cr0.PE | Cr0.ET | Cr0.NE | Cr0.WP | Cr0.PG);
        Write(VmcsField.GUEST_CR3, PageTables);
        Write(VmcsField.GUEST_CR4, Cr4.VMXE | Cr4.PAE);
        Write(VmcsField.GUEST_IA32_EFER, Efer.LME | Efer.LMA);
        ulong* gdt = (ulong*)(Guest + GdtAddress);
        gdt[1] = 0x00af_9b00_0000_ffff;
        gdt[2] = 0x00cf_9300_0000_ffff;
    }

    /// <summary>Assembles guest code at <see cref="CodeAddress"/>; returns its length.</summary>
    public int Code(int bitness, Action<Assembler> write)
    {
        byte[] bytes = Assemble(bitness, CodeAddress, write);
        bytes.CopyTo(new Span<byte>(Guest + CodeAddress, bytes.Length));
        return bytes.Length;
    }

    public static byte[] Assemble(int bitness, ulong address, Action<Assembler> write)
    {
        var assembler = new Assembler(bitness);
        write(assembler);
        using var stream = new MemoryStream();
        assembler.Assemble(new StreamCodeWriter(stream), address);
        return stream.ToArray();
    }

    /// <summary>VMLAUNCH that must come back with a VM exit; returns its basic reason.</summary>
    public VmxExitReason Launch()
    {
        Cpu.Vmlaunch().Should().Be(InstructionResult.Success, "the rule that failed: {0}", Cpu.Vmx.FailedRule);
        return ExitReason;
    }

    public VmxExitReason Resume()
    {
        Cpu.Vmresume().Should().Be(InstructionResult.Success, "the rule that failed: {0}", Cpu.Vmx.FailedRule);
        return ExitReason;
    }

    /// <summary>Advances GUEST_RIP over the instruction that exited.</summary>
    public void Skip() => Write(VmcsField.GUEST_RIP, Read(VmcsField.GUEST_RIP) + Read(VmcsField.VM_EXIT_INSTRUCTION_LEN));

    public void Set(VmcsField field, ulong bits) => Write(field, Read(field) | bits);
    public void Clear(VmcsField field, ulong bits) => Write(field, Read(field) & ~bits);

    public void Dispose() => Machine.Dispose();
}

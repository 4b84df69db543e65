using Kvm.Abi;
using Kvm.Core;
using Kvm.Core.Tracing;
using Kvm.Emulator;
using static Kvm.Arch.X86.Vmx.VmxControls;
using static Kvm.Emulator.Vmx.VmcsField;

namespace Kvm.Arch.X86.Vmx;

/// <summary>Real mode without unrestricted guest: virtual-8086 mode on a TSS and page table that KVM keeps in guest memory.</summary>
public sealed unsafe partial class KvmIntel
{
    private static readonly int[] rmodeSegmentsToPmode = [VCPU_SREG_CS, VCPU_SREG_SS, VCPU_SREG_ES, VCPU_SREG_DS, VCPU_SREG_FS, VCPU_SREG_GS];

    [KernelFunction("fix_pmode_seg", File = "arch/x86/kvm/vmx/vmx.c")]
    private void FixPmodeSeg(VcpuVmx vmx, int seg)
    {
        using var _ = FunctionTrace.Enter("fix_pmode_seg");
        ref kvm_segment save = ref vmx.Rmode.Segs[seg];
        if (!EmulateInvalidGuestState)
        {
            // In the middle of the switch from real to protected mode RPL 0 is a safe guess for CS and SS, which must agree.
            if (seg is VCPU_SREG_CS or VCPU_SREG_SS)
                save.selector = (ushort)(save.selector & ~segmentRplMask);
            save.dpl = (byte)(save.selector & segmentRplMask);
            save.s = 1;
        }
        SetSegmentRaw(vmx, ref save, seg);
    }

    [KernelFunction("enter_pmode", File = "arch/x86/kvm/vmx/vmx.c")]
    private void EnterPmode(VcpuVmx vmx)
    {
        // The saved segments may be behind what the guest loaded.
        GetSegment(vmx, out vmx.Rmode.Segs[VCPU_SREG_ES], VCPU_SREG_ES);
        GetSegment(vmx, out vmx.Rmode.Segs[VCPU_SREG_DS], VCPU_SREG_DS);
        GetSegment(vmx, out vmx.Rmode.Segs[VCPU_SREG_FS], VCPU_SREG_FS);
        GetSegment(vmx, out vmx.Rmode.Segs[VCPU_SREG_GS], VCPU_SREG_GS);
        GetSegment(vmx, out vmx.Rmode.Segs[VCPU_SREG_SS], VCPU_SREG_SS);
        GetSegment(vmx, out vmx.Rmode.Segs[VCPU_SREG_CS], VCPU_SREG_CS);
        vmx.Rmode.Vm86Active = false;
        SetSegmentRaw(vmx, ref vmx.Rmode.Segs[VCPU_SREG_TR], VCPU_SREG_TR);

        ulong flags = vmx.Readl(GUEST_RFLAGS);
        flags = (flags & rmodeGuestOwnedEflagsBits) | (vmx.Rmode.SaveRflags & ~rmodeGuestOwnedEflagsBits);
        vmx.Writel(GUEST_RFLAGS, flags);
        vmx.Writel(GUEST_CR4, (vmx.Readl(GUEST_CR4) & ~Cr4.VME) | (vmx.Readl(CR4_READ_SHADOW) & Cr4.VME));
        UpdateExceptionBitmap(vmx);
        foreach (int seg in rmodeSegmentsToPmode)
            FixPmodeSeg(vmx, seg);
    }

    /// <summary>Writes a real-mode segment as virtual-8086 mode wants it: DPL 3, and (unless invalid state is emulated) base, limit and type forced.</summary>
    [KernelFunction("fix_rmode_seg", File = "arch/x86/kvm/vmx/vmx.c")]
    private void FixRmodeSeg(VcpuVmx vmx, int seg, in kvm_segment save)
    {
        using var _ = FunctionTrace.Enter("fix_rmode_seg");
        SegmentFields sf = SegmentField[seg];
        kvm_segment var = save;
        var.dpl = 3;
        if (seg == VCPU_SREG_CS)
            var.type = 3;
        if (!EmulateInvalidGuestState)
        {
            var.selector = (ushort)(var.@base >> 4);
            var.@base &= 0xffff0;
            var.limit = 0xffff;
            var.g = 0;
            var.db = 0;
            var.present = 1;
            var.s = 1;
            var.l = 0;
            var.unusable = 0;
            var.type = 3;
            var.avl = 0;
            if ((save.@base & 0xf) != 0)
                PrWarnOnce($"kvm: segment base is not paragraph aligned when entering protected mode (seg={seg})");
        }
        vmx.Write16(sf.Selector, var.selector);
        vmx.Writel(sf.Base, var.@base);
        vmx.Write32(sf.Limit, var.limit);
        vmx.Write32(sf.ArBytes, SegmentAccessRights(in var));
    }

    [KernelFunction("enter_rmode", File = "arch/x86/kvm/vmx/vmx.c")]
    private void EnterRmode(VcpuVmx vmx)
    {
        KvmVmx kvm = ToKvmVmx(vmx.Vm);
        GetSegment(vmx, out vmx.Rmode.Segs[VCPU_SREG_TR], VCPU_SREG_TR);
        GetSegment(vmx, out vmx.Rmode.Segs[VCPU_SREG_ES], VCPU_SREG_ES);
        GetSegment(vmx, out vmx.Rmode.Segs[VCPU_SREG_DS], VCPU_SREG_DS);
        GetSegment(vmx, out vmx.Rmode.Segs[VCPU_SREG_FS], VCPU_SREG_FS);
        GetSegment(vmx, out vmx.Rmode.Segs[VCPU_SREG_GS], VCPU_SREG_GS);
        GetSegment(vmx, out vmx.Rmode.Segs[VCPU_SREG_SS], VCPU_SREG_SS);
        GetSegment(vmx, out vmx.Rmode.Segs[VCPU_SREG_CS], VCPU_SREG_CS);
        vmx.Rmode.Vm86Active = true;
        if (kvm.RmodeTssAddr == 0)
            PrWarnOnce("kvm: KVM_SET_TSS_ADDR need to be called before entering vcpu");

        SegmentCacheClear(vmx);
        vmx.Writel(GUEST_TR_BASE, kvm.RmodeTssAddr);
        vmx.Write32(GUEST_TR_LIMIT, RMODE_TSS_SIZE - 1);
        vmx.Write32(GUEST_TR_AR_BYTES, 0x8b);
        ulong flags = vmx.Readl(GUEST_RFLAGS);
        vmx.Rmode.SaveRflags = flags;
        vmx.Writel(GUEST_RFLAGS, flags | Flags.IOPL | Flags.VM);
        vmx.Writel(GUEST_CR4, vmx.Readl(GUEST_CR4) | Cr4.VME);
        UpdateExceptionBitmap(vmx);

        FixRmodeSeg(vmx, VCPU_SREG_SS, in vmx.Rmode.Segs[VCPU_SREG_SS]);
        FixRmodeSeg(vmx, VCPU_SREG_CS, in vmx.Rmode.Segs[VCPU_SREG_CS]);
        FixRmodeSeg(vmx, VCPU_SREG_ES, in vmx.Rmode.Segs[VCPU_SREG_ES]);
        FixRmodeSeg(vmx, VCPU_SREG_DS, in vmx.Rmode.Segs[VCPU_SREG_DS]);
        FixRmodeSeg(vmx, VCPU_SREG_GS, in vmx.Rmode.Segs[VCPU_SREG_GS]);
        FixRmodeSeg(vmx, VCPU_SREG_FS, in vmx.Rmode.Segs[VCPU_SREG_FS]);
    }

    /// <summary>Three zero pages with an I/O map offset and a closing byte: the TSS of virtual-8086 mode.</summary>
    [KernelFunction("init_rmode_tss", File = "arch/x86/kvm/vmx/vmx.c")]
    private static int InitRmodeTss(ulong hva)
    {
        new Span<byte>((void*)hva, 3 * 4096).Clear();
        *(ushort*)(hva + TSS_IOPB_BASE_OFFSET) = (ushort)(TSS_BASE_SIZE + TSS_REDIRECTION_SIZE);
        *(byte*)(hva + RMODE_TSS_SIZE - 1) = 0xff;
        return 0;
    }

    /// <summary>KVM_SET_TSS_ADDR: nothing on a processor with unrestricted guest, else a private memslot of three pages. -EEXIST when it was set before.</summary>
    [KernelFunction("vmx_set_tss_addr", File = "arch/x86/kvm/vmx/vmx.c")]
    public int SetTssAddr(X86Vm kvm, uint address)
    {
        using var _ = FunctionTrace.Enter("vmx_set_tss_addr");
        if (EnableUnrestrictedGuest)
            return 0;
        int r;
        ulong hva;
        using (kvm.SlotsLock.Enter())
            r = arch.SetMemoryRegion(kvm, TSS_PRIVATE_MEMSLOT, address, 3 * 4096, out hva);
        if (r != 0)
            return r;
        ToKvmVmx(kvm).RmodeTssAddr = address;
        return InitRmodeTss(hva);
    }

    [KernelFunction("vmx_set_identity_map_addr", File = "arch/x86/kvm/vmx/vmx.c")]
    public int SetIdentityMapAddr(X86Vm kvm, ulong address)
    {
        using var _ = FunctionTrace.Enter("vmx_set_identity_map_addr");
        ToKvmVmx(kvm).EptIdentityMapAddr = address;
        return 0;
    }

    /// <summary>A page of 4 MiB identity mappings in a private memslot, for guests that run with paging off under EPT without unrestricted guest.</summary>
    [KernelFunction("init_rmode_identity_map", File = "arch/x86/kvm/vmx/vmx.c")]
    private int InitRmodeIdentityMap(X86Vm kvm)
    {
        KvmVmx kvmVmx = ToKvmVmx(kvm);
        using (kvm.SlotsLock.Enter())
        {
            if (kvmVmx.EptIdentityPagetableDone)
                return 0;
            if (kvmVmx.EptIdentityMapAddr == 0)
                kvmVmx.EptIdentityMapAddr = VMX_EPT_IDENTITY_PAGETABLE_ADDR;
            int r = arch.SetMemoryRegion(kvm, IDENTITY_PAGETABLE_PRIVATE_MEMSLOT, kvmVmx.EptIdentityMapAddr, 4096, out ulong hva);
            if (r != 0)
                return r;
            // Present, writable, user, accessed, dirty, large.
            for (uint i = 0; i < 1024; i++)
                ((uint*)hva)[i] = (i << 22) + 0xe7;
            kvmVmx.EptIdentityPagetableDone = true;
            return 0;
        }
    }

    /// <summary>Delivers an event the way a processor in real mode does; memory that isn't there is a triple fault.</summary>
    [KernelFunction("kvm_inject_realmode_interrupt", File = "arch/x86/kvm/x86.c")]
    private void InjectRealmodeInterrupt(VcpuVmx vmx, byte vector, int incEip)
    {
        GetSegment(vmx, out kvm_segment ss, VCPU_SREG_SS);
        GetSegment(vmx, out kvm_segment cs, VCPU_SREG_CS);
        GetIdt(vmx, out DescPtr idt);
        ulong rflags = vmx.GetRflags();
        ushort* frame = stackalloc ushort[3];
        frame[0] = (ushort)(vmx.Rip + (ulong)incEip);
        frame[1] = cs.selector;
        frame[2] = (ushort)rflags;
        ushort sp = (ushort)vmx.Rsp;
        for (int i = 2; i >= 0; i--)
        {
            sp -= 2;
            if (vmx.WriteGuest(ss.@base + sp, frame + i, 2).IsError)
            {
                vmx.MakeRequest(KVM_REQ_TRIPLE_FAULT);
                return;
            }
        }
        ushort* entry = stackalloc ushort[2];
        if (vmx.ReadGuest(idt.Address + vector * 4ul, entry, 4).IsError)
        {
            vmx.MakeRequest(KVM_REQ_TRIPLE_FAULT);
            return;
        }
        vmx.Rsp = (vmx.Rsp & ~0xfffful) | sp;
        cs.selector = entry[1];
        cs.@base = (ulong)entry[1] << 4;
        SetSegment(vmx, in cs, VCPU_SREG_CS);
        vmx.Rip = entry[0];
        vmx.SetRflags(rflags & ~(Flags.IF | Flags.TF | Flags.AC));
    }
}

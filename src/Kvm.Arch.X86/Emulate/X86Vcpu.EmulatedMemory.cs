using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.X86Const;
using static Kvm.Arch.X86.X86EmulateContext;

namespace Kvm.Arch.X86;

/// <remarks>Guest-virtual access of the instruction emulator: memory, in-kernel devices, then KVM_EXIT_MMIO.</remarks>
public unsafe partial class X86Vcpu
{
    private const ulong ApicDefaultPhysBase = 0xfee00000;

    /// <summary>
    /// emulator_read_write: Continue, PropagateFault, or IoNeeded for a read that userspace has to answer. A write that goes to userspace is complete here
    /// (its data is in kvm_run). At most one access per instruction can become MMIO; it has up to two fragments, one per page.
    /// </summary>
    internal int EmulatorReadWrite(X86EmulateContext ctxt, ulong addr, byte* value, uint bytes, bool write, ref X86Exception exception)
    {
        using var _ = FunctionTrace.Enter("emulator_read_write");
        if (!write)
            FunctionTrace.Leaf("read_prepare");
        if (!write && MmioReadCompleted)
        {
            // The second pass: userspace's answer is in the buffer already.
            if (Tracepoints.Enabled)
                Tracepoints.Emit("kvm_mmio", $"mmio read len {bytes} gpa 0x{MmioFragments[0].Gpa:x} val 0x{First(value, bytes):x}");
            MmioReadCompleted = false;
            return Continue;
        }

        MmioNrFragments = 0;
        int rc;
        uint left = bytes;
        if ((((addr + bytes - 1) ^ addr) & ~0xffful) != 0)
        {
            uint now = (uint)(0x1000 - (addr & 0xfff));
            rc = ReadWriteOnePage(ctxt, addr, value, now, write, ref exception);
            if (rc != Continue)
                return rc;
            addr += now;
            if (ctxt.Mode != EmulMode.Prot64)
                addr = (uint)addr;
            value += now;
            left -= now;
        }

        rc = ReadWriteOnePage(ctxt, addr, value, left, write, ref exception);
        if (rc != Continue || MmioNrFragments == 0)
            return rc;

        MmioNeeded = true;
        MmioCurFragment = 0;
        MmioIsWrite = write;
        ref KvmMmioFragment fragment = ref MmioFragments[0];
        Run->mmio.len = Math.Min(8u, fragment.Len);
        Run->mmio.is_write = write ? (byte)1 : (byte)0;
        Run->exit_reason = KVM_EXIT_MMIO;
        Run->mmio.phys_addr = fragment.Gpa;
        if (!write)
        {
            if (Tracepoints.Enabled)
                Tracepoints.Emit("kvm_mmio", $"mmio unsatisfied-read len {bytes} gpa 0x{fragment.Gpa:x} val 0x0");
            FunctionTrace.Leaf("read_exit_mmio");
            return IoNeeded;
        }

        FunctionTrace.Leaf("write_exit_mmio");
        CopyFragmentToRun(ref fragment);
        return Continue;
    }

    private static ulong First(byte* value, uint bytes) => bytes switch { 1 => *value, 2 => *(ushort*)value, 4 => *(uint*)value, 8 => *(ulong*)value, _ => *value };

    private void CopyFragmentToRun(ref KvmMmioFragment fragment)
    {
        uint n = Math.Min(8u, fragment.Len);
        ulong inline = fragment.Val;
        byte* from = fragment.Data != null ? fragment.Data : (byte*)&inline;
        for (uint i = 0; i < n; i++)
            Run->mmio.data[(int)i] = from[i];
    }

    private int ReadWriteOnePage(X86EmulateContext ctxt, ulong addr, byte* value, uint bytes, bool write, ref X86Exception exception)
    {
        using var _ = FunctionTrace.Enter("emulator_read_write_onepage");
        ulong gpa;
        bool mmio;
        bool canUse = ctxt.GpaAvailable && ctxt.CanUseGpa;
        if (canUse && (addr & 0xfff) == (ctxt.GpaVal & 0xfff))
        {
            gpa = ctxt.GpaVal;
            mmio = IsMmioGpa(addr, gpa, write);
        }
        else if (!MmioGvaToGpa(addr, write, out gpa, out mmio, ref exception))
        {
            return PropagateFault;
        }

        if (!mmio && (write ? WriteEmulate(gpa, value, bytes) : ReadEmulate(gpa, value, bytes)))
            return Continue;

        int handled = write ? MmioWriteInKernel(gpa, value, (int)bytes) : MmioReadInKernel(gpa, value, (int)bytes);
        if (handled == bytes)
            return Continue;
        gpa += (uint)handled;
        bytes -= (uint)handled;
        value += handled;

        ref KvmMmioFragment fragment = ref MmioFragments[MmioNrFragments++];
        fragment.Gpa = gpa;
        fragment.Len = bytes;
        fragment.Data = value;
        fragment.Val = 0;
        if (write && bytes <= 8)
        {
            // The source may be gone when the exit is made: keep the bytes here.
            ulong inline = 0;
            Buffer.MemoryCopy(value, &inline, 8, bytes);
            fragment.Val = inline;
            fragment.Data = null;
        }

        return Continue;
    }

    [KernelFunction("read_emulate", File = "arch/x86/kvm/x86.c")]
    private bool ReadEmulate(ulong gpa, byte* value, uint bytes)
    {
        using var _ = FunctionTrace.Enter("read_emulate");
        return ReadGuest(gpa, value, bytes).Raw == 0;
    }

    /// <summary>emulator_write_phys: a write to a table of the guest reaches what shadows it.</summary>
    [KernelFunction("write_emulate", File = "arch/x86/kvm/x86.c")]
    private bool WriteEmulate(ulong gpa, byte* value, uint bytes)
    {
        using var _ = FunctionTrace.Enter("write_emulate");
        if (WriteGuest(gpa, value, bytes).Raw < 0)
            return false;
        PageTrackWrite(gpa, (int)bytes);
        return true;
    }

    [KernelFunction("kvm_page_track_write", File = "arch/x86/kvm/mmu/page_track.c")]
    private void PageTrackWrite(ulong gpa, int bytes)
    {
        using var _ = FunctionTrace.Enter("kvm_page_track_write");
        Vm.Shadow.PteWrite(this, gpa, bytes);
    }

    [KernelFunction("vcpu_is_mmio_gpa", File = "arch/x86/kvm/x86.c")]
    private bool IsMmioGpa(ulong gva, ulong gpa, bool write)
    {
        FunctionTrace.Leaf("vcpu_is_mmio_gpa");
        if ((gpa & ~0xffful) == ApicDefaultPhysBase)
            return true;
        if (!MmioInfoInCache(gpa, direct: true))
            return false;
        if (Tracepoints.Enabled)
            Tracepoints.Emit("vcpu_match_mmio", $"gva 0x{gva:x} gpa 0x{gpa:x} {(write ? "Write" : "Read")} GPA");
        return true;
    }

    private bool MmioGvaToGpa(ulong gva, bool write, out ulong gpa, out bool mmio, ref X86Exception exception)
    {
        ulong access = (Ops.GetCpl(this) == 3 ? PFERR_USER_MASK : 0) | (write ? PFERR_WRITE_MASK : 0);
        if (MatchMmioGva(gva) && (!IsPaging || WalkMmu.PermissionFault(MmioAccess, 0, access) == 0))
        {
            gpa = (MmioGfn << 12) | (gva & 0xfff);
            mmio = true;
            if (Tracepoints.Enabled)
                Tracepoints.Emit("vcpu_match_mmio", $"gva 0x{gva:x} gpa 0x{gpa:x} {(write ? "Write" : "Read")} GVA");
            return true;
        }

        gpa = GvaToGpa(gva, access, out X86Exception fault);
        if (gpa == INVALID_GPA)
        {
            exception = fault;
            mmio = false;
            return false;
        }

        mmio = IsMmioGpa(gva, gpa, write);
        return true;
    }

    /// <summary>vcpu_mmio_write: bytes that in-kernel devices took, in pieces of at most 8.</summary>
    private int MmioWriteInKernel(ulong gpa, byte* value, int len)
    {
        if (Tracepoints.Enabled)
            Tracepoints.Emit("kvm_mmio", $"mmio write len {len} gpa 0x{gpa:x} val 0x{First(value, (uint)len):x}");
        using var _ = FunctionTrace.Enter("write_mmio");
        int handled = 0;
        do
        {
            int n = Math.Min(len, 8);
            bool apic = Apic is { } a && a.Device.Write(this, gpa, n, value).Raw == 0;
            if (!apic && Vm.IoBusWrite(this, KvmBus.Mmio, gpa, n, value).Raw != 0)
                break;

            handled += n;
            gpa += (uint)n;
            len -= n;
            value += n;
        }
        while (len != 0);
        return handled;
    }

    private int MmioReadInKernel(ulong gpa, byte* value, int len)
    {
        using var _ = FunctionTrace.Enter("vcpu_mmio_read");
        int handled = 0;
        do
        {
            int n = Math.Min(len, 8);
            bool apic = Apic is { } a && a.Device.Read(this, gpa, n, value).Raw == 0;
            if (!apic && Vm.IoBusRead(this, KvmBus.Mmio, gpa, n, value).Raw != 0)
                break;
            if (Tracepoints.Enabled)
                Tracepoints.Emit("kvm_mmio", $"mmio read len {n} gpa 0x{gpa:x} val 0x{First(value, (uint)n):x}");

            handled += n;
            gpa += (uint)n;
            len -= n;
            value += n;
        }
        while (len != 0);
        return handled;
    }

    /// <summary>emulator_cmpxchg_emulated: atomic on guest memory; a plain write where that is not possible.</summary>
    internal int EmulatorCmpxchg(X86EmulateContext ctxt, ulong addr, byte* old, byte* value, uint bytes, ref X86Exception exception)
    {
        ulong gpa = INVALID_GPA;
        if (bytes <= 8 && (bytes & (bytes - 1)) == 0)
            gpa = GvaToGpaWrite(addr, out X86Exception _);
        if (gpa == INVALID_GPA || (gpa & ~0xffful) == ApicDefaultPhysBase || (((gpa + bytes - 1) ^ gpa) & ~0xffful) != 0)
            return CmpxchgAsWrite(ctxt, addr, value, bytes, ref exception);
        ulong hva = GfnToHva(gpa >> 12);
        if (KvmLimits.IsErrorHva(hva))
            return CmpxchgAsWrite(ctxt, addr, value, bytes, ref exception);
        hva += gpa & 0xfff;
        if (Vm.Mm.GetUserPage(hva, true) == 0)
            return Unhandleable;

        bool same = bytes switch
        {
            1 => Interlocked.CompareExchange(ref *(byte*)hva, *value, *old) == *old,
            2 => Interlocked.CompareExchange(ref *(ushort*)hva, *(ushort*)value, *(ushort*)old) == *(ushort*)old,
            4 => Interlocked.CompareExchange(ref *(uint*)hva, *(uint*)value, *(uint*)old) == *(uint*)old,
            _ => Interlocked.CompareExchange(ref *(ulong*)hva, *(ulong*)value, *(ulong*)old) == *(ulong*)old,
        };

        // Every locked access counts as a write for dirty logging, also one that failed.
        MarkPageDirty(gpa >> 12);
        if (!same)
            return CmpxchgFailed;
        PageTrackWrite(gpa, (int)bytes);
        return Continue;
    }

    private int CmpxchgAsWrite(X86EmulateContext ctxt, ulong addr, byte* value, uint bytes, ref X86Exception exception)
    {
        Vm.Host.Log.Once(LogLevel.Warning, "kvm: emulating exchange as write");
        return EmulatorReadWrite(ctxt, addr, value, bytes, true, ref exception);
    }

    // ---- completion ----

    /// <summary>
    /// complete_emulated_mmio: takes a read's bytes, hands out the next piece of at most 8 bytes, and finishes the instruction after the last one.
    /// </summary>
    [KernelFunction("complete_emulated_mmio", File = "arch/x86/kvm/x86.c")]
    private static int CompleteEmulatedMmio(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("complete_emulated_mmio");
        ref KvmMmioFragment fragment = ref vcpu.MmioFragments[vcpu.MmioCurFragment];
        uint len = Math.Min(8u, fragment.Len);
        if (!vcpu.MmioIsWrite)
        {
            for (uint i = 0; i < len; i++)
                fragment.Data[i] = vcpu.Run->mmio.data[(int)i];
        }

        if (fragment.Len <= 8)
        {
            vcpu.MmioCurFragment++;
        }
        else
        {
            fragment.Data += len;
            fragment.Gpa += len;
            fragment.Len -= len;
        }

        if (vcpu.MmioCurFragment >= vcpu.MmioNrFragments)
        {
            vcpu.MmioNeeded = false;
            if (vcpu.MmioIsWrite)
                return 1;
            vcpu.MmioReadCompleted = true;
            return vcpu.CompleteEmulatedIo();
        }

        fragment = ref vcpu.MmioFragments[vcpu.MmioCurFragment];
        vcpu.Run->exit_reason = KVM_EXIT_MMIO;
        vcpu.Run->mmio.phys_addr = fragment.Gpa;
        if (vcpu.MmioIsWrite)
            vcpu.CopyFragmentToRun(ref fragment);
        vcpu.Run->mmio.len = Math.Min(8u, fragment.Len);
        vcpu.Run->mmio.is_write = vcpu.MmioIsWrite ? (byte)1 : (byte)0;
        vcpu.CompleteUserspaceIo = &CompleteEmulatedMmio;
        return 0;
    }

    [KernelFunction("complete_emulated_pio", File = "arch/x86/kvm/x86.c")]
    private static int CompleteEmulatedPio(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("complete_emulated_pio");
        return vcpu.CompleteEmulatedIo();
    }

    private int CompleteEmulatedIo() => EmulateInstruction(0, EmulType.EMULTYPE_NO_DECODE, default);
}

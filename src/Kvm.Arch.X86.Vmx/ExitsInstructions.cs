using Kvm.Abi;
using Kvm.Core.Tracing;
using Kvm.Emulator;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.Vmx.VmxControls;
using static Kvm.Emulator.Vmx.VmcsField;

namespace Kvm.Arch.X86.Vmx;

/// <summary>Exits for instructions: I/O, control and debug registers, INVLPG, PAUSE, INVPCID, VMX and SGX instructions.</summary>
public sealed unsafe partial class KvmIntel
{
    [KernelFunction("handle_io", File = "arch/x86/kvm/vmx/vmx.c")]
    private static int HandleIo(KvmIntel kvmIntel, VcpuVmx vmx)
    {
        using var _ = FunctionTrace.Enter("handle_io");
        ulong qualification = GetExitQual(vmx);
        vmx.Stat.IoExits++;
        if ((qualification & 16) != 0)
            return vmx.EmulateInstruction(EmulType.None);
        int size = (int)(qualification & 7) + 1;
        return vmx.FastPio(size, (ushort)(qualification >> 16), (qualification & 8) != 0);
    }

    [KernelFunction("handle_desc", File = "arch/x86/kvm/vmx/vmx.c")]
    private static int HandleDesc(KvmIntel kvmIntel, VcpuVmx vmx) => vmx.EmulateInstruction(EmulType.None);

    [KernelFunction("handle_cr", File = "arch/x86/kvm/vmx/vmx.c")]
    private static int HandleCr(KvmIntel kvmIntel, VcpuVmx vmx)
    {
        using var _ = FunctionTrace.Enter("handle_cr");
        ulong qualification = GetExitQual(vmx);
        int cr = (int)(qualification & 15);
        int reg = (int)(qualification >> 8 & 15);
        int operation = (int)(qualification >> 4 & 3);
        switch (operation)
        {
            case 0 when cr is 0 or 3 or 4 or 8:
                return kvmIntel.MovToCr(vmx, cr, vmx.RegisterRead(reg));
            case 1 when cr is 3 or 8:
                ulong value = cr == 3 ? vmx.ReadCr3() : vmx.GetCr8();
                vmx.RegisterWrite(reg, value);
                TraceCr(vmx, write: false, cr, value);
                return vmx.SkipEmulatedInstruction();
            case 2:
                // The guest owns CR0.TS.
                vmx.Vm.BugOn(true, "Guest always owns CR0.TS");
                return eio;
            case 3:
                ulong msw = qualification >> LMSW_SOURCE_DATA_SHIFT & 0x0f;
                TraceCr(vmx, write: true, 0, vmx.ReadCr0Bits(~0xful) | msw);
                vmx.Lmsw(msw);
                return vmx.SkipEmulatedInstruction();
        }
        vmx.Run->exit_reason = 0;
        kvmIntel.VcpuUnimpl(vmx, $"unhandled control register: op {operation} cr {cr}");
        return 0;
    }

    private int MovToCr(VcpuVmx vmx, int cr, ulong value)
    {
        TraceCr(vmx, write: true, cr, value);
        switch (cr)
        {
            case 0:
                return vmx.CompleteInsnGp(vmx.SetCr0(value));
            case 3:
                return vmx.CompleteInsnGp(vmx.SetCr3(value));
            case 4:
                return vmx.CompleteInsnGp(vmx.SetCr4(value));
            default:
                byte previous = (byte)vmx.GetCr8();
                byte cr8 = (byte)value;
                int r = vmx.CompleteInsnGp(vmx.SetCr8(cr8));
                if (vmx.LapicInKernel || previous <= cr8)
                    return r;
                vmx.Run->exit_reason = KVM_EXIT_SET_TPR;
                return 0;
        }
    }

    [KernelFunction("handle_dr", File = "arch/x86/kvm/vmx/vmx.c")]
    private static int HandleDr(KvmIntel kvmIntel, VcpuVmx vmx)
    {
        using var _ = FunctionTrace.Enter("handle_dr");
        ulong qualification = GetExitQual(vmx);
        int dr = (int)(qualification & DEBUG_REG_ACCESS_NUM);
        if (!vmx.RequireDr(dr))
            return 1;
        int err = 1;
        if (kvmIntel.GetCpl(vmx) > 0)
            return vmx.CompleteInsnGp(err);
        ulong dr7 = vmx.Readl(GUEST_DR7);
        if ((dr7 & DR7_GD) != 0)
            return GeneralDetect(vmx, dr7);
        if (vmx.GuestDebug == 0)
        {
            // From here on the guest has its own debug registers, loaded at entry; they are read back after the next exit.
            vmx.ExecControlsClearbit(CPU_BASED_MOV_DR_EXITING);
            vmx.SwitchDbRegs |= KVM_DEBUGREG_WONT_EXIT;
            return 1;
        }
        int reg = (int)(qualification >> 8 & 0xf);
        if ((qualification & TYPE_MOV_FROM_DR) != 0)
        {
            vmx.RegisterWrite(reg, vmx.GetDr(dr));
            err = 0;
        }
        else
        {
            err = vmx.SetDr(dr, vmx.RegisterRead(reg));
        }
        return vmx.CompleteInsnGp(err);
    }

    /// <summary>The exit comes before the trap that DR7.GD asks for, so the trap is made here, for the debugger or for the guest.</summary>
    private static int GeneralDetect(VcpuVmx vmx, ulong dr7)
    {
        if ((vmx.GuestDebug & KVM_GUESTDBG_USE_HW_BP) == 0)
        {
            vmx.QueueExceptionP(DB_VECTOR, DR6_BD);
            return 1;
        }
        kvm_run* run = vmx.Run;
        run->debug.arch.dr6 = DR6_BD | DR6_ACTIVE_LOW;
        run->debug.arch.dr7 = dr7;
        run->debug.arch.pc = vmx.GetLinearRip();
        run->debug.arch.exception = DB_VECTOR;
        run->exit_reason = KVM_EXIT_DEBUG;
        return 0;
    }

    [KernelFunction("handle_invlpg", File = "arch/x86/kvm/vmx/vmx.c")]
    private static int HandleInvlpg(KvmIntel kvmIntel, VcpuVmx vmx)
    {
        vmx.MmuInvlpg(GetExitQual(vmx));
        return vmx.SkipEmulatedInstruction();
    }

    /// <summary>PAUSE in a loop at CPL 0 (pause-loop exiting): someone else may hold the lock it waits for.</summary>
    [KernelFunction("handle_pause", File = "arch/x86/kvm/vmx/vmx.c")]
    private static int HandlePause(KvmIntel kvmIntel, VcpuVmx vmx)
    {
        if (!vmx.Vm.PauseInGuest)
            kvmIntel.GrowPleWindow(vmx);
        vmx.OnSpin(true);
        return vmx.SkipEmulatedInstruction();
    }

    [KernelFunction("handle_monitor_trap", File = "arch/x86/kvm/vmx/vmx.c")]
    private static int HandleMonitorTrap(KvmIntel kvmIntel, VcpuVmx vmx) => 1;

    [KernelFunction("handle_invpcid", File = "arch/x86/kvm/vmx/vmx.c")]
    private static int HandleInvpcid(KvmIntel kvmIntel, VcpuVmx vmx)
    {
        if (!vmx.GuestCpuidHas(X86Feature.INVPCID))
        {
            vmx.QueueException(UD_VECTOR);
            return 1;
        }
        uint info = vmx.Read32(VMX_INSTRUCTION_INFO);
        ulong type = vmx.RegisterRead((int)(info >> 28 & 0xf));
        // The operand is read even for the types that do not use it.
        if (!kvmIntel.GetVmxMemAddress(vmx, GetExitQual(vmx), info, 16, out ulong gva))
            return 1;
        return vmx.HandleInvpcid(type, gva);
    }

    /// <summary>VMX instructions of a guest without nested virtualization do not exist.</summary>
    [KernelFunction("handle_vmx_instruction", File = "arch/x86/kvm/vmx/vmx.c")]
    private static int HandleVmxInstruction(KvmIntel kvmIntel, VcpuVmx vmx)
    {
        vmx.QueueException(UD_VECTOR);
        return 1;
    }

    /// <summary>SGX is not virtualized: every ENCLS leaf is intercepted and is #UD.</summary>
    [KernelFunction("handle_encls", File = "arch/x86/kvm/vmx/vmx.c")]
    private static int HandleEncls(KvmIntel kvmIntel, VcpuVmx vmx)
    {
        vmx.QueueException(UD_VECTOR);
        return 1;
    }

    [KernelFunction("handle_bus_lock_vmexit", File = "arch/x86/kvm/vmx/vmx.c")]
    private static int HandleBusLockVmexit(KvmIntel kvmIntel, VcpuVmx vmx)
    {
        vmx.ExitReason.BusLockDetected = true;
        return 1;
    }

    [KernelFunction("handle_notify", File = "arch/x86/kvm/vmx/vmx.c")]
    private static int HandleNotify(KvmIntel kvmIntel, VcpuVmx vmx)
    {
        ulong qualification = GetExitQual(vmx);
        bool contextInvalid = (qualification & NOTIFY_VM_CONTEXT_INVALID) != 0;
        vmx.Stat.NotifyWindowExits++;
        if (kvmIntel.EnableVnmi && (qualification & INTR_INFO_UNBLOCK_NMI) != 0)
            vmx.SetBits(GUEST_INTERRUPTIBILITY_INFO, GUEST_INTR_STATE_NMI);
        if ((vmx.Vm.NotifyVmexitFlags & KVM_X86_NOTIFY_VMEXIT_USER) == 0 && !contextInvalid)
            return 1;
        vmx.Run->exit_reason = KVM_EXIT_NOTIFY;
        vmx.Run->notify.flags = contextInvalid ? KVM_NOTIFY_CONTEXT_INVALID : 0u;
        return 0;
    }

    /// <summary>
    /// The linear address of a memory operand from the exit's instruction information and displacement (qualification). False: #GP, #SS or #UD was queued for the guest.
    /// </summary>
    [KernelFunction("get_vmx_mem_address", File = "arch/x86/kvm/vmx/nested.c")]
    private bool GetVmxMemAddress(VcpuVmx vmx, ulong displacement, uint info, int length, out ulong linear)
    {
        linear = 0;
        int scaling = (int)(info & 3);
        int addressSize = (int)(info >> 7 & 7);
        int seg = (int)(info >> 15 & 7);
        if ((info & 1u << 10) != 0)
        {
            vmx.QueueException(UD_VECTOR);
            return false;
        }
        ulong offset = displacement;
        if (addressSize == 1)
            offset = (ulong)(int)displacement;
        else if (addressSize == 0)
            offset = (ulong)(short)displacement;
        if ((info & 1u << 27) == 0)
            offset += vmx.RegisterRead((int)(info >> 23 & 0xf));
        if ((info & 1u << 22) == 0)
            offset += vmx.RegisterRead((int)(info >> 18 & 0xf)) << scaling;
        GetSegment(vmx, out kvm_segment s, seg);
        // Only the offset is cut to the address size; the segment base is added afterwards.
        if (addressSize == 1)
            offset = (uint)offset;
        else if (addressSize == 0)
            offset = (ushort)offset;

        bool bad;
        if (vmx.IsLongMode)
        {
            linear = seg is VCPU_SREG_FS or VCPU_SREG_GS ? s.@base + offset : offset;
            bad = vmx.IsNoncanonicalAddress(linear);
        }
        else
        {
            linear = (uint)(s.@base + offset);
            if ((s.type & 0xa) == 8)
            {
                vmx.QueueExceptionE(GP_VECTOR, 0);
                return false;
            }
            // Processors with VMX do not check the limit of flat segments.
            bool flat = s.@base == 0 && s.limit == 0xffffffff && ((s.type & 8) != 0 || (s.type & 4) == 0);
            bad = s.unusable != 0 || (!flat && offset + (ulong)length - 1 > s.limit);
        }
        if (!bad)
            return true;
        vmx.QueueExceptionE(seg == VCPU_SREG_SS ? SS_VECTOR : GP_VECTOR, 0);
        return false;
    }
}

using System.Runtime.CompilerServices;

namespace Kvm.Emulator.Vmx;

/// <summary>VMX instructions in VMX root operation (SDM vol 3C, "VMX Instruction Reference"), after the checks that only an instruction stream can fail.</summary>
internal sealed unsafe partial class VmxUnit
{
    private const ulong Cr4Vmxe = 1UL << 13;
    private const ulong FeatureControlLocked = 1, FeatureControlVmxInSmx = 2, FeatureControlVmxOutsideSmx = 4;

    private static InstructionResult UndefinedOpcode => InstructionResult.Faulted(Fault.Ud);
    private static InstructionResult GeneralProtection => InstructionResult.Faulted(Fault.Gp());

    internal InstructionResult Vmxon(ulong pa)
    {
        if (!cpu.TakeInstructionFault("VMXON", out InstructionResult result))
            result = DoVmxon(pa);
        cpu.Observer?.Virtualization(cpu, "VMXON", pa, 0, result);
        return result;
    }

    private InstructionResult DoVmxon(ulong pa)
    {
        if ((cpu.State->Cr4 & Cr4Vmxe) == 0)
            return UndefinedOpcode;
        if (On)
            return Fail(VmxInstructionError.VmxonInVmxRoot);
        if (!VmxonAllowed())
            return GeneralProtection;
        if (!IsValidStructureAddress(pa))
            return InstructionResult.FailInvalid;
        byte* region = Physical(pa);
        if (region == null || *(uint*)region != Capabilities.RevisionId)
            return InstructionResult.FailInvalid;
        vmxonPointer = pa;
        current = null;
        On = true;
        return InstructionResult.Success;
    }

    /// <summary>The conditions under which VMXON faults with #GP(0): fixed bits of CR0 and CR4, IA32_FEATURE_CONTROL unlocked or without the enable bit.</summary>
    internal bool VmxonAllowed()
    {
        ulong feature = cpu.FeatureControl;
        return IsCr0Allowed(cpu.State->Cr0) && IsCr4Allowed(cpu.State->Cr4)
            && (feature & FeatureControlLocked) != 0 && (feature & FeatureControlVmxOutsideSmx) != 0;
    }

    /// <summary>CR0 respects IA32_VMX_CR0_FIXED0/1.</summary>
    internal bool IsCr0Allowed(ulong value) => (value & Capabilities.Cr0Fixed0) == Capabilities.Cr0Fixed0 && (value & ~Capabilities.Cr0Fixed1) == 0;

    /// <summary>CR4 respects IA32_VMX_CR4_FIXED0/1.</summary>
    internal bool IsCr4Allowed(ulong value) => (value & Capabilities.Cr4Fixed0) == Capabilities.Cr4Fixed0 && (value & ~Capabilities.Cr4Fixed1) == 0;

    internal InstructionResult Vmxoff()
    {
        if (!cpu.TakeInstructionFault("VMXOFF", out InstructionResult result))
        {
            result = On ? InstructionResult.Success : UndefinedOpcode;
            if (On)
            {
                LeaveVmxOperation();
                // INIT may have been waiting for this.
                cpu.Reevaluate();
            }
        }
        cpu.Observer?.Virtualization(cpu, "VMXOFF", 0, 0, result);
        return result;
    }

    internal InstructionResult Vmclear(ulong pa)
    {
        if (!cpu.TakeInstructionFault("VMCLEAR", out InstructionResult result))
            result = DoVmclear(pa);
        cpu.Observer?.Virtualization(cpu, "VMCLEAR", pa, 0, result);
        return result;
    }

    private InstructionResult DoVmclear(ulong pa)
    {
        if (!On)
            return UndefinedOpcode;
        if (!IsValidStructureAddress(pa))
            return Fail(VmxInstructionError.VmclearInvalidAddress);
        if (pa == vmxonPointer)
            return Fail(VmxInstructionError.VmclearVmxonPointer);
        byte* memory = Physical(pa);
        if (active.Remove(pa, out nint known))
        {
            ActiveVmcs* block = (ActiveVmcs*)known;
            // The identifier and the abort indicator belong to memory: software may have rewritten them since VMPTRLD.
            if (memory != null)
                Unsafe.CopyBlockUnaligned(memory + 8, (byte*)block + 8, DataSize - 8);
            if (current == block)
                current = null;
            Guest.Forget(block);
            Release(block);
        }
        if (memory != null)
            ((Vmcs*)memory)->LaunchState = 0;
        return InstructionResult.Success;
    }

    internal InstructionResult Vmptrld(ulong pa)
    {
        if (!cpu.TakeInstructionFault("VMPTRLD", out InstructionResult result))
            result = DoVmptrld(pa);
        cpu.Observer?.Virtualization(cpu, "VMPTRLD", pa, 0, result);
        return result;
    }

    private InstructionResult DoVmptrld(ulong pa)
    {
        if (!On)
            return UndefinedOpcode;
        if (!IsValidStructureAddress(pa))
            return Fail(VmxInstructionError.VmptrldInvalidAddress);
        if (pa == vmxonPointer)
            return Fail(VmxInstructionError.VmptrldVmxonPointer);
        byte* memory = Physical(pa);
        uint identifier = memory == null ? uint.MaxValue : *(uint*)memory;
        if (!IsValidRevision(identifier))
            return Fail(VmxInstructionError.VmptrldIncorrectVmcsRevisionId);
        current = Activate(pa);
        current->Data.RevisionId = identifier;
        return InstructionResult.Success;
    }

    /// <summary>Revision identifier of this processor, bit 31 only with VMCS shadowing.</summary>
    private bool IsValidRevision(uint identifier) =>
        (identifier & 0x7fff_ffff) == Capabilities.RevisionId
        && ((identifier >> 31) == 0 || Capabilities.SecondaryAllowed(SecondaryControls.VmcsShadowing));

    internal InstructionResult Vmptrst(out ulong pa)
    {
        pa = CurrentPointer;
        if (!cpu.TakeInstructionFault("VMPTRST", out InstructionResult result))
            result = On ? InstructionResult.Success : UndefinedOpcode;
        cpu.Observer?.Virtualization(cpu, "VMPTRST", pa, 0, result);
        return result;
    }

    /// <summary>VMREAD. <paramref name="shadow"/>: from the shadow VMCS that the link pointer names (VMCS shadowing in non-root operation).</summary>
    internal InstructionResult Vmread(ulong field, bool shadow, out ulong value)
    {
        value = 0;
        if (!cpu.TakeInstructionFault("VMREAD", out InstructionResult result))
            result = DoVmread(field, shadow ? ShadowVmcs() : current, out value);
        cpu.Observer?.Virtualization(cpu, "VMREAD", field, value, result);
        return result;
    }

    private InstructionResult DoVmread(ulong field, ActiveVmcs* source, out ulong value)
    {
        value = 0;
        if (!On)
            return UndefinedOpcode;
        if (source == null)
            return InstructionResult.FailInvalid;
        if (!Layout.TryFind(field, out VmcsSlot slot))
            return Fail(VmxInstructionError.UnsupportedVmcsComponent);
        value = Load(&source->Data, (uint)field, slot);
        return InstructionResult.Success;
    }

    internal InstructionResult Vmwrite(ulong field, ulong value, bool shadow)
    {
        if (!cpu.TakeInstructionFault("VMWRITE", out InstructionResult result))
            result = DoVmwrite(field, value, shadow ? ShadowVmcs() : current);
        cpu.Observer?.Virtualization(cpu, "VMWRITE", field, value, result);
        return result;
    }

    private InstructionResult DoVmwrite(ulong field, ulong value, ActiveVmcs* target)
    {
        if (!On)
            return UndefinedOpcode;
        if (target == null)
            return InstructionResult.FailInvalid;
        if (!Layout.TryFind(field, out VmcsSlot slot))
            return Fail(VmxInstructionError.UnsupportedVmcsComponent);
        if (VmcsLayout.IsReadOnly((uint)field) && !Capabilities.VmwriteAnyField)
            return Fail(VmxInstructionError.VmwriteReadOnlyVmcsComponent);
        target->Dirty |= slot.Dirty;
        Store(&target->Data, (uint)field, slot, value);
        return InstructionResult.Success;
    }

    /// <summary>The VMCS that the link pointer of the current one names; null when there is none.</summary>
    private ActiveVmcs* ShadowVmcs() => current == null || current->Data.VmcsLinkPointer == NoVmcs ? null : Activate(current->Data.VmcsLinkPointer);

    /// <summary>Reads a component, zero-extended; an odd encoding gives bits 63:32.</summary>
    internal static ulong Load(Vmcs* vmcs, uint field, VmcsSlot slot)
    {
        byte* place = (byte*)vmcs + slot.Offset;
        return slot.Size switch
        {
            2 => *(ushort*)place,
            4 => *(uint*)place,
            _ => (field & 1) == 0 ? *(ulong*)place : *(uint*)(place + 4),
        };
    }

    /// <summary>Writes a component's width of <paramref name="value"/>; an odd encoding writes bits 63:32.</summary>
    internal static void Store(Vmcs* vmcs, uint field, VmcsSlot slot, ulong value)
    {
        byte* place = (byte*)vmcs + slot.Offset;
        switch (slot.Size)
        {
            case 2: *(ushort*)place = (ushort)value; break;
            case 4: *(uint*)place = (uint)value; break;
            default:
                if ((field & 1) == 0)
                    *(ulong*)place = value;
                else
                    *(uint*)(place + 4) = (uint)value;
                break;
        }
    }

    internal InstructionResult Vmcall()
    {
        if (!cpu.TakeInstructionFault("VMCALL", out InstructionResult result))
            result = On ? Fail(VmxInstructionError.VmcallInVmxRoot) : UndefinedOpcode;
        cpu.Observer?.Virtualization(cpu, "VMCALL", 0, 0, result);
        return result;
    }

    internal InstructionResult Invept(ulong type, ulong eptp, ulong reserved)
    {
        if (!cpu.TakeInstructionFault("INVEPT", out InstructionResult result))
            result = DoInvept(type, eptp, reserved);
        cpu.Observer?.Virtualization(cpu, "INVEPT", type, eptp, result);
        return result;
    }

    private InstructionResult DoInvept(ulong type, ulong eptp, ulong reserved)
    {
        if (!On || !InveptSupported)
            return UndefinedOpcode;
        if (!InveptTypeSupported(type) || reserved != 0 || (type == 1 && !IsValidEptp(eptp)))
            return Fail(VmxInstructionError.InvalidOperandToInveptInvvpid);
        if (type == 1)
            cpu.Mmu.FlushNested(eptp & EptpRootMask);
        else
            cpu.Mmu.FlushAll();
        return InstructionResult.Success;
    }

    internal InstructionResult Invvpid(ulong type, ulong vpid, ulong linear)
    {
        if (!cpu.TakeInstructionFault("INVVPID", out InstructionResult result))
            result = DoInvvpid(type, vpid, linear);
        cpu.Observer?.Virtualization(cpu, "INVVPID", type, vpid, result);
        return result;
    }

    private InstructionResult DoInvvpid(ulong type, ulong vpid, ulong linear)
    {
        if (!On || !InvvpidSupported)
            return UndefinedOpcode;
        if (!InvvpidTypeSupported(type) || vpid >> 16 != 0 || (type != 2 && vpid == 0) || (type == 0 && !IsCanonical(linear)))
            return Fail(VmxInstructionError.InvalidOperandToInveptInvvpid);
        switch (type)
        {
            case 0: cpu.Mmu.FlushLinear((ushort)vpid, linear); break;
            case 1: cpu.Mmu.FlushTag((ushort)vpid, keepGlobal: false); break;
            case 3: cpu.Mmu.FlushTag((ushort)vpid, keepGlobal: true); break;
            default: cpu.Mmu.FlushAll(); break;
        }
        return InstructionResult.Success;
    }

    internal bool InveptSupported => Capabilities.SecondaryAllowed(SecondaryControls.EnableEpt) && (Capabilities.EptVpid >> 20 & 1) != 0;
    internal bool InvvpidSupported => Capabilities.SecondaryAllowed(SecondaryControls.EnableVpid) && (Capabilities.EptVpid >> 32 & 1) != 0;

    /// <summary>Type 1 single-context, 2 all-context, as IA32_VMX_EPT_VPID_CAP announces.</summary>
    internal bool InveptTypeSupported(ulong type) => type is 1 or 2 && (Capabilities.EptVpid >> (24 + (int)type) & 1) != 0;

    /// <summary>Type 0 individual address, 1 single-context, 2 all-context, 3 single-context retaining globals, as IA32_VMX_EPT_VPID_CAP announces.</summary>
    internal bool InvvpidTypeSupported(ulong type) => type <= 3 && (Capabilities.EptVpid >> (40 + (int)type) & 1) != 0;

    /// <summary>VMfail: VMfailValid with the number when there is a current VMCS, else VMfailInvalid.</summary>
    private InstructionResult Fail(VmxInstructionError error)
    {
        if (current == null)
            return InstructionResult.FailInvalid;
        current->Data.VmInstructionError = (uint)error;
        return InstructionResult.FailValid;
    }

    internal static bool IsCanonical(ulong address) => (long)(address << 16) >> 16 == (long)address;
}

using Iced.Intel;
using Kvm.Abi;
using Kvm.Emulator;
using static Kvm.Abi.Uapi;
using static Kvm.Arch.X86.VcpuSreg;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86;

/// <remarks>Segment registers and descriptors.</remarks>
public sealed unsafe partial class X86EmulateContext
{
    private enum Transfer
    {
        None,
        CallJmp,
        Ret,
        TaskSwitch,
    }

    /// <summary>A descriptor's 8 bytes as a register's hidden part.</summary>
    private static kvm_segment Unpack(ulong raw, ushort selector)
    {
        var d = new Descriptor { Low = raw };
        return new kvm_segment
        {
            selector = selector,
            @base = d.Base,
            limit = d.Limit,
            type = (byte)d.Type,
            s = Bit(d.S),
            dpl = (byte)d.Dpl,
            present = Bit(d.Present),
            avl = Bit(d.Avl),
            l = Bit(d.L),
            db = Bit(d.Db),
            g = Bit(d.Granular),
        };
    }

    private static byte Bit(bool value) => value ? (byte)1 : (byte)0;

    private int DescriptorAddress(ushort selector, out ulong address)
    {
        address = 0;
        ulong @base;
        uint limit;
        if ((selector & 4) != 0)
        {
            ops.GetSegment(vcpu, out kvm_segment ldtr, VCPU_SREG_LDTR);
            @base = ldtr.@base;
            limit = ldtr.unusable != 0 ? 0 : ldtr.limit;
            if (ldtr.unusable != 0)
                return Gp(selector & 0xfffcu);
        }
        else
        {
            ops.GetGdt(vcpu, out DescPtr gdt);
            @base = gdt.Address;
            limit = gdt.Size;
        }

        uint offset = selector & 0xfff8u;
        if (limit < offset + 7)
            return Gp(selector & 0xfffcu);
        address = @base + offset;
        if (!vcpu.IsLongMode)
            address = (uint)address;
        return Continue;
    }

    private int ReadDescriptor(ushort selector, out ulong raw, out ulong address)
    {
        ulong value = 0;
        int rc = DescriptorAddress(selector, out address);
        if (rc == Continue)
            rc = LinearReadSystem(address, &value, 8);
        raw = value;
        return rc;
    }

    private int WriteDescriptor(ushort selector, ulong raw)
    {
        int rc = DescriptorAddress(selector, out ulong address);
        return rc != Continue ? rc : LinearWriteSystem(address, &raw, 8);
    }

    private int LoadSegment(ushort selector, int seg) =>
        LoadSegment(selector, seg, ops.GetCpl(vcpu), Transfer.None, out kvm_segment _);

    /// <summary>__load_segment_descriptor: with all checks of the instruction that loads; the loaded register's content is returned.</summary>
    private int LoadSegment(ushort selector, int seg, int cpl, Transfer transfer, out kvm_segment loaded)
    {
        loaded = default;
        if (Mode == EmulMode.Real)
        {
            // The hidden limit stays: "unreal" mode.
            ops.GetSegment(vcpu, out loaded, seg);
            loaded.selector = selector;
            loaded.@base = (ulong)selector << 4;
            ops.SetSegment(vcpu, loaded, seg);
            return Continue;
        }

        if (seg <= VCPU_SREG_GS && Mode == EmulMode.Vm86)
        {
            loaded = new kvm_segment { selector = selector, @base = (ulong)selector << 4, limit = 0xffff, type = 3, present = 1, s = 1, dpl = 3 };
            ops.SetSegment(vcpu, loaded, seg);
            return Continue;
        }

        if (seg == VCPU_SREG_TR && (selector & 4) != 0)
            return Gp(0);
        if ((selector & ~3) == 0)
            return LoadNull(selector, seg, cpl, ref loaded);

        int rc = ReadDescriptor(selector, out ulong raw, out ulong address);
        if (rc != Continue)
            return rc;
        loaded = Unpack(raw, selector);
        uint error = selector & 0xfffcu;
        if (seg <= VCPU_SREG_GS && loaded.s == 0 && transfer == Transfer.CallJmp)
            return Unhandleable; // gates
        rc = CheckDescriptor(loaded, selector, seg, cpl, transfer);
        if (rc == Unhandleable)
            return rc;
        if (rc != Continue)
            return Fault(transfer == Transfer.TaskSwitch ? TS_VECTOR : GP_VECTOR, error, true);
        if (loaded.present == 0)
            return Fault(seg == VCPU_SREG_SS ? SS_VECTOR : NP_VECTOR, error, true);
        if (seg == VCPU_SREG_CS)
            loaded.selector = (ushort)((selector & 0xfffc) | cpl);
        return FinishLoad(selector, seg, raw, address, ref loaded);
    }

    private int LoadNull(ushort selector, int seg, int cpl, ref kvm_segment loaded)
    {
        if (seg is VCPU_SREG_CS or VCPU_SREG_TR)
            return Gp(0);
        loaded = new kvm_segment { selector = selector, unusable = 1 };
        if (seg == VCPU_SREG_SS)
        {
            if (Mode != EmulMode.Prot64 || (selector & 3) != cpl)
                return Gp(0);

            // The CPL is kept in SS.DPL.
            loaded = new kvm_segment { selector = selector, type = 3, present = 1, s = 1, dpl = (byte)cpl, db = 1, g = 1 };
        }

        ops.SetSegment(vcpu, loaded, seg);
        return Continue;
    }

    private int CheckDescriptor(in kvm_segment d, ushort selector, int seg, int cpl, Transfer transfer)
    {
        int rpl = selector & 3;
        int dpl = d.dpl;
        bool conforming = (d.type & 4) != 0;
        if (seg <= VCPU_SREG_GS && d.s == 0)
            return PropagateFault;
        switch (seg)
        {
            case VCPU_SREG_SS:
                return rpl == cpl && (d.type & 0xa) == 2 && dpl == cpl ? Continue : PropagateFault;
            case VCPU_SREG_CS:
                if ((d.type & 8) == 0)
                    return PropagateFault;
                if (transfer == Transfer.Ret && rpl != cpl)
                    return rpl < cpl ? PropagateFault : Unhandleable; // a return to an outer level
                bool allowed = transfer is Transfer.Ret or Transfer.TaskSwitch
                    ? conforming ? dpl <= rpl : dpl == rpl
                    : conforming ? dpl <= cpl : rpl <= cpl && dpl == cpl;
                return allowed && !(d.db != 0 && d.l != 0 && vcpu.IsLongMode) ? Continue : PropagateFault;
            case VCPU_SREG_TR:
                return d.s == 0 && d.type is 1 or 9 ? Continue : PropagateFault;
            case VCPU_SREG_LDTR:
                return d.s == 0 && d.type == 2 ? Continue : PropagateFault;
            default:
                bool bad = (d.type & 0xa) == 8 || ((d.type & 0xc) != 0xc && rpl > dpl && cpl > dpl);
                return bad ? PropagateFault : Continue;
        }
    }

    private int FinishLoad(ushort selector, int seg, ulong raw, ulong address, ref kvm_segment loaded)
    {
        int rc;
        if (loaded.s != 0)
        {
            if ((loaded.type & 1) == 0)
            {
                loaded.type |= 1;
                rc = WriteDescriptor(selector, raw | Descriptor.Accessed);
                if (rc != Continue)
                    return rc;
            }
        }
        else if (Mode == EmulMode.Prot64)
        {
            uint high = 0;
            rc = LinearReadSystem(address + 8, &high, 4);
            if (rc != Continue)
                return rc;
            loaded.@base |= (ulong)high << 32;
            if (vcpu.IsNoncanonicalAddress(loaded.@base))
                return Gp(selector & 0xfffcu);
        }

        if (seg == VCPU_SREG_TR)
        {
            ulong busy = raw | Descriptor.Busy;
            rc = vcpu.EmulatorCmpxchg(this, address, (byte*)&raw, (byte*)&busy, 8, ref Exception);
            if (rc != Continue)
                return rc;
            loaded.type |= 2;
        }

        ops.SetSegment(vcpu, loaded, seg);
        return Continue;
    }

    private int MoveToSegment()
    {
        int seg = dst.Reg;
        if (seg == VCPU_SREG_CS)
            return Ud();
        if (seg == VCPU_SREG_SS)
            Interruptibility = (uint)Uapi.KVM_X86_SHADOW_INT_MOV_SS;
        dst.Type = EmulOperand.Kind.None;
        return LoadSegment((ushort)src.Val, seg);
    }

    /// <summary>LDS, LES, LFS, LGS, LSS.</summary>
    private int LoadFarPointer(Mnemonic op)
    {
        byte* pointer = stackalloc byte[10];
        int rc = SegmentedRead(src.Seg, src.Ea, pointer, dst.Bytes + 2);
        if (rc != Continue)
            return rc;
        int seg = op switch
        {
            Mnemonic.Les => VCPU_SREG_ES,
            Mnemonic.Lds => VCPU_SREG_DS,
            Mnemonic.Lss => VCPU_SREG_SS,
            Mnemonic.Lfs => VCPU_SREG_FS,
            _ => VCPU_SREG_GS,
        };
        rc = LoadSegment(*(ushort*)(pointer + dst.Bytes), seg);
        if (rc != Continue)
            return rc;
        ulong value = dst.Bytes switch { 2 => *(ushort*)pointer, 4 => *(uint*)pointer, _ => *(ulong*)pointer };
        RegAssign(dst.Reg, false, dst.Bytes, value);
        return Continue;
    }
}

using Kvm.Emulator.Engine;

namespace Kvm.Emulator;

public sealed unsafe partial class Processor
{
    /// <summary>CPUID with the bits that depend on processor state: APIC id and enable, OSXSAVE, OSPKE, XSAVE area size; out-of-range leaves answer as the vendor does.</summary>
    public void Cpuid(uint leaf, uint subleaf, out uint eax, out uint ebx, out uint ecx, out uint edx)
    {
        bool extended = leaf >= 0x80000000;
        uint limit = extended ? Model.MaxExtendedLeaf : Model.MaxLeaf;
        if (msrs.Read(Msr.IA32_MISC_ENABLE, out ulong misc) && (misc & 1 << 22) != 0 && !extended)
            limit = Math.Min(limit, 3);
        if (leaf > limit)
        {
            // Intel returns the data of the highest basic leaf, AMD zeros.
            if (Model.Vendor == CpuVendor.Amd)
            {
                eax = ebx = ecx = edx = 0;
                return;
            }
            leaf = Model.MaxLeaf;
        }
        CpuidLeaf data = Model.Leaf(leaf, subleaf);
        (eax, ebx, ecx, edx) = (data.Eax, data.Ebx, data.Ecx, data.Edx);
        uint apicId = (uint)Index;
        switch (leaf)
        {
            case 0:
                eax = limit;
                break;
            case 1:
                ebx = (ebx & 0x00ff_ffff) | apicId << 24;
                if ((State->Cr4 & Cr4.OSXSAVE) != 0)
                    ecx |= 1 << 27;
                if (!MonitorEnabled)
                    ecx &= ~(1u << 3);
                if (msrs.Read(Msr.IA32_APIC_BASE, out ulong apic) && (apic & 0x800) == 0)
                    edx &= ~(1u << 9);
                break;
            case 7 when subleaf == 0 && (State->Cr4 & Cr4.PKE) != 0:
                ecx |= 1 << 4;
                break;
            case 0xb:
                edx = apicId;
                ecx = (ecx & ~0xffu) | (subleaf & 0xff);
                break;
            case 0xd:
                XsaveLeaf(subleaf, ref eax, ref ebx, ref ecx, ref edx);
                break;
            case 0x80000001 when Model.Vendor == CpuVendor.Intel && !Code64:
                edx &= ~(1u << 11);
                break;
            case 0x8000001e:
                eax = apicId;
                break;
        }
    }

    /// <summary>Leaf 0DH: what XSAVE manages here, and area sizes by XCR0 and IA32_XSS.</summary>
    private void XsaveLeaf(uint subleaf, ref uint eax, ref uint ebx, ref uint ecx, ref uint edx)
    {
        ulong enabled = State->Xcr0 | State->Xss;
        switch (subleaf)
        {
            case 0:
                (eax, edx) = ((uint)Fpu.Xcr0, (uint)(Fpu.Xcr0 >> 32));
                ebx = Fpu.Xcr0 == 0 ? 0 : (uint)Fpu.AreaSize(State->Xcr0, 0);
                ecx = Fpu.Xcr0 == 0 ? 0 : (uint)Fpu.AreaSize(Fpu.Xcr0, 0);
                break;
            case 1:
                ebx = Fpu.Compacted || Fpu.Supervisor ? (uint)Fpu.AreaSize(enabled, enabled | 1UL << 63) : 0;
                (ecx, edx) = ((uint)Fpu.Xss, (uint)(Fpu.Xss >> 32));
                break;
            default:
                if (subleaf > 63 || ((Fpu.Xcr0 | Fpu.Xss) >> (int)subleaf & 1) == 0)
                    eax = ebx = ecx = edx = 0;
                break;
        }
    }

    internal static ExecStatus CpuidHandler(Processor cpu, Op* op)
    {
        if (cpu.NonRoot is { } guest && guest.Cpuid(op->Length))
            return ExecStatus.Switched;
        ulong* gpr = cpu.State->Gpr;
        cpu.Cpuid((uint)gpr[0], (uint)gpr[1], out uint eax, out uint ebx, out uint ecx, out uint edx);
        (gpr[0], gpr[3], gpr[1], gpr[2]) = (eax, ebx, ecx, edx);
        return ExecStatus.Next;
    }
}

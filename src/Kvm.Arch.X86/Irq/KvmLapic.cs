using System.Numerics;
using System.Runtime.CompilerServices;
using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Arch.X86.ApicConst;
using static Kvm.Arch.X86.MsrBits;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86;

/// <summary>
/// The local APIC of a vCPU (struct kvm_lapic). Its registers are one native page in the guest's layout, which the processor itself uses when it virtualizes the APIC.
/// IRR and TMR are written by any thread; the rest belongs to the thread that holds the vCPU's mutex.
/// </summary>
/// <remarks>arch/x86/kvm/lapic.c.</remarks>
public sealed unsafe partial class KvmLapic
{
    private readonly X86Arch _arch;

    private KvmLapic(X86Vcpu vcpu, byte* regs)
    {
        Vcpu = vcpu;
        _arch = vcpu.Arch;
        Regs = regs;
        Device = new MmioDevice(this);
        _timer = new HrTimer(vcpu.Host, TimerFn);
        NrLvtEntries = CalcNrLvtEntries(vcpu);
        TimerAdvanceNs = _arch.Params.LapicTimerAdvanceNs == -1 ? TimerAdvanceNsInit : (uint)_arch.Params.LapicTimerAdvanceNs;
        _timerAdvanceDynamic = _arch.Params.LapicTimerAdvanceNs == -1;
    }

    public X86Vcpu Vcpu { get; }

    /// <summary>The register page; its address is what VIRTUAL_APIC_PAGE_ADDR gets.</summary>
    public byte* Regs { get; private set; }

    /// <summary>The processor delivers interrupts and handles EOI by itself.</summary>
    public volatile bool ApicvActive;

    /// <summary>SVR bit 8.</summary>
    public bool SwEnabled;

    /// <summary>A hint: false means that IRR is empty.</summary>
    private volatile bool _irrPending;

    private bool _lvt0InNmiMode;

    /// <summary>Bits set in ISR; always 1 with APICv.</summary>
    private int _isrCount;

    /// <summary>The highest vector in service, or -1: ISR must be searched.</summary>
    private int _highestIsrCache = -1;

    private uint _divideCount;

    /// <summary>INIT and SIPI that wait: bits KVM_APIC_INIT, KVM_APIC_SIPI. Any thread sets them.</summary>
    public long PendingEvents;

    public uint SipiVector;

    public int NrLvtEntries { get; private set; }

    public ulong BaseAddress { get; private set; }

    /// <summary>-ENOMEM (false): nothing is left allocated.</summary>
    [KernelFunction("kvm_create_lapic", File = "arch/x86/kvm/lapic.c")]
    internal static bool Create(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("kvm_create_lapic");
        Host host = vcpu.Host;
        if (host.Faults.ShouldFail("kzalloc", "kvm_lapic"))
            return false;
        byte* regs;
        using (FunctionTrace.Enter("get_zeroed_page"))
            regs = (byte*)host.Pages.AllocPage("apic_regs");
        if (regs == null)
        {
            host.Log.Err($"malloc apic regs error for vcpu {vcpu.VcpuId:x}");
            return false;
        }

        vcpu.Apic = new KvmLapic(vcpu, regs);

        // Enabled, until kvm_lapic_reset gives the full value.
        vcpu.ApicBase = MSR_IA32_APICBASE_ENABLE;
        return true;
    }

    [KernelFunction("kvm_free_lapic", File = "arch/x86/kvm/lapic.c")]
    internal static void Free(X86Vcpu vcpu)
    {
        using var _ = FunctionTrace.Enter("kvm_free_lapic");
        if (vcpu.Apic is not { } apic)
            return;
        apic._timer.Cancel();
        vcpu.Host.Pages.FreePage((ulong)apic.Regs);
        apic.Regs = null;
        vcpu.Apic = null;
    }

    // ---- state ----

    /// <summary>kvm_apic_hw_enabled.</summary>
    public bool HwEnabled => (Vcpu.ApicBase & MSR_IA32_APICBASE_ENABLE) != 0;

    /// <summary>apic_x2apic_mode.</summary>
    public bool X2apicMode => (Vcpu.ApicBase & X2APIC_ENABLE) != 0;

    /// <summary>apic_enabled.</summary>
    public bool Enabled => SwEnabled && HwEnabled;

    /// <summary>kvm_xapic_id.</summary>
    public byte XapicId => (byte)(GetReg(APIC_ID) >> 24);

    /// <summary>kvm_x2apic_id.</summary>
    public uint X2apicId => (uint)Vcpu.VcpuId;

    private static int CalcNrLvtEntries(X86Vcpu vcpu) => KVM_APIC_MAX_NR_LVT_ENTRIES - ((vcpu.McgCap & MCG_CMCI_P) != 0 ? 0 : 1);

    private static int LvtRegister(int index) => index == LVT_CMCI ? APIC_LVTCMCI : APIC_LVTT + (0x10 * index);

    // ---- registers ----

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public uint GetReg(int offset) => Volatile.Read(ref *(uint*)(Regs + offset));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public void SetReg(int offset, uint value) => Volatile.Write(ref *(uint*)(Regs + offset), value);

    private ulong GetReg64(int offset) => *(ulong*)(Regs + offset);

    private void SetReg64(int offset, ulong value) => *(ulong*)(Regs + offset) = value;

    // ---- vectors: 8 words of 32 bits, 16 bytes apart ----

    private ref uint Word(int bitmap, int vector) => ref *(uint*)(Regs + bitmap + ((vector >> 5) << 4));

    public bool TestVector(int vector, int bitmap) => (Volatile.Read(ref Word(bitmap, vector)) >> (vector & 31) & 1) != 0;

    private void SetVector(int vector, int bitmap) => Interlocked.Or(ref Word(bitmap, vector), 1u << (vector & 31));

    private void ClearVector(int vector, int bitmap) => Interlocked.And(ref Word(bitmap, vector), ~(1u << (vector & 31)));

    /// <summary>find_highest_vector: -1 when the bitmap is empty.</summary>
    private int FindHighestVector(int bitmap)
    {
        for (int vector = 224; vector >= 0; vector -= 32)
        {
            uint word = Volatile.Read(ref Word(bitmap, vector));
            if (word != 0)
                return vector + BitOperations.Log2(word);
        }

        return -1;
    }

    /// <summary>kvm_apic_pending_eoi: the vector is requested or in service.</summary>
    [KernelFunction("kvm_apic_pending_eoi", File = "arch/x86/kvm/lapic.c")]
    public bool PendingEoi(int vector)
    {
        FunctionTrace.Leaf("kvm_apic_pending_eoi");
        return TestVector(vector, APIC_ISR) || TestVector(vector, APIC_IRR);
    }
}

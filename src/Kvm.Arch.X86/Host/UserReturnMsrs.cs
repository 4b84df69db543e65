using Kvm.Core.Tracing;

namespace Kvm.Arch.X86;

/// <summary>MSRs that keep the guest's value until the thread returns to userspace: SYSCALL targets, TSC_AUX and their like.</summary>
/// <remarks>x86.c: kvm_uret_msrs_list, kvm_user_return_msrs.</remarks>
public sealed class UserReturnMsrs
{
    public const int KVM_MAX_NR_USER_RETURN_MSRS = 16;

    private readonly HostX86 host;
    private readonly uint[] list = new uint[KVM_MAX_NR_USER_RETURN_MSRS];

    internal UserReturnMsrs(HostX86 host) => this.host = host;

    /// <summary>kvm_nr_uret_msrs.</summary>
    public int Count { get; private set; }

    public ReadOnlySpan<uint> List => list.AsSpan(0, Count);

    internal void Clear() => Count = 0;

    /// <summary>Adds an MSR if the processor lets it be read and written back: its slot, or -1.</summary>
    [KernelFunction("kvm_add_user_return_msr", File = "arch/x86/kvm/x86.c")]
    public int Add(uint msr)
    {
        using var _ = FunctionTrace.Enter("kvm_add_user_return_msr");
        HostX86Cpu cpu = host.ThisCpu;
        if (!cpu.RdmsrSafe(msr, out ulong value) || !cpu.WrmsrSafe(msr, value))
            return -1;
        list[Count] = msr;
        return Count++;
    }

    /// <summary>The slot of an MSR, or -1.</summary>
    [KernelFunction("kvm_find_user_return_msr", File = "arch/x86/kvm/x86.c")]
    public int Find(uint msr)
    {
        using var _ = FunctionTrace.Enter("kvm_find_user_return_msr");
        return IndexOf(msr);
    }

    /// <summary>kvm_is_supported_user_return_msr.</summary>
    public bool IsSupported(uint msr) => Find(msr) >= 0;

    private int IndexOf(uint msr)
    {
        for (int i = 0; i < Count; i++)
        {
            if (list[i] == msr)
                return i;
        }

        return -1;
    }

    /// <summary>kvm_user_return_msr_cpu_online: records the host's values on the current CPU.</summary>
    internal void CpuOnline()
    {
        HostX86Cpu cpu = host.ThisCpu;
        for (int i = 0; i < Count; i++)
        {
            cpu.RdmsrSafe(list[i], out ulong value);
            cpu.UserReturn.Host[i] = value;
            cpu.UserReturn.Curr[i] = value;
        }
    }

    /// <summary>Loads a value into a slot's MSR on the current CPU (bits of <paramref name="mask"/>; the rest is the host's): 0, or 1 when it faults.</summary>
    [KernelFunction("kvm_set_user_return_msr", File = "arch/x86/kvm/x86.c")]
    public int Set(int slot, ulong value, ulong mask)
    {
        using var _ = FunctionTrace.Enter("kvm_set_user_return_msr");
        HostX86Cpu cpu = host.ThisCpu;
        UserReturnValues values = cpu.UserReturn;
        value = (value & mask) | (values.Host[slot] & ~mask);
        if (value == values.Curr[slot])
            return 0;
        if (!cpu.WrmsrSafe(list[slot], value))
            return 1;
        values.Curr[slot] = value;
        if (!values.Registered)
        {
            using var r = FunctionTrace.Enter("user_return_notifier_register");
            values.Registered = true;
            host.RegisterUserReturnNotifier(cpu);
        }

        return 0;
    }

    /// <summary>The guest's value of a slot that is in the processor now.</summary>
    public ulong Current(int slot) => host.ThisCpu.UserReturn.Curr[slot];

    /// <summary>The host's value of a slot on this CPU.</summary>
    public ulong HostValue(int slot) => host.ThisCpu.UserReturn.Host[slot];

    /// <summary>kvm_on_user_return: gives every changed MSR its host value back, on <paramref name="cpu"/>.</summary>
    internal void OnUserReturn(HostX86Cpu cpu)
    {
        UserReturnValues values = cpu.UserReturn;
        values.Registered = false;
        for (int i = 0; i < Count; i++)
        {
            if (values.Host[i] == values.Curr[i])
                continue;
            cpu.Wrmsr(list[i], values.Host[i]);
            values.Curr[i] = values.Host[i];
        }
    }

    /// <summary>drop_user_return_notifiers, on the current CPU.</summary>
    internal void Drop()
    {
        HostX86Cpu cpu = host.ThisCpu;
        if (cpu.UserReturn.Registered)
            OnUserReturn(cpu);
    }
}

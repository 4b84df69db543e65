using Kvm.Abi;
using static Kvm.Abi.Uapi;

namespace Kvm.Vmm.Debugging;

/// <summary>A debugger's breakpoints and watchpoints, and the KVM_SET_GUEST_DEBUG that makes them work.</summary>
/// <remarks>Not synchronized: changed only while all vCPUs stand still.</remarks>
internal sealed class Breakpoints
{
    private const byte Int3 = 0xcc;
    private const int HardwareCount = 4;

    private readonly Dictionary<ulong, (ulong Physical, byte Original)> _software = [];
    private readonly (ulong Address, int Length, DebugCause Kind)?[] _hardware = new (ulong, int, DebugCause)?[HardwareCount];

    /// <summary>Whether an INT3 of the debugger's stands at the linear address.</summary>
    public bool HasSoftware(ulong address) => _software.ContainsKey(address);

    /// <summary>Puts an INT3 at a linear address. False: there is no memory.</summary>
    public bool AddSoftware(LinearMemory memory, ulong address)
    {
        if (_software.ContainsKey(address)) return true;
        if (!memory.TryFind(address, out ulong physical, out Span<byte> at)) return false;
        _software[address] = (physical, at[0]);
        at[0] = Int3;
        return true;
    }

    /// <summary>Takes an INT3 away. False: there is none.</summary>
    public bool RemoveSoftware(LinearMemory memory, ulong address)
    {
        if (!_software.Remove(address, out (ulong Physical, byte Original) point)) return false;
        // Where it was put, whatever is mapped there now; two addresses may have shared the byte.
        if (!_software.Values.Any(p => p.Physical == point.Physical) && memory.TryPhysical(point.Physical, 1, out Span<byte> at) && at[0] == Int3) at[0] = point.Original;
        return true;
    }

    /// <summary>Uses a debug register. False: all four are in use, or the length or alignment can't be watched.</summary>
    public bool AddHardware(ulong address, int length, DebugCause kind)
    {
        bool fits = kind == DebugCause.HardwareBreakpoint || (length is 1 or 2 or 4 or 8 && address % (ulong)length == 0);
        int free = Array.IndexOf(_hardware, null);
        if (!fits || free < 0) return false;
        if (!_hardware.Contains((address, length, kind))) _hardware[free] = (address, length, kind);
        return true;
    }

    /// <summary>Frees a debug register. False: there is no such breakpoint.</summary>
    public bool RemoveHardware(ulong address, int length, DebugCause kind)
    {
        int at = Array.IndexOf(_hardware, (address, length, kind));
        if (at >= 0) _hardware[at] = null;
        return at >= 0;
    }

    /// <summary>Takes all away.</summary>
    public void Clear(LinearMemory memory)
    {
        foreach (ulong address in _software.Keys.ToArray()) RemoveSoftware(memory, address);
        Array.Clear(_hardware);
    }

    /// <summary>The bytes that the guest's program has, in a copy of memory that starts at a guest-physical address.</summary>
    public void Hide(ulong physical, Span<byte> bytes)
    {
        foreach ((ulong at, byte original) in _software.Values)
        {
            if (at - physical < (ulong)bytes.Length) bytes[(int)(at - physical)] = original;
        }
    }

    /// <summary>The debugger wrote memory: its INT3s stay, over the new bytes.</summary>
    public void Rewrite(ulong physical, Span<byte> memory)
    {
        foreach (ulong address in _software.Keys.ToArray())
        {
            ulong at = _software[address].Physical;
            if (at - physical >= (ulong)memory.Length) continue;
            _software[address] = (at, memory[(int)(at - physical)]);
        }

        foreach ((ulong at, byte _) in _software.Values)
        {
            if (at - physical < (ulong)memory.Length) memory[(int)(at - physical)] = Int3;
        }
    }

    /// <summary>The debug register that a #DB names in DR6.</summary>
    public DebugStop? Hit(int vcpu, ulong dr6)
    {
        for (int i = 0; i < HardwareCount; i++)
        {
            if ((dr6 & (1UL << i)) != 0 && _hardware[i] is { } point) return new DebugStop(vcpu, point.Kind, point.Address);
        }

        return null;
    }

    /// <summary>What KVM_SET_GUEST_DEBUG is told.</summary>
    /// <param name="step">The flags for one step: <c>KVM_GUESTDBG_SINGLESTEP</c>, with <c>KVM_GUESTDBG_BLOCKIRQ</c> where there is that; or 0.</param>
    public kvm_guest_debug Control(uint step)
    {
        var debug = new kvm_guest_debug { control = step };
        if (_software.Count > 0) debug.control |= KVM_GUESTDBG_USE_SW_BP;
        ulong dr7 = 0;
        for (int i = 0; i < HardwareCount; i++)
        {
            if (_hardware[i] is not { } point) continue;
            ulong readWrite = point.Kind switch { DebugCause.HardwareBreakpoint => 0, DebugCause.WriteWatchpoint => 1, _ => 3 };
            ulong length = point.Kind == DebugCause.HardwareBreakpoint ? 0 : point.Length switch { 1 => 0UL, 2 => 1, 8 => 2, _ => 3 };
            debug.arch.debugreg[i] = point.Address;
            dr7 |= (2UL << (i * 2)) | (readWrite << (16 + i * 4)) | (length << (18 + i * 4));
        }

        if (dr7 != 0)
        {
            debug.control |= KVM_GUESTDBG_USE_HW_BP;
            debug.arch.debugreg[7] = dr7 | 0x400;
        }

        if (debug.control != 0) debug.control |= KVM_GUESTDBG_ENABLE;
        return debug;
    }
}

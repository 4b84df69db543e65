using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Kvm.Emulator.Vmx;

/// <summary>
/// The VMX unit of one processor: whether it is in VMX operation, the VMXON pointer, the current VMCS and the VMCSs that are active here.
/// </summary>
/// <remarks>
/// SDM vol 3C, "Software Use of Virtual-Machine Control Structures". An active VMCS is held in the unit; VMREAD, VMWRITE and VM transitions work on that copy
/// and VMCLEAR writes it back. So loading a VMCS on a second processor before the first one has executed VMCLEAR shows stale data there, as on silicon.
/// </remarks>
internal sealed unsafe partial class VmxUnit : IDisposable
{
    /// <summary>Value of the current-VMCS and link pointers that means "none".</summary>
    internal const ulong NoVmcs = ulong.MaxValue;

    /// <summary>An active VMCS with what the processor remembers about it; Data is the part that VMCLEAR writes to memory.</summary>
    internal struct ActiveVmcs
    {
        public Vmcs Data;
        public ulong Address;
        /// <summary>Groups written since they last passed the VM-entry checks.</summary>
        public VmcsDirty Dirty;
        /// <summary>Segment registers that a VM exit loads.</summary>
        public CpuState.SegmentArray HostSegments;
        /// <summary>RFLAGS.VM as of the last check of the segment registers.</summary>
        public bool CheckedVirtual8086;
    }

    private readonly Processor cpu;
    private readonly Dictionary<ulong, nint> active = [];
    private ActiveVmcs* current;
    private ActiveVmcs* freeList;
    private ulong vmxonPointer;

    internal VmxUnit(Processor cpu)
    {
        this.cpu = cpu;
        Capabilities = cpu.VmxCapabilities;
        Layout = new VmcsLayout(Capabilities);
        reservedEferBits = ~cpu.EferMask;
        reservedPerfGlobalBits = ~cpu.SupportedPerfGlobalBits;
        reservedDebugCtlBits = ~cpu.SupportedDebugCtlBits;
        Guest = new VmxGuest(this, cpu);
    }

    internal VmxCapabilities Capabilities { get; }
    internal VmcsLayout Layout { get; }
    internal VmxGuest Guest { get; }

    /// <summary>In VMX operation (root or non-root).</summary>
    internal bool On { get; private set; }

    /// <summary>The current-VMCS pointer; <see cref="NoVmcs"/> when there is none.</summary>
    internal ulong CurrentPointer => current == null ? NoVmcs : current->Address;

    /// <summary>Data of the current VMCS; null when there is none.</summary>
    internal Vmcs* Current => current == null ? null : &current->Data;

    /// <summary>VMCSs active on this processor.</summary>
    internal int ActiveCount => active.Count;

    /// <summary>First address beyond the ones VMX structures may use.</summary>
    internal ulong PhysicalLimit => Capabilities.AddressesLimitedTo32Bits ? 1UL << 32 : 1UL << cpu.PhysicalAddressBits;

    /// <summary>VMX operation ends without VMXOFF: reset. Active VMCSs are lost.</summary>
    internal void Reset()
    {
        LeaveVmxOperation();
    }

    public void Dispose()
    {
        LeaveVmxOperation();
        while (freeList != null)
        {
            ActiveVmcs* next = (ActiveVmcs*)freeList->Address;
            NativeMemory.Free(freeList);
            freeList = next;
        }
        Guest.Dispose();
    }

    private void LeaveVmxOperation()
    {
        foreach (nint block in active.Values)
            Release((ActiveVmcs*)block);
        active.Clear();
        current = null;
        On = false;
        Guest.ForgetVmcs();
    }

    /// <summary>Makes the VMCS at <paramref name="pa"/> active, reading it from memory if it is not active yet. Null when there is no memory there.</summary>
    private ActiveVmcs* Activate(ulong pa)
    {
        if (active.TryGetValue(pa, out nint known))
            return (ActiveVmcs*)known;
        byte* memory = Physical(pa);
        if (memory == null)
            return null;
        ActiveVmcs* block = Acquire();
        Unsafe.InitBlockUnaligned(block, 0, (uint)sizeof(ActiveVmcs));
        Unsafe.CopyBlockUnaligned(block, memory, DataSize);
        block->Address = pa;
        block->Dirty = VmcsDirty.All;
        active.Add(pa, (nint)block);
        return block;
    }

    /// <summary>Bytes of the region that hold data: never more than the region size that IA32_VMX_BASIC announces.</summary>
    private uint DataSize => Math.Min((uint)sizeof(Vmcs), (uint)Capabilities.RegionSize);

    private ActiveVmcs* Acquire()
    {
        ActiveVmcs* block = freeList;
        if (block == null)
            return (ActiveVmcs*)NativeMemory.Alloc((nuint)sizeof(ActiveVmcs));
        freeList = (ActiveVmcs*)block->Address;
        return block;
    }

    private void Release(ActiveVmcs* block)
    {
        block->Address = (ulong)freeList;
        freeList = block;
    }

    // The range of RAM that was looked up last: VMX structures and EPT tables usually come from one allocator.
    private ulong rangeStart, rangeSize;
    private byte* rangeHost;
    private uint rangeEpoch;

    /// <summary>Host pointer to RAM at a physical address, valid to the end of its 4 KiB page; null where there is none.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal byte* Physical(ulong pa) =>
        pa - rangeStart < rangeSize && rangeEpoch == cpu.Machine.Memory.Epoch ? rangeHost + (pa - rangeStart) : FindPhysical(pa);

    [MethodImpl(MethodImplOptions.NoInlining)]
    private byte* FindPhysical(ulong pa)
    {
        // Read first: a range that is withdrawn meanwhile leaves an epoch behind that no longer matches.
        uint epoch = cpu.Machine.Memory.Epoch;
        MemoryRange? range = cpu.Machine.Memory.Find(pa);
        if (range is null)
            return null;
        rangeStart = range.Start;
        rangeSize = range.Size;
        rangeHost = range.Host;
        rangeEpoch = epoch;
        return range.Host + (pa - range.Start);
    }

    /// <summary>Address of a 4 KiB-aligned VMX structure within the physical-address width.</summary>
    internal bool IsValidStructureAddress(ulong pa) => (pa & 0xfff) == 0 && pa < PhysicalLimit;
}

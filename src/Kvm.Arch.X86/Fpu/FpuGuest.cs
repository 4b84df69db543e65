using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Kvm.Core.Tracing;
using Kvm.Emulator;
using static Kvm.Arch.X86.X86Const;

namespace Kvm.Arch.X86;

/// <summary>
/// A vCPU's FPU state (struct fpu_guest): an image in memory, or the registers of the processor that ran the vCPU last. They are left there until another vCPU
/// wants that processor's, or this vCPU runs on another processor, or somebody looks at the image.
/// </summary>
/// <remarks>
/// kernel/fpu/core.c: fpu_alloc_guest_fpstate, fpu_swap_kvm_fpstate. Linux saves at the end of every KVM_RUN because the thread's own state goes back into the registers;
/// here threads have none, so nobody sees the difference (DIVERGES: D-X86-4). Locking: <see cref="HostX86Cpu.FpuGate"/> of a processor covers its owner and, while it is the owner, that
/// owner's image. Only the thread that occupies a processor makes a state its owner; only the vCPU's thread (vcpu->mutex) takes its own state away from one.
/// </remarks>
public sealed unsafe class FpuGuest
{
    internal const int OffsetMxcsr = 24, OffsetSt = 32, OffsetXmm = 160, OffsetSwReserved = 464, OffsetHeader = 512, OffsetXcompBv = 520;
    internal const uint MxcsrDefault = 0x1f80;
    private const ushort ControlDefault = 0x37f;

    private readonly XstateLayout layout;
    private readonly byte[] image;
    private HostX86Cpu? loadedOn;

    internal FpuGuest(XstateLayout layout)
    {
        this.layout = layout;
        image = GC.AllocateArray<byte>(Math.Max(layout.KernelSize, OffsetHeader + 64), pinned: true);
        Reinitialize();
    }

    /// <summary>uabi_size: bytes of KVM_GET_XSAVE2.</summary>
    public int UabiSize => Math.Max(4096, layout.StandardSize);

    /// <summary>The processor whose registers hold the state now.</summary>
    public HostX86Cpu? LoadedOn => Volatile.Read(ref loadedOn);

    private byte* Area => (byte*)Unsafe.AsPointer(ref MemoryMarshal.GetArrayDataReference(image));

    /// <summary>fpstate_init_user: every component in its initial state.</summary>
    private void Reinitialize()
    {
        Array.Clear(image);
        BitConverter.TryWriteBytes(image, ControlDefault);
        BitConverter.TryWriteBytes(image.AsSpan(OffsetMxcsr), MxcsrDefault);
        BitConverter.TryWriteBytes(image.AsSpan(OffsetXcompBv), layout.XcompBv);
    }

    /// <summary>The image with what the registers hold.</summary>
    internal ReadOnlySpan<byte> Read()
    {
        if (LoadedOn is { } cpu)
        {
            lock (cpu.FpuGate)
            {
                if (cpu.FpuOwner == this)
                    Save(cpu.Processor);
            }
        }

        return image;
    }

    /// <summary>The image for writing: the next entry loads it.</summary>
    internal Span<byte> Modify()
    {
        if (LoadedOn is { } cpu)
        {
            lock (cpu.FpuGate)
            {
                if (cpu.FpuOwner == this)
                    TakeFrom(cpu);
            }
        }

        return image;
    }

    /// <summary>Makes the processor's registers this state; on that processor.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal void Load(HostX86Cpu cpu)
    {
        if (cpu.FpuOwner != this)
            Switch(cpu);
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private void Switch(HostX86Cpu cpu)
    {
        Modify();
        lock (cpu.FpuGate)
        {
            cpu.FpuOwner?.TakeFrom(cpu);
            if (!Restore(cpu.Processor))
            {
                // ex_handler_fprestore: a state that the processor refuses is replaced by the initial one.
                Reinitialize();
                Restore(cpu.Processor);
            }

            cpu.FpuOwner = this;
            Volatile.Write(ref loadedOn, cpu);
        }
    }

    /// <summary>The processor goes offline.</summary>
    internal static void Evict(HostX86Cpu cpu)
    {
        lock (cpu.FpuGate)
            cpu.FpuOwner?.TakeFrom(cpu);
    }

    /// <summary>fpu_free_guest_fpstate.</summary>
    internal void Free()
    {
        if (LoadedOn is not { } cpu)
            return;
        lock (cpu.FpuGate)
        {
            if (cpu.FpuOwner == this)
                cpu.FpuOwner = null;
            Volatile.Write(ref loadedOn, null);
        }
    }

    /// <summary>Under the gate: registers to the image, the processor has no owner.</summary>
    private void TakeFrom(HostX86Cpu cpu)
    {
        Save(cpu.Processor);
        cpu.FpuOwner = null;
        // The image is complete before anybody may use it without the gate.
        Volatile.Write(ref loadedOn, null);
    }

    /// <summary>os_xsave of all components, or fxsave.</summary>
    private void Save(Processor processor)
    {
        if (!layout.HasXsave)
            processor.Fxsave(Area);
        else if (layout.HasXsaves)
            processor.Xsaves(Area, layout.Features);
        else
            processor.Xsave(Area, layout.Features);
    }

    /// <summary>restore_fpregs_from_fpstate: everything but PKRU, which is switched at each entry.</summary>
    private bool Restore(Processor processor)
    {
        ulong mask = layout.Features & ~XFEATURE_MASK_PKRU;
        InstructionResult result = !layout.HasXsave ? processor.Fxrstor(Area) : layout.HasXsaves ? processor.Xrstors(Area, mask) : processor.Xrstor(Area, mask);
        return result.Ok;
    }
}

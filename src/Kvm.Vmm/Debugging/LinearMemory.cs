using Kvm.Client;

namespace Kvm.Vmm.Debugging;

/// <summary>Guest memory as a vCPU that stands still sees it: through KVM_TRANSLATE. A real-mode or unpaged vCPU's linear addresses are physical.</summary>
internal sealed class LinearMemory(GuestPhysicalMemory memory)
{
    private const int PageSize = 4096;

    /// <summary>Through whose page tables.</summary>
    public required Vcpu Vcpu { get; set; }

    /// <summary>Memory by guest-physical address.</summary>
    public bool TryPhysical(ulong address, int length, out Span<byte> bytes) => memory(address, length, out bytes);

    /// <summary>One byte of memory at a linear address.</summary>
    public bool TryFind(ulong address, out ulong physical, out Span<byte> bytes)
    {
        bytes = default;
        return TryTranslate(address, out physical) && memory(physical, 1, out bytes);
    }

    /// <summary>Copies from the guest, without the debugger's own INT3s.</summary>
    /// <returns>How many bytes there were.</returns>
    public int Read(ulong address, Span<byte> to, Breakpoints hidden)
    {
        int done = 0;
        while (done < to.Length)
        {
            int part = InPage(address, to.Length - done);
            if (!TryTranslate(address, out ulong physical) || !memory(physical, part, out Span<byte> from)) break;
            from.CopyTo(to[done..]);
            hidden.Hide(physical, to.Slice(done, part));
            done += part;
            address += (ulong)part;
        }

        return done;
    }

    /// <summary>Copies to the guest, pages that are read-only to it too.</summary>
    /// <returns>How many bytes there was room for.</returns>
    public int Write(ulong address, ReadOnlySpan<byte> from, Breakpoints over)
    {
        int done = 0;
        while (done < from.Length)
        {
            int part = InPage(address, from.Length - done);
            if (!TryTranslate(address, out ulong physical) || !memory(physical, part, out Span<byte> to)) break;
            from.Slice(done, part).CopyTo(to);
            over.Rewrite(physical, to);
            done += part;
            address += (ulong)part;
        }

        return done;
    }

    /// <summary>False: nothing is mapped there.</summary>
    public bool TryTranslate(ulong address, out ulong physical)
    {
        Abi.kvm_translation translation = Vcpu.Translate(address);
        physical = translation.physical_address;
        return translation.valid != 0;
    }

    private static int InPage(ulong address, int length) => Math.Min(length, PageSize - (int)(address % PageSize));
}

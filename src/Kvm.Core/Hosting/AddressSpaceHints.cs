using Kvm.Interop;

namespace Kvm.Core;

/// <summary>
/// Gives out process addresses between 64 GiB and 2^39 for host memory. Physical == process address (D1), so processors with 40-bit physical addresses can
/// reach everything only when it lies low.
/// </summary>
internal static unsafe class AddressSpaceHints
{
    private const ulong First = 64UL << 30;
    private const ulong Last = 1UL << 39;
    private static ulong s_next = First;

    /// <summary>Maps <paramref name="length"/> bytes (page multiple) at a low address aligned to <paramref name="align"/>; null when memory is short.</summary>
    public static void* Map(ulong length, ulong align, int prot, int flags, int fd, long offset)
    {
        for (int attempt = 0; attempt < 64; attempt++)
        {
            ulong step = (length + align + 0xffff) & ~0xffffUL;
            ulong end = Interlocked.Add(ref s_next, step);
            if (end > Last)
            {
                Interlocked.CompareExchange(ref s_next, First, end);
                continue;
            }

            ulong hint = (end - step + align - 1) & ~(align - 1);
            void* p = LibC.mmap((void*)hint, (nuint)length, prot, flags | LibC.MAP_FIXED_NOREPLACE, fd, offset);
            if (p == (void*)hint) return p;
            if (p != LibC.MAP_FAILED) _ = LibC.munmap(p, (nuint)length);
        }

        return null;
    }

    /// <summary>Maps <paramref name="length"/> bytes below 2 GiB, aligned to their (power of two) length; null when there is no room.</summary>
    public static void* MapBelow4G(ulong length, int prot, int flags, int fd, long offset)
    {
        for (ulong hint = 0x1000_0000; hint + length <= 0x8000_0000; hint += length)
        {
            void* p = LibC.mmap((void*)hint, (nuint)length, prot, flags | LibC.MAP_FIXED_NOREPLACE, fd, offset);
            if (p == (void*)hint) return p;
            if (p != LibC.MAP_FAILED) _ = LibC.munmap(p, (nuint)length);
        }

        return null;
    }
}

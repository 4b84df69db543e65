using System.Runtime.InteropServices;
using Kvm.Emulator.Vector;
using Kvm.Interop;

namespace Kvm.Emulator.Native;

/// <summary>
/// The memory of one processor's generated code, and within reach of its RIP-relative operands the state block and the words that it looks at:
/// state, data, code, one after the other.
/// </summary>
/// <remarks>The code is mapped twice, writable and executable, so no page is ever both.</remarks>
internal sealed unsafe class CodeMemory : IDisposable
{
    private const nuint stateSize = 64 << 10, dataSize = 16 << 20;

    private readonly byte* region;
    private readonly byte* writable;
    private readonly nuint codeSize;

    private CodeMemory(byte* region, byte* writable, nuint codeSize)
    {
        this.region = region;
        this.writable = writable;
        this.codeSize = codeSize;
    }

    /// <summary>Room for the state block.</summary>
    internal byte* State => region;
    internal byte* Data => region + stateSize;
    internal byte* DataEnd => Data + dataSize;
    /// <summary>Where code is written.</summary>
    internal byte* Code => writable;
    internal byte* CodeEnd => writable + codeSize;
    /// <summary>From where code is written to where it is executed.</summary>
    internal long ToExecutable => region + stateSize + dataSize - writable;

    /// <summary>Null: the host has no such memory, or is none that code can be generated for.</summary>
    internal static CodeMemory? TryCreate(int size)
    {
        nuint codeSize = (nuint)size;
        if (!HostCode.Supported || RuntimeInformation.ProcessArchitecture != Architecture.X64)
            return null;
        int fd = LibC.memfd_create("kvm-native", LibC.MFD_CLOEXEC);
        if (fd < 0)
            return null;
        byte* region = null, writable = null;
        if (LibC.ftruncate(fd, (nint)codeSize) == 0)
        {
            const int anonymous = LibC.MAP_PRIVATE | LibC.MAP_ANONYMOUS | LibC.MAP_NORESERVE;
            region = Mapped(LibC.mmap(null, stateSize + dataSize + codeSize, LibC.PROT_READ | LibC.PROT_WRITE, anonymous, -1, 0));
            writable = Mapped(LibC.mmap(null, codeSize, LibC.PROT_READ | LibC.PROT_WRITE, LibC.MAP_SHARED, fd, 0));
            if (region != null && LibC.mmap(region + stateSize + dataSize, codeSize, LibC.PROT_READ | LibC.PROT_EXEC, LibC.MAP_SHARED | LibC.MAP_FIXED, fd, 0) == LibC.MAP_FAILED)
            {
                LibC.munmap(region, stateSize + dataSize + codeSize);
                region = null;
            }
        }
        LibC.close(fd);
        if (region != null && writable != null)
            return new CodeMemory(region, writable, codeSize);
        if (region != null)
            LibC.munmap(region, stateSize + dataSize + codeSize);
        if (writable != null)
            LibC.munmap(writable, codeSize);
        return null;
    }

    private static byte* Mapped(void* address) => address == LibC.MAP_FAILED ? null : (byte*)address;

    public void Dispose()
    {
        LibC.munmap(region, stateSize + dataSize + codeSize);
        LibC.munmap(writable, codeSize);
    }
}

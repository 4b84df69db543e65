using System.Runtime.InteropServices;
using System.Runtime.Intrinsics.X86;
using Kvm.Interop;

namespace Kvm.Emulator.Tests.Engine;

/// <summary>Executes instruction bytes on the host's own processor: sixteen registers in, sixteen registers and flags out. R15 addresses a scratch buffer; RSP is not the program's.</summary>
internal sealed unsafe class HostProcessor : IDisposable
{
    private const int Length = 8192;
    private readonly byte* code;

    /// <summary>RAX RCX RDX RBX (RSP) RBP RSI RDI R8–R15, then RFLAGS.</summary>
    internal readonly ulong* Registers;
    internal readonly byte* Scratch;

    internal static bool Available => RuntimeInformation.ProcessArchitecture == Architecture.X64 && OperatingSystem.IsLinux();

    internal HostProcessor()
    {
        code = (byte*)LibC.mmap(null, Length, 7, LibC.MAP_PRIVATE | LibC.MAP_ANONYMOUS, -1, 0);
        if (code == LibC.MAP_FAILED)
            throw new InvalidOperationException("no executable memory");
        Registers = (ulong*)(code + 4096);
        Scratch = code + 4096 + 1024;
    }

    /// <summary>CPUID bit of the host.</summary>
    internal static bool Has(int leaf, int subleaf, int register, int bit)
    {
        (int eax, int ebx, int ecx, int edx) = X86Base.CpuId(leaf, subleaf);
        int value = register switch { 0 => eax, 1 => ebx, 2 => ecx, _ => edx };
        return (value >> bit & 1) != 0;
    }

    internal void Execute(ReadOnlySpan<byte> instructions)
    {
        byte* p = code;
        void Emit(params ReadOnlySpan<byte> bytes)
        {
            bytes.CopyTo(new Span<byte>(p, bytes.Length));
            p += bytes.Length;
        }
        Emit(0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57);       // push rbx rbp r12 r13 r14 r15
        Emit(0x57);                                                            // push rdi: the register file
        Emit(0x48, 0x89, 0xf8);                                                // mov rax, rdi
        Emit(0xff, 0xb0, 0x80, 0, 0, 0, 0x9d);                                 // push [rax + 128]; popfq
        for (int r = 1; r < 16; r++)
            if (r != 4)
                Emit((byte)(0x48 | (r >= 8 ? 4 : 0)), 0x8b, (byte)(0x40 | (r & 7) << 3), (byte)(r * 8)); // mov r, [rax + 8r]
        Emit(0x48, 0x8b, 0x00);                                                // mov rax, [rax]
        Emit(instructions);
        Emit(0x50, 0x48, 0x8b, 0x44, 0x24, 0x08);                              // push rax; mov rax, [rsp + 8]
        for (int r = 1; r < 16; r++)
            if (r != 4)
                Emit((byte)(0x48 | (r >= 8 ? 4 : 0)), 0x89, (byte)(0x40 | (r & 7) << 3), (byte)(r * 8));
        Emit(0x59, 0x48, 0x89, 0x08);                                          // pop rcx; mov [rax], rcx
        Emit(0x9c, 0x8f, 0x80, 0x80, 0, 0, 0);                                 // pushfq; pop [rax + 128]
        Emit(0xfc, 0x5f);                                                      // cld; pop rdi
        Emit(0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b, 0xc3);
        ((delegate* unmanaged<ulong*, void>)code)(Registers);
    }

    public void Dispose() => LibC.munmap(code, Length);
}

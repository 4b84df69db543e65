using System.Runtime.InteropServices;
using Iced.Intel;
using Kvm.Emulator.Engine;

namespace Kvm.Emulator.Vector;

/// <summary>The C# core of each x87, MMX, SSE and AVX instruction, by Iced's code. Rows are registered by the files VectorTable.*.cs.</summary>
internal sealed unsafe partial class VectorTable
{
    internal static VectorTable Instance { get; } = new();

    private readonly delegate*<CpuState*, Op*, byte*, void>* cores;

    private VectorTable()
    {
        int count = (int)Enum.GetValues<Code>().Max() + 1;
        cores = (delegate*<CpuState*, Op*, byte*, void>*)NativeMemory.AllocZeroed((nuint)count, (nuint)sizeof(void*));
        RegisterX87(this);
        RegisterMmx(this);
        RegisterInteger(this);
        RegisterMoves(this);
        RegisterFloat(this);
        RegisterCrypto(this);
    }

    internal delegate*<CpuState*, Op*, byte*, void> this[Code code] => cores[(int)code];

    internal void Row(Code code, delegate*<CpuState*, Op*, byte*, void> core) => cores[(int)code] = core;

    static partial void RegisterX87(VectorTable t);
    static partial void RegisterMmx(VectorTable t);
    static partial void RegisterInteger(VectorTable t);
    static partial void RegisterMoves(VectorTable t);
    static partial void RegisterFloat(VectorTable t);
    static partial void RegisterCrypto(VectorTable t);
}

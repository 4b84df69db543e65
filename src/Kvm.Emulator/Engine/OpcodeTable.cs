using System.Runtime.InteropServices;
using Iced.Intel;

namespace Kvm.Emulator.Engine;

/// <summary>
/// Handler of every instruction by Iced's <see cref="Code"/>. Rows are registered by the files OpcodeTable.*.cs and by the parts that own
/// system, VMX and SVM instructions (<see cref="RegisterSystem"/>, <see cref="RegisterVmx"/>, <see cref="RegisterSvm"/>).
/// An instruction without a row, or whose CPUID feature the processor does not announce, raises #UD.
/// </summary>
internal sealed unsafe partial class OpcodeTable
{
    /// <summary>The table: the same for all processors, built once.</summary>
    internal static OpcodeTable Instance { get; } = new();

    private readonly OpcodeRow* rows;
    private readonly int count;

    private OpcodeTable()
    {
        count = (int)Enum.GetValues<Code>().Max() + 1;
        rows = (OpcodeRow*)NativeMemory.AllocZeroed((nuint)count, (nuint)sizeof(OpcodeRow));
        RegisterInteger(this);
        RegisterSystem(this);
        RegisterVmx(this);
        RegisterSvm(this);
    }

    internal ref readonly OpcodeRow this[Code code] => ref rows[(int)code];

    /// <summary>Registers <paramref name="handler"/> for <paramref name="code"/>.</summary>
    internal void Row(Code code, delegate*<Processor, Op*, ExecStatus> handler, OpcodeFlags flags = OpcodeFlags.None)
        => rows[(int)code] = new OpcodeRow { Handler = handler, Flags = flags };

    static partial void RegisterInteger(OpcodeTable t);
    /// <summary>System, segment, far-transfer, I/O and interrupt instructions: System/OpcodeTable.System.cs.</summary>
    static partial void RegisterSystem(OpcodeTable t);
    /// <summary>VMX instructions: Vmx/OpcodeTable.Vmx.cs.</summary>
    static partial void RegisterVmx(OpcodeTable t);
    /// <summary>SVM instructions: Svm/OpcodeTable.Svm.cs.</summary>
    static partial void RegisterSvm(OpcodeTable t);
}

/// <summary>One instruction of <see cref="OpcodeTable"/>.</summary>
internal unsafe struct OpcodeRow
{
    public delegate*<Processor, Op*, ExecStatus> Handler;
    public OpcodeFlags Flags;
}

/// <summary>What the decoder must know about an instruction beyond its handler.</summary>
[Flags]
internal enum OpcodeFlags
{
    None = 0,
    /// <summary>
    /// The block ends after it: a branch, a far transfer, or an instruction that can change mode, paging, privilege, interruptibility or code
    /// (STI, MOV SS, MOV CR, WRMSR, IRET, VMLAUNCH …). A handler may return <see cref="ExecStatus.NextEndBlock"/> only when its row says so.
    /// </summary>
    EndBlock = 1,
    /// <summary>The handler reads no arithmetic flags and leaves them alone.</summary>
    NoFlags = 2,
    /// <summary>Sets CpuState.InterruptShadow itself (STI, MOV SS, POP SS): the loop does not clear it after this instruction.</summary>
    SetsShadow = 4,
    /// <summary>Executes without a CPUID check (the row's handler decides).</summary>
    AnyFeature = 8,
}

using Iced.Intel;
using Kvm.Emulator.Engine;

namespace Kvm.Emulator;

/// <summary>Handlers of system instructions for the decoder's table.</summary>
internal static unsafe class SystemInstructions
{
    /// <summary>The handler of a system instruction, null when <paramref name="code"/> is not one of this part's.</summary>
    public static delegate*<Processor, Op*, ExecStatus> Find(Code code)
    {
        _ = code;
        return null;
    }
}

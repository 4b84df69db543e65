namespace Kvm.Emulator;

/// <summary>Who executes a guest's instructions.</summary>
public enum ExecutionEngine
{
    /// <summary>The interpreter of decoded blocks: on every host.</summary>
    Interpreter,
    /// <summary>Hot blocks are translated to host code, the interpreter does the rest. Where the host is no x86-64 Linux this is <see cref="Interpreter"/>.</summary>
    Native,
}

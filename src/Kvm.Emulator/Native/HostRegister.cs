namespace Kvm.Emulator.Native;

/// <summary>Registers of the host by number, as generated code uses them.</summary>
/// <remarks>
/// Guest RAX–R12 are in the host's registers of the same name, RSP in R13; R13–R15 stay in the state block. R14 and R15 are free for each instruction's use.
/// The host's RSP is the thread's.
/// </remarks>
internal static class HostRegister
{
    internal const int None = -1, Rax = 0, Rcx = 1, Rdx = 2, Rbx = 3, Rsp = 4, Rbp = 5, Rsi = 6, Rdi = 7, R8 = 8, R12 = 12, R13 = 13, R14 = 14, R15 = 15;

    /// <summary>The register of the guest's stack pointer.</summary>
    internal const int Stack = R13;

    /// <summary>Guest registers that live in the state block.</summary>
    internal static bool IsSpilled(int guest) => guest is >= 13 and < 16;

    /// <summary>Where a guest register that is not spilled lives.</summary>
    internal static int Of(int guest) => guest == Rsp ? Stack : guest;
}

namespace Kvm.Emulator.Vmx;

/// <summary>Bits of the guest interruptibility-state field (SDM vol 3C, "Guest Non-Register State").</summary>
public static class Interruptibility
{
    public const uint Sti = 1, MovSs = 2, Smi = 4, Nmi = 8, Enclave = 16, Reserved = ~31u;
}

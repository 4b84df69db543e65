namespace Kvm.Emulator.Engine;

/// <summary>Cases of the engine's switch.</summary>
internal enum OpKind : ushort
{
    /// <summary>Calls <see cref="Op.Handler"/>.</summary>
    Cold,
    /// <summary>Behind the last instruction of a block that ends without a branch.</summary>
    EndOfBlock,
}

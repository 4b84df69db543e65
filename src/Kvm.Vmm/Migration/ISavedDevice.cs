namespace Kvm.Vmm.Migration;

/// <summary>A device whose registers go with a saved machine.</summary>
internal interface ISavedDevice
{
    /// <summary>Hands over every register, in an order of its own, in either direction.</summary>
    void Transfer(StateFields fields);
}

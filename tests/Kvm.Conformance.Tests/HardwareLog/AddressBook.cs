namespace Kvm.Conformance.Tests.HardwareLog;

/// <summary>
/// Which address of the model stands for which address of the recording. Addresses differ from boot to boot; that the same page is named again, and that another one
/// is not, does not.
/// </summary>
internal sealed class AddressBook
{
    private const ulong pageMask = 0xfff;

    /// <summary>The processor's CR3 points at a page of KVM while the guest runs.</summary>
    public bool ShadowPaging { get; init; }

    private readonly Dictionary<ulong, ulong> toModel = [], toRecorded = [];

    /// <summary>True when the addresses can stand for each other: both zero or both not, the same bits below the page, and no other partner of either before.</summary>
    public bool Same(ulong recorded, ulong model)
    {
        if (recorded == 0 || model == 0 || ((recorded ^ model) & pageMask) != 0)
            return recorded == model;
        return Pair(recorded & ~pageMask, model & ~pageMask);
    }

    /// <summary>As <see cref="Same"/>, of objects that do not begin at a page.</summary>
    public bool SameObject(ulong recorded, ulong model) => recorded == 0 || model == 0 ? recorded == model : Pair(recorded, model);

    /// <summary>The pages that the model names have new meanings from now on: those of a VM went back to the allocator.</summary>
    public void Forget()
    {
        toModel.Clear();
        toRecorded.Clear();
    }

    private bool Pair(ulong recorded, ulong model)
    {
        if (toModel.TryGetValue(recorded, out ulong partner))
            return partner == model;
        if (toRecorded.ContainsKey(model))
            return false;
        toModel.Add(recorded, model);
        toRecorded.Add(model, recorded);
        return true;
    }
}

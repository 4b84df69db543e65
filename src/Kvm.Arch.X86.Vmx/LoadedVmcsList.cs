namespace Kvm.Arch.X86.Vmx;

/// <summary>The VMCSs loaded on one processor (<c>loaded_vmcss_on_cpu</c>), newest first. Only that processor touches it.</summary>
internal sealed class LoadedVmcsList
{
    private LoadedVmcs? first;

    public int Count { get; private set; }
    public LoadedVmcs? First => first;

    public void Add(LoadedVmcs vmcs)
    {
        vmcs.Previous = null;
        vmcs.Next = first;
        if (first != null)
            first.Previous = vmcs;
        first = vmcs;
        Count++;
    }

    public void Remove(LoadedVmcs vmcs)
    {
        if (vmcs.Previous != null)
            vmcs.Previous.Next = vmcs.Next;
        else
            first = vmcs.Next;
        if (vmcs.Next != null)
            vmcs.Next.Previous = vmcs.Previous;
        vmcs.Next = vmcs.Previous = null;
        Count--;
    }
}

using Kvm.Client;

namespace Kvm.Vmm;

/// <summary>Looks at an exit; must not keep it.</summary>
public delegate void ExitObserver(VcpuExit exit);

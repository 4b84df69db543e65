namespace Kvm.Core;

/// <summary>The kernel generation whose visible details are modelled where generations differ.</summary>
public enum KernelProfile
{
    /// <summary>Linux 6.1 LTS, the baseline.</summary>
    Linux61,

    /// <summary>The generation of the oldest origin document (3.10 with backports): <c>kvm-vcpu</c> inode name, 255 vCPUs.</summary>
    Legacy,
}

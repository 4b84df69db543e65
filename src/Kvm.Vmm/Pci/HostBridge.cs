using Kvm.Vmm.Migration;

namespace Kvm.Vmm.Pci;

/// <summary>The Intel 440FX host bridge, function 00:00.0, with the subsystem by which PC firmware knows virtual machines.</summary>
/// <remarks>
/// Intel 82441FX data sheet, "PCI Configuration Space Mapped Registers". The attribute registers that decide where reads and writes of 0xc0000 to 0xfffff go
/// (PAM0 to PAM6) hold what is written; RAM answers there whatever they say, and holds the firmware's last 128 KiB from the start.
/// </remarks>
public sealed class HostBridge : PciFunction
{
    private const int Pam0 = 0x59, SmRam = 0x72;
    private const ushort RedHat = 0x1af4, VirtualMachine = 0x1100;

    /// <summary>As after reset.</summary>
    public HostBridge()
        : base(vendor: 0x8086, device: 0x1237, classCode: 0x060000, revision: 2)
    {
        SetSubsystem(RedHat, VirtualMachine);
        SetWritable(Pam0, 0x30, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33); // read enable, write enable: bits 0, 1 and 4, 5
        SetWritable(SmRam, 0x7f);
        Config[SmRam] = 0x02; // the SMM segment is 0xa0000
    }

    internal override void Transfer(StateFields fields) => TransferConfig(fields);
}

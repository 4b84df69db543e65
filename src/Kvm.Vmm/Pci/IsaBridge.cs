namespace Kvm.Vmm.Pci;

/// <summary>The PIIX3's ISA bridge, function 00:01.0: routes of the four PCI interrupt lines, which hold what is written.</summary>
/// <remarks>Intel 82371SB data sheet, "PCI Configuration Registers - Function 0".</remarks>
public sealed class IsaBridge : PciFunction
{
    private const int XBus = 0x4e, PirqA = 0x60;
    private const byte NotRouted = 0x80;

    /// <summary>As after reset: no line is routed.</summary>
    public IsaBridge()
        : base(vendor: 0x8086, device: 0x7000, classCode: 0x060100)
    {
        Config[PirqA] = Config[PirqA + 1] = Config[PirqA + 2] = Config[PirqA + 3] = NotRouted;
        SetWritable(PirqA, 0x8f, 0x8f, 0x8f, 0x8f);
        Config[XBus] = 0x03;
        SetWritable(XBus, 0xff, 0x01);
    }
}

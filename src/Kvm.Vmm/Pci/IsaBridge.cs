using Kvm.Vmm.Migration;

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

    /// <summary>The ISA interrupt that one of the four lines, 0 to 3, is routed to; null: none.</summary>
    public uint? Route(int line) => (Config[PirqA + line] & NotRouted) == 0 ? Config[PirqA + line] & 0x0fu : null;

    /// <summary>Routes the four lines as PC firmware does.</summary>
    public void RouteAll() => Write(PirqA, StandardRoutes);

    /// <summary>The ISA interrupts of the four lines, as PC firmware has it.</summary>
    public static ReadOnlySpan<byte> StandardRoutes => [10, 10, 11, 11];

    internal override void Transfer(StateFields fields) => TransferConfig(fields);
}

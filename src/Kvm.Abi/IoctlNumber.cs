namespace Kvm.Abi;

/// <summary>An ioctl request taken apart: direction, type, number, argument size.</summary>
/// <remarks>asm-generic/ioctl.h. The direction is userspace's: <c>_IOW</c> means that userspace writes and the kernel reads.</remarks>
public readonly record struct IoctlNumber(uint Request)
{
    /// <summary><c>_IOC_NONE</c>, <c>_IOC_WRITE</c>, <c>_IOC_READ</c> or both.</summary>
    public uint Direction => Uapi._IOC_DIR(Request);

    /// <summary>The magic byte; <c>KVMIO</c> for every KVM ioctl.</summary>
    public uint Type => Uapi._IOC_TYPE(Request);

    public uint Nr => Uapi._IOC_NR(Request);

    /// <summary>Bytes of the argument structure, without any flexible array behind it.</summary>
    public uint Size => Uapi._IOC_SIZE(Request);

    /// <summary>The C form, the size standing in for the type: <c>_IOR(0xae, 0x81, 144)</c>.</summary>
    public override string ToString()
    {
        string macro = Direction switch
        {
            Uapi._IOC_NONE => "_IO",
            Uapi._IOC_READ => "_IOR",
            Uapi._IOC_WRITE => "_IOW",
            _ => "_IOWR",
        };
        return Direction == Uapi._IOC_NONE && Size == 0 ? $"_IO(0x{Type:x2}, 0x{Nr:x2})" : $"{macro}(0x{Type:x2}, 0x{Nr:x2}, {Size})";
    }
}

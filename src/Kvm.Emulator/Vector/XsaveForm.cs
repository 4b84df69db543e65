namespace Kvm.Emulator.Vector;

/// <summary>The saving instructions of the XSAVE feature set.</summary>
internal enum XsaveForm
{
    /// <summary>Standard format, every requested component.</summary>
    Xsave,
    /// <summary>Standard format, components in their initial configuration are not written.</summary>
    Xsaveopt,
    /// <summary>Compacted format, init optimization.</summary>
    Xsavec,
    /// <summary>As XSAVEC, with supervisor components.</summary>
    Xsaves,
}

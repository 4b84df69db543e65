using System.IO.Pipelines;
using System.Text;
using Kvm.Vmm;
using Kvm.Vmm.Boot;
using Microsoft.Win32.SafeHandles;

namespace Kvm.Tool;

/// <summary>Firmware, and the files that go with it, read and checked before anything is built.</summary>
internal sealed class FirmwareGuest : IDisposable
{
    /// <summary>As many as QEMU tells by default: OVMF makes page tables for all of them.</summary>
    public const int PhysicalBits = 40;

    // Items of fw_cfg from which firmware takes a kernel.
    private const ushort KernelSize = 0x08, KernelData = 0x11, InitrdSize = 0x0b, InitrdData = 0x12, CommandLineSize = 0x14, CommandLineData = 0x15, SetupSize = 0x17, SetupData = 0x18;

    private readonly FileInfo _file;
    private readonly FirmwareImage _image;
    private readonly List<(string Name, byte[] Data)> _files = [];
    private FileInfo? _variablesFile;
    private byte[] _variables = [];
    private SafeFileHandle? _store;
    private FileStream? _debug;

    private FirmwareGuest(FileInfo file, FirmwareImage image)
    {
        _file = file;
        _image = image;
    }

    /// <summary>Where the debug console goes; null: nowhere, there is none.</summary>
    public PipeWriter? DebugOutput { get; private set; }

    /// <exception cref="ToolException">A file can't be read or written, or the first is no firmware.</exception>
    public static FirmwareGuest Open(FileInfo image, FileInfo? variables, FileInfo? debug, string[] files)
    {
        byte[] code = Inputs.ReadFile(image, "firmware", "samples/firmware/fetch.sh fetches some");
        var guest = new FirmwareGuest(image, RunCommand.Bootable(image, () => FirmwareImage.Parse(code)));
        try
        {
            foreach (string file in files)
            {
                int equals = file.IndexOf('=', StringComparison.Ordinal);
                guest._files.Add((file[..equals], Inputs.ReadFile(new FileInfo(file[(equals + 1)..]), "file for --fw-cfg", "give an existing one")));
            }

            if (variables is not null) guest.OpenVariables(variables);
            if (debug is not null) guest.OpenDebug(debug);
            return guest;
        }
        catch
        {
            guest.Dispose();
            throw;
        }
    }

    /// <summary>Puts it all into a PC; a kernel is offered as a Linux image, which is the firmware's to take.</summary>
    public Action<Pc> Loader(FileInfo? kernel, byte[] image, string commandLine, byte[] initrd)
    {
        BzImage? linux = kernel is null ? null : RunCommand.Bootable(kernel, () => BzImage.Parse(image));
        return pc => RunCommand.Bootable(_file, () =>
        {
            foreach ((string name, byte[] data) in _files) pc.FwCfg.AddFile(name, data);
            pc.LoadFirmware(_image, _variables, _store is null ? null : (offset, data) => Store(pc, offset, data));
            if (linux is null) return true;
            Offer(pc, SetupSize, SetupData, linux.Setup);
            Offer(pc, KernelSize, KernelData, linux.Kernel);
            Offer(pc, CommandLineSize, CommandLineData, Encoding.UTF8.GetBytes(commandLine + "\0"));
            if (initrd.Length > 0) Offer(pc, InitrdSize, InitrdData, initrd);
            return true;
        });
    }

    public void Dispose()
    {
        _store?.Dispose();
        _debug?.Dispose();
    }

    private static void Offer(Pc pc, ushort sizeKey, ushort dataKey, ReadOnlyMemory<byte> data)
    {
        pc.FwCfg.Add(sizeKey, BitConverter.GetBytes(data.Length));
        pc.FwCfg.Add(dataKey, data);
    }

    private void OpenVariables(FileInfo file)
    {
        _variables = Inputs.ReadFile(file, "variables", "copy OVMF_VARS.fd of the ovmf package there");
        _variablesFile = file;
        _store = Opened(file, "variables", () => File.OpenHandle(file.FullName, FileMode.Open, FileAccess.ReadWrite));
    }

    private void OpenDebug(FileInfo file)
    {
        _debug = Opened(file, "debug output", () => new FileStream(file.FullName, FileMode.Create, FileAccess.Write, FileShare.Read, bufferSize: 0));
        DebugOutput = PipeWriter.Create(_debug);
    }

    private static T Opened<T>(FileInfo file, string what, Func<T> open)
    {
        try
        {
            return open();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new ToolException(ExitCode.BadFile, $"cannot write the {what} {file}: {e.Message}");
        }
    }

    /// <summary>At once, so that what the guest believes stored is with the operating system.</summary>
    private void Store(Pc pc, long offset, ReadOnlySpan<byte> data)
    {
        try
        {
            RandomAccess.Write(_store!, data, offset);
        }
        catch (IOException e)
        {
            pc.Stop.Request(GuestStopReason.HostFailed, 0, $"cannot write the variables {_variablesFile}: {e.Message}");
        }
    }
}

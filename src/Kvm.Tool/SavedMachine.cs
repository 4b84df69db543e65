using Kvm.Client;
using Kvm.Vmm;
using Kvm.Vmm.Migration;

namespace Kvm.Tool;

/// <summary>The file of <c>--save</c> and <c>--restore</c>.</summary>
internal sealed class SavedMachine : IDisposable
{
    private readonly FileInfo _file;
    private readonly Stream _stream;
    private readonly StateReader _reader;
    private readonly PcOptions _made;

    private SavedMachine(FileInfo file, Stream stream)
    {
        _file = file;
        _stream = stream;
        try
        {
            _reader = new StateReader(stream, file.ToString());
            _made = Pc.ReadOptions(_reader, new PcOptions());
        }
        catch
        {
            stream.Dispose();
            throw;
        }
    }

    /// <summary>How many processors the machine has.</summary>
    public int Processors => _made.Processors;

    /// <exception cref="ToolException">It can't be read, or is no saved machine.</exception>
    public static SavedMachine Open(FileInfo file) => Try(file, "restore", () =>
        new SavedMachine(file, new FileStream(file.FullName, FileMode.Open, FileAccess.Read, FileShare.Read, 1 << 16)));

    /// <summary>The options with what the saved machine is made of.</summary>
    public PcOptions Make(PcOptions options) =>
        options with { Memory = _made.Memory, Processors = _made.Processors, Hyperv = _made.Hyperv, Irqchip = _made.Irqchip };

    /// <exception cref="ToolException">The file is damaged, or does not fit this host.</exception>
    public void Restore(KvmSystem kvm, Pc pc) => Try(_file, "restore", () =>
    {
        pc.Restore(kvm, _reader);
        return true;
    });

    /// <summary>Saves the machine, whole or not at all: what was there before stays until the new file is complete.</summary>
    /// <exception cref="ToolException">The file can't be written, or the machine can't be saved.</exception>
    public static void Save(FileInfo file, KvmSystem kvm, Pc pc) => Try(file, "save the machine in", () =>
    {
        string unfinished = file.FullName + ".tmp";
        try
        {
            using (var stream = new FileStream(unfinished, FileMode.Create, FileAccess.Write, FileShare.None, 1 << 16))
            {
                pc.Save(kvm, stream);
                stream.Flush(flushToDisk: true);
            }

            File.Move(unfinished, file.FullName, overwrite: true);
        }
        catch
        {
            File.Delete(unfinished);
            throw;
        }

        return true;
    });

    public void Dispose()
    {
        _reader.Dispose();
        _stream.Dispose();
    }

    private static T Try<T>(FileInfo file, string what, Func<T> step)
    {
        try
        {
            return step();
        }
        catch (StateFileException e)
        {
            throw new ToolException(ExitCode.BadFile, $"cannot {what} {file}: {e.Message}");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            string reason = e switch
            {
                FileNotFoundException => "no such file",
                DirectoryNotFoundException => "no such directory",
                UnauthorizedAccessException => "permission denied",
                _ => e.Message,
            };
            throw new ToolException(ExitCode.BadFile, $"cannot {what} {file}: {reason}");
        }
    }
}

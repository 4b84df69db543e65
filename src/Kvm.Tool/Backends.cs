using Kvm.Client;

namespace Kvm.Tool;

/// <summary>The back end that --backend and --cpu name.</summary>
internal static class Backends
{
    /// <exception cref="ToolException">There is no such processor.</exception>
    public static IKvmBackend Create(string backend, string cpu, int processors = 1, IEnumerable<string>? parameters = null, string? engine = null) =>
        Checked(() => KvmBackend.ByName(backend, cpu, processors, parameters, engine), cpu);

    /// <summary>The back end that <paramref name="make"/> makes for --cpu.</summary>
    /// <exception cref="ToolException">There is no such processor.</exception>
    public static IKvmBackend Checked(Func<IKvmBackend> make, string cpu)
    {
        try
        {
            return make();
        }
        catch (ArgumentException e)
        {
            throw new ToolException(ExitCode.Usage, $"--cpu {cpu}: {e.Message}");
        }
    }

    /// <summary>Opens /dev/kvm there, with errors as one line.</summary>
    public static KvmSystem Open(IKvmBackend backend)
    {
        try
        {
            return KvmSystem.Open(backend);
        }
        catch (KvmException e)
        {
            throw new ToolException(ExitCode.NoKvm, e.Message + (backend == KvmBackend.Native ? "; --backend model needs no /dev/kvm" : ""));
        }
    }
}

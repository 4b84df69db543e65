using Kvm.Client;

namespace Kvm.Tool;

/// <summary>The back end that --backend and --cpu name.</summary>
internal static class Backends
{
    public static IKvmBackend Create(string backend, string cpu)
    {
        try
        {
            return KvmBackend.ByName(backend, cpu);
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

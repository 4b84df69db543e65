using Kvm.Client.Backends;
using Kvm.Emulator;

namespace Kvm.Client;

/// <summary>Which kernel answers: the model inside this process, or the host's own /dev/kvm.</summary>
public static class KvmBackend
{
    /// <summary>The Linux kernel that this process runs on, through /dev/kvm.</summary>
    public static IKvmBackend Native { get; } = new NativeBackend();

    /// <summary>A computer of its own with the KVM model as its kernel. It is built when it is first opened, and torn down when the last descriptor is closed.</summary>
    public static IKvmBackend Model(Action<ModelOptions>? configure = null)
    {
        var options = new ModelOptions();
        configure?.Invoke(options);
        return new ModelBackend(options);
    }

    /// <summary>The back end that a user names on a command line.</summary>
    /// <param name="name"><c>model</c> or <c>native</c>.</param>
    /// <param name="cpu">For the model: <c>intel</c>, <c>amd</c>, or the name of a processor model.</param>
    /// <param name="processors">For the model: how many processors the host has.</param>
    /// <param name="parameters">Parameters of the model's modules, "name=value" each; see <see cref="ModelOptions.ModuleParameters"/>.</param>
    /// <param name="engine">For the model: who executes the guest's instructions, as <see cref="EngineOptions.Parse"/> reads it; null: as KVM_ENGINE says.</param>
    /// <exception cref="ArgumentException">No such back end, no such processor.</exception>
    public static IKvmBackend ByName(string name, string cpu = "intel", int processors = 1, IEnumerable<string>? parameters = null, string? engine = null) => name switch
    {
        "native" => Native,
        "model" => Model(options =>
        {
            (options.Cpu, options.Processors) = (Processor(cpu), processors);
            if (engine is not null)
                options.Engine = EngineOptions.Parse(engine);
            foreach (string[] parameter in (parameters ?? []).Select(static p => p.Split('=', 2)))
                options.ModuleParameters[parameter[0]] = parameter.Length > 1 ? parameter[1] : "1";
        }),
        _ => throw new ArgumentException($"no back end '{name}': there are model and native"),
    };

    private static CpuModel Processor(string cpu) => cpu switch
    {
        "intel" => CpuModel.IntelSkylake,
        "amd" => CpuModel.AmdZen,
        _ when CpuModel.Names.Contains(cpu) => CpuModel.Load(cpu),
        _ => throw new ArgumentException($"no processor model '{cpu}': there are intel, amd, {string.Join(", ", CpuModel.Names)}"),
    };
}

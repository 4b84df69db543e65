using Kvm.Abi;

namespace Kvm.Client.Tests;

/// <summary>The kernels that every test of this project runs against.</summary>
public static class Kernels
{
    public static IReadOnlyList<string> Names { get; } = ["intel", "amd", "native"];

    /// <summary>Hosts that preempt a vCPU at every exit and take it to another processor.</summary>
    public static IReadOnlyList<string> Moved { get; } = ["intel moved", "amd moved"];

    /// <summary>Linux 6.1, for what other versions answer differently.</summary>
    public static TheoryData<string> Models => ["intel", "amd"];

    public static TheoryData<string> All => [.. Names];

    /// <summary>Opens the device of that kernel; skips the test where the host has no usable /dev/kvm.</summary>
    public static KvmSystem Open(string kernel)
    {
        try
        {
            return KvmSystem.Open(Backend(kernel));
        }
        catch (KvmException e) when (kernel == "native" && e.Errno is Errno.ENOENT or Errno.ENODEV or Errno.EACCES or Errno.EPERM or Errno.ENXIO)
        {
            Skip.If(true, $"no usable /dev/kvm on this host: {e.Message}");
            throw;
        }
    }

    public static IKvmBackend Backend(string kernel) => kernel switch
    {
        "native" => KvmBackend.Native,
        "intel" or "amd" => KvmBackend.ByName("model", kernel),
        "intel moved" or "amd moved" => KvmBackend.Model(options =>
        {
            options.Vendor = kernel == "intel moved" ? Kvm.Emulator.CpuVendor.Intel : Kvm.Emulator.CpuVendor.Amd;
            options.Processors = 3;
            options.PreemptionSeed = 21;
        }),
        _ => throw new ArgumentOutOfRangeException(nameof(kernel), kernel, null),
    };
}

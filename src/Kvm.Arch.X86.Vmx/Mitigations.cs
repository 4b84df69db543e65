using Kvm.Abi;
using Kvm.Core;
using Kvm.Core.Tracing;

namespace Kvm.Arch.X86.Vmx;

/// <summary>Processor-bug mitigations around VM entry, and SGX as far as a host without it goes.</summary>
public sealed unsafe partial class KvmIntel
{
    private enum L1dFlushState { Auto, Never, Cond, Always, EptDisabled, NotRequired }

    private static readonly string[] l1dFlushTexts = ["auto", "never", "cond", "always", "EPT disabled", "not required"];
    private const int l1dCacheOrder = 4;
    private L1dFlushState vmentryL1dFlushParam = L1dFlushState.Auto;
    private L1dFlushState l1tfVmxMitigation = L1dFlushState.Auto;
    private ulong l1dFlushPages;

    private bool L1dShouldFlush => l1tfVmxMitigation is L1dFlushState.Cond or L1dFlushState.Always;

    /// <summary>What /sys/module/kvm_intel/parameters/vmentry_l1d_flush shows.</summary>
    private string VmentryL1dFlushText => l1dFlushTexts[(int)l1tfVmxMitigation];

    private static int ParseL1dFlush(string text) => Array.IndexOf(l1dFlushTexts, text, 0, 4);

    private KvmResult CheckVmentryL1dFlush(object value) => ParseL1dFlush((string)value) < 0 ? Errno.EINVAL : 0;

    private void SetVmentryL1dFlush(string text)
    {
        var state = (L1dFlushState)ParseL1dFlush(text);
        // Before vmx_init the value is kept for it.
        if (l1tfVmxMitigation == L1dFlushState.Auto)
            vmentryL1dFlushParam = state;
        else if (arch.HostX86.BootCpuHasBug(X86Bug.L1TF))
            SetupL1dFlush(state);
    }

    /// <summary>Decides whether the L1 data cache is flushed at VM entry. -ENOMEM when the buffer that displaces it can't be had.</summary>
    [KernelFunction("vmx_setup_l1d_flush", File = "arch/x86/kvm/vmx/vmx.c")]
    private KvmResult SetupL1dFlush(L1dFlushState l1tf)
    {
        using var _ = FunctionTrace.Enter("vmx_setup_l1d_flush");
        if (!arch.HostX86.BootCpuHasBug(X86Bug.L1TF))
        {
            l1tfVmxMitigation = L1dFlushState.NotRequired;
            return 0;
        }
        if (!EnableEpt)
        {
            l1tfVmxMitigation = L1dFlushState.EptDisabled;
            return 0;
        }
        if (BootCpuHas(X86Feature.ARCH_CAPABILITIES) && (Rdmsrl(MSR_IA32_ARCH_CAPABILITIES) & 1 << 3) != 0)
        {
            l1tfVmxMitigation = L1dFlushState.NotRequired;
            return 0;
        }
        if (l1tf == L1dFlushState.Auto)
            l1tf = L1dFlushState.Cond; // the kernel's default mitigation is "flush"
        if (l1tf != L1dFlushState.Never && l1dFlushPages == 0 && !BootCpuHas(X86Feature.FLUSH_L1D))
        {
            l1dFlushPages = Host.Pages.AllocPages("vmx_setup_l1d_flush", l1dCacheOrder, zero: false);
            if (l1dFlushPages == 0)
                return Errno.ENOMEM;
            for (int i = 0; i < 1 << l1dCacheOrder; i++)
                new Span<byte>((byte*)l1dFlushPages + i * 4096, 4096).Fill((byte)(i + 1));
        }
        l1tfVmxMitigation = l1tf;
        return 0;
    }

    [KernelFunction("vmx_cleanup_l1d_flush", File = "arch/x86/kvm/vmx/vmx.c")]
    private void CleanupL1dFlush()
    {
        if (l1dFlushPages != 0)
            FreePage(l1dFlushPages);
        l1dFlushPages = 0;
        l1tfVmxMitigation = L1dFlushState.Auto;
    }

    /// <summary>By MSR where the processor has it. The emulated processor has no data cache, so reading the buffer to displace one is left out.</summary>
    [KernelFunction("vmx_l1d_flush", File = "arch/x86/kvm/vmx/vmx.c")]
    private void L1dFlush(VcpuVmx vmx)
    {
        if (l1tfVmxMitigation == L1dFlushState.Cond)
        {
            bool flush = vmx.L1tfFlushL1d;
            vmx.L1tfFlushL1d = false;
            if (!flush)
                return;
        }
        vmx.Stat.L1dFlush++;
        if (BootCpuHas(X86Feature.FLUSH_L1D))
            vmx.Hw.WriteMsr(MSR_IA32_FLUSH_CMD, 1);
    }

    private void WarnAboutL1tf()
    {
        if (arch.HostX86.BootCpuHasBug(X86Bug.L1TF) && EnableEpt && l1tfVmxMitigation == L1dFlushState.Never)
            PrWarnOnce("L1TF CPU bug present and virtualization mitigation disabled, data leak possible. See CVE-2018-3646 and https://www.kernel.org/doc/html/latest/admin-guide/hw-vuln/l1tf.html for details.");
    }

    /// <summary>No processor model offers FB_CLEAR_CTRL, so VERW keeps its effect and nothing is switched.</summary>
    [KernelFunction("vmx_update_fb_clear_dis", File = "arch/x86/kvm/vmx/vmx.c")]
    private static void UpdateFbClearDis(VcpuVmx vmx)
    {
        using var _ = FunctionTrace.Enter("vmx_update_fb_clear_dis");
        vmx.DisableFbClear = false;
    }

    /// <summary>Without SGX in the processor there is no ENCLS to intercept.</summary>
    [KernelFunction("vmx_write_encls_bitmap", File = "arch/x86/kvm/vmx/sgx.c")]
    private void WriteEnclsBitmap(VcpuVmx vmx)
    {
        using var _ = FunctionTrace.Enter("vmx_write_encls_bitmap");
        if (CpuHasVmxEnclsVmexit)
            vmx.Write64(Emulator.Vmx.VmcsField.ENCLS_EXITING_BITMAP, ulong.MaxValue);
    }

    /// <summary>Launch-enclave key hashes of the guest; all zero on a host without flexible launch control.</summary>
    [KernelFunction("vcpu_setup_sgx_lepubkeyhash", File = "arch/x86/kvm/vmx/sgx.c")]
    private static void SetupSgxLepubkeyhash(VcpuVmx vmx)
    {
        using var _ = FunctionTrace.Enter("vcpu_setup_sgx_lepubkeyhash");
        for (int i = 0; i < 4; i++)
            vmx.MsrIa32Sgxlepubkeyhash[i] = sgxPubkeyHash[i];
    }

    // The hash of Intel's key, which processors have at reset.
    private static readonly ulong[] sgxPubkeyHash = [0xa6053e051270b7ac, 0x6cfbe8ba8b3b413d, 0xc4916d99f2b3735d, 0xd4f8c05909f9bb3b];

    [KernelFunction("setup_default_sgx_lepubkeyhash", File = "arch/x86/kvm/vmx/sgx.c")]
    private static void SetupDefaultSgxLepubkeyhash()
    {
        using var _ = FunctionTrace.Enter("setup_default_sgx_lepubkeyhash");
    }
}

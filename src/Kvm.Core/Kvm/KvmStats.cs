using System.Text;
using Kvm.Abi;

namespace Kvm.Core;

/// <summary>The statistics of VMs and vCPUs: descriptors and the binary interface (virt/kvm/binary_stats.c).</summary>
public static unsafe class KvmStats
{
    private const int NameSize = 48; // KVM_STATS_NAME_SIZE
    private const uint Cumulative = 0, Instant = 1, Peak = 2, LogHist = 4;
    private const uint UnitNone = 0 << 4, UnitSeconds = 2 << 4, UnitBoolean = 4 << 4;
    private const uint Pow10 = 0;

    /// <summary>One statistic.</summary>
    /// <param name="Name">Its name.</param>
    /// <param name="Flags">KVM_STATS_TYPE_*, UNIT_*, BASE_*.</param>
    /// <param name="Exponent">Power of the base.</param>
    /// <param name="Size">Number of 64-bit values.</param>
    /// <param name="Offset">Bytes from the start of the data.</param>
    public sealed record Descriptor(string Name, uint Flags, short Exponent, ushort Size, uint Offset)
    {
        /// <summary>Mode in debugfs: 0444 for instantaneous values, 0644 for those that a write of 0 clears.</summary>
        public int Mode => (Flags & 0xf) == Instant ? ModuleParameters.ReadOnly : ModuleParameters.Writable;
    }

    /// <summary>kvm_vm_stats_desc.</summary>
    public static IReadOnlyList<Descriptor> Vm { get; } = Lay(
        C("remote_tlb_flush"), C("remote_tlb_flush_requests"), C("mmu_shadow_zapped"), C("mmu_pte_write"), C("mmu_pde_zapped"), C("mmu_flooded"),
        C("mmu_recycled"), C("mmu_cache_miss"), I("mmu_unsync"), I("pages_4k"), I("pages_2m"), I("pages_1g"), I("nx_lpage_splits"),
        P("max_mmu_rmap_size"), P("max_mmu_page_hash_collisions"));

    /// <summary>kvm_vcpu_stats_desc.</summary>
    public static IReadOnlyList<Descriptor> Vcpu { get; } = Lay(
        C("halt_successful_poll"), C("halt_attempted_poll"), C("halt_poll_invalid"), C("halt_wakeup"), T("halt_poll_success_ns"), T("halt_poll_fail_ns"),
        T("halt_wait_ns"), H("halt_poll_success_hist"), H("halt_poll_fail_hist"), H("halt_wait_hist"), B("blocking"), C("pf_taken"), C("pf_fixed"),
        C("pf_emulate"), C("pf_spurious"), C("pf_fast"), C("pf_mmio_spte_created"), C("pf_guest"), C("tlb_flush"), C("invlpg"), C("exits"), C("io_exits"),
        C("mmio_exits"), C("signal_exits"), C("irq_window_exits"), C("nmi_window_exits"), C("l1d_flush"), C("halt_exits"), C("request_irq_exits"),
        C("irq_exits"), C("host_state_reload"), C("fpu_reload"), C("insn_emulation"), C("insn_emulation_fail"), C("hypercalls"), C("irq_injections"),
        C("nmi_injections"), C("req_event"), C("nested_run"), C("directed_yield_attempted"), C("directed_yield_successful"), C("preemption_reported"),
        C("preemption_other"), B("guest_mode"), C("notify_window_exits"));

    /// <summary>kvm_stats_read: header, id string, descriptors, data; the bytes copied, or -EFAULT.</summary>
    [Tracing.KernelFunction("kvm_stats_read", File = "virt/kvm/binary_stats.c")]
    internal static KvmResult Read(string id, IReadOnlyList<Descriptor> descriptors, void* stats, int statsSize, ulong buffer, ulong count, ref long position)
    {
        int descSize = sizeof(kvm_stats_desc) + NameSize;
        int dataOffset = sizeof(kvm_stats_header) + NameSize + descriptors.Count * descSize;
        byte[] image = new byte[dataOffset + statsSize];
        fixed (byte* p = image)
        {
            *(kvm_stats_header*)p = new kvm_stats_header
            {
                name_size = NameSize,
                num_desc = (uint)descriptors.Count,
                id_offset = (uint)sizeof(kvm_stats_header),
                desc_offset = (uint)(sizeof(kvm_stats_header) + NameSize),
                data_offset = (uint)dataOffset,
            };
            CopyName(id, p + sizeof(kvm_stats_header));
            byte* at = p + sizeof(kvm_stats_header) + NameSize;
            foreach (Descriptor d in descriptors)
            {
                *(kvm_stats_desc*)at = new kvm_stats_desc { flags = d.Flags, exponent = d.Exponent, size = d.Size, offset = d.Offset };
                CopyName(d.Name, at + sizeof(kvm_stats_desc));
                at += descSize;
            }

            Buffer.MemoryCopy(stats, at, statsSize, statsSize);
            if (position < 0 || position >= image.Length) return 0;
            ulong n = Math.Min(count, (ulong)(image.Length - position));
            if (!UserMemory.CopyToUser(buffer, p + position, n)) return Errno.EFAULT;
            position += (long)n;
            return (long)n;
        }
    }

    internal static ulong Value(void* stats, Descriptor d) => *(ulong*)((byte*)stats + d.Offset);

    internal static void Clear(void* stats, Descriptor d) => *(ulong*)((byte*)stats + d.Offset) = 0;

    private static void CopyName(string name, byte* to)
    {
        int n = Encoding.ASCII.GetBytes(name.AsSpan(0, Math.Min(name.Length, NameSize - 1)), new Span<byte>(to, NameSize - 1));
        to[n] = 0;
    }

    private static Descriptor C(string name) => new(name, Cumulative | UnitNone | Pow10, 0, 1, 0);
    private static Descriptor I(string name) => new(name, Instant | UnitNone | Pow10, 0, 1, 0);
    private static Descriptor P(string name) => new(name, Peak | UnitNone | Pow10, 0, 1, 0);
    private static Descriptor B(string name) => new(name, Instant | UnitBoolean | Pow10, 0, 1, 0);
    private static Descriptor T(string name) => new(name, Cumulative | UnitSeconds | Pow10, -9, 1, 0);
    private static Descriptor H(string name) => new(name, LogHist | UnitSeconds | Pow10, -9, KvmVcpuStat.HistogramBuckets, 0);

    private static Descriptor[] Lay(params Descriptor[] list)
    {
        uint offset = 0;
        for (int i = 0; i < list.Length; i++)
        {
            list[i] = list[i] with { Offset = offset };
            offset += list[i].Size * 8u;
        }

        return list;
    }
}

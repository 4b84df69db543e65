using System.Runtime.InteropServices;
using System.Text;
using Kvm.Abi;
using static Kvm.Abi.Uapi;

namespace Kvm.Client;

/// <summary>KVM_GET_STATS_FD: the kernel's counters of a VM or vCPU. Once opened, any thread can read them while the guest runs.</summary>
/// <remarks>Documentation/virt/kvm/api.rst, KVM_GET_STATS_FD: a header, an identity, descriptors, values. The descriptors never change; only the values are read again.</remarks>
public sealed unsafe class KvmStatistics : IDisposable
{
    private const uint MostCounters = 4096, LongestName = 4096;

    private readonly KvmFd _file;
    private readonly ulong _data;
    private readonly (string Name, uint Offset)[] _counters;
    private readonly byte[] _values;

    internal KvmStatistics(KvmFd owner)
    {
        _file = new KvmFd(owner.Backend, (int)owner.Ioctl(KVM_GET_STATS_FD, 0));
        try
        {
            var header = new byte[sizeof(kvm_stats_header)];
            Read(header, 0);
            kvm_stats_header h = MemoryMarshal.Read<kvm_stats_header>(header);
            if (h.num_desc > MostCounters || h.name_size > LongestName) throw new KvmException("KVM statistics: a header that makes no sense", Errno.EINVAL);
            int stride = sizeof(kvm_stats_desc) + (int)h.name_size;
            var rows = new byte[stride * (int)h.num_desc];
            Read(rows, h.desc_offset);
            _data = h.data_offset;
            _counters = [.. Enumerable.Range(0, (int)h.num_desc).Select(i => Counter(rows.AsSpan(i * stride, stride))).Where(c => c.Name.Length > 0)];
            _values = new byte[_counters.Length == 0 ? 0 : _counters.Max(c => c.Offset) + sizeof(ulong)];
        }
        catch
        {
            _file.Dispose();
            throw;
        }
    }

    /// <summary>The values of now by name, such as <c>exits</c>. Histograms are left out.</summary>
    /// <exception cref="KvmException">The file can't be read.</exception>
    public IReadOnlyDictionary<string, ulong> Read()
    {
        lock (_values)
        {
            Read(_values, _data);
            return _counters.ToDictionary(c => c.Name, c => MemoryMarshal.Read<ulong>(_values.AsSpan((int)c.Offset)), StringComparer.Ordinal);
        }
    }

    /// <summary>Closes the file.</summary>
    public void Dispose() => _file.Dispose();

    /// <summary>A descriptor's name and place; no name: it is a histogram.</summary>
    private static (string Name, uint Offset) Counter(ReadOnlySpan<byte> row)
    {
        kvm_stats_desc desc = MemoryMarshal.Read<kvm_stats_desc>(row);
        ReadOnlySpan<byte> name = row[sizeof(kvm_stats_desc)..];
        return (desc.size == 1 ? Encoding.ASCII.GetString(name[..name.IndexOf((byte)0)]) : "", desc.offset);
    }

    private void Read(byte[] to, ulong offset)
    {
        int done = 0;
        while (done < to.Length)
        {
            fixed (byte* at = to)
            {
                long read = _file.Backend.Pread(_file.Number, (ulong)(at + done), (ulong)(to.Length - done), (long)offset + done);
                if (read <= 0) throw new KvmException("pread of KVM statistics", read < 0 ? (Errno)(-read) : Errno.EINVAL);
                done += (int)read;
            }
        }
    }
}

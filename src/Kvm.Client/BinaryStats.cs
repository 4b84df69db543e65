using System.Runtime.InteropServices;
using System.Text;
using Kvm.Abi;
using static Kvm.Abi.Uapi;

namespace Kvm.Client;

/// <summary>KVM_GET_STATS_FD and the file behind it.</summary>
/// <remarks>Documentation/virt/kvm/api.rst, KVM_GET_STATS_FD: a header, an identity, descriptors, values.</remarks>
internal static unsafe class BinaryStats
{
    private const int MaxSize = 1 << 20;

    /// <summary>The values by name; histograms are left out.</summary>
    public static IReadOnlyDictionary<string, ulong> Read(KvmFd owner)
    {
        using var file = new KvmFd(owner.Backend, (int)owner.Ioctl(KVM_GET_STATS_FD, 0));
        byte[] all = ReadToEnd(file);
        var values = new Dictionary<string, ulong>(StringComparer.Ordinal);
        if (all.Length < sizeof(kvm_stats_header)) return values;
        kvm_stats_header header = MemoryMarshal.Read<kvm_stats_header>(all);
        int stride = sizeof(kvm_stats_desc) + (int)header.name_size;
        for (int i = 0; i < header.num_desc; i++)
        {
            ReadOnlySpan<byte> row = all.AsSpan((int)header.desc_offset + i * stride, stride);
            kvm_stats_desc desc = MemoryMarshal.Read<kvm_stats_desc>(row);
            ReadOnlySpan<byte> name = row[sizeof(kvm_stats_desc)..];
            if (desc.size == 1) values[Encoding.ASCII.GetString(name[..name.IndexOf((byte)0)])] = MemoryMarshal.Read<ulong>(all.AsSpan((int)(header.data_offset + desc.offset), 8));
        }

        return values;
    }

    private static byte[] ReadToEnd(KvmFd file)
    {
        var all = new byte[4096];
        int length = 0;
        while (true)
        {
            fixed (byte* at = all)
            {
                long read = file.Backend.Read(file.Number, (ulong)(at + length), (ulong)(all.Length - length));
                if (read < 0) throw new KvmException("read of KVM statistics", (Errno)(-read));
                if (read == 0 || length + read > MaxSize) return all[..length];
                length += (int)read;
            }

            if (length == all.Length) Array.Resize(ref all, all.Length * 2);
        }
    }
}

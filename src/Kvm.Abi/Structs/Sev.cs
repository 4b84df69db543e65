// SEV commands of KVM_MEMORY_ENCRYPT_OP.
// Linux 6.1, x86-64; names verbatim from linux/kvm.h.

using System.Runtime.InteropServices;

namespace Kvm.Abi;

/// <summary><c>struct kvm_sev_cmd</c>: 24 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_sev_cmd
{
    public uint id;
    public ulong data;
    public uint error;
    public uint sev_fd;
}

/// <summary><c>struct kvm_sev_launch_start</c>: 40 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_sev_launch_start
{
    public uint handle;
    public uint policy;
    public ulong dh_uaddr;
    public uint dh_len;
    public ulong session_uaddr;
    public uint session_len;
}

/// <summary><c>struct kvm_sev_launch_update_data</c>: 16 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_sev_launch_update_data
{
    public ulong uaddr;
    public uint len;
}

/// <summary><c>struct kvm_sev_launch_secret</c>: 48 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_sev_launch_secret
{
    public ulong hdr_uaddr;
    public uint hdr_len;
    public ulong guest_uaddr;
    public uint guest_len;
    public ulong trans_uaddr;
    public uint trans_len;
}

/// <summary><c>struct kvm_sev_launch_measure</c>: 16 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_sev_launch_measure
{
    public ulong uaddr;
    public uint len;
}

/// <summary><c>struct kvm_sev_guest_status</c>: 12 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_sev_guest_status
{
    public uint handle;
    public uint policy;
    public uint state;
}

/// <summary><c>struct kvm_sev_dbg</c>: 24 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_sev_dbg
{
    public ulong src_uaddr;
    public ulong dst_uaddr;
    public uint len;
}

/// <summary><c>struct kvm_sev_attestation_report</c>: 32 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_sev_attestation_report
{
    public u8_array_16 mnonce;
    public ulong uaddr;
    public uint len;
}

/// <summary><c>struct kvm_sev_send_start</c>: 72 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_sev_send_start
{
    public uint policy;
    public ulong pdh_cert_uaddr;
    public uint pdh_cert_len;
    public ulong plat_certs_uaddr;
    public uint plat_certs_len;
    public ulong amd_certs_uaddr;
    public uint amd_certs_len;
    public ulong session_uaddr;
    public uint session_len;
}

/// <summary><c>struct kvm_sev_send_update_data</c>: 48 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_sev_send_update_data
{
    public ulong hdr_uaddr;
    public uint hdr_len;
    public ulong guest_uaddr;
    public uint guest_len;
    public ulong trans_uaddr;
    public uint trans_len;
}

/// <summary><c>struct kvm_sev_receive_start</c>: 40 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_sev_receive_start
{
    public uint handle;
    public uint policy;
    public ulong pdh_uaddr;
    public uint pdh_len;
    public ulong session_uaddr;
    public uint session_len;
}

/// <summary><c>struct kvm_sev_receive_update_data</c>: 48 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct kvm_sev_receive_update_data
{
    public ulong hdr_uaddr;
    public uint hdr_len;
    public ulong guest_uaddr;
    public uint guest_len;
    public ulong trans_uaddr;
    public uint trans_len;
}

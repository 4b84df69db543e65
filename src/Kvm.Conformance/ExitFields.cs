using System.Globalization;
using System.Text.Json;
using Kvm.Abi;
using static Kvm.Abi.Uapi;

namespace Kvm.Conformance;

/// <summary>The recording's names for fields of kvm_run, read from the page in the recording's notation.</summary>
internal static unsafe class ExitFields
{
    public static string Normalize(JsonElement value) => value.ValueKind switch
    {
        JsonValueKind.Array => string.Join(',', value.EnumerateArray().Select(Normalize)),
        JsonValueKind.String when value.GetString()!.StartsWith("0x", StringComparison.Ordinal) => Hex(ulong.Parse(value.GetString()![2..], NumberStyles.HexNumber, CultureInfo.InvariantCulture)),
        JsonValueKind.String => value.GetString()!,
        _ => value.GetInt64().ToString(CultureInfo.InvariantCulture),
    };

    public static string Read(kvm_run* run, string field, JsonElement expected) => field switch
    {
        "reason" => Number(run->exit_reason),
        "ready_for_interrupt_injection" => Number(run->ready_for_interrupt_injection),
        "if_flag" => Number(run->if_flag),
        "flags16" => Number(run->flags),
        "cr8" => Number(run->cr8),
        "apic_base" => Hex(run->apic_base),
        "direction" => Number(run->io.direction),
        "size" => Number(run->io.size),
        "port" => Number(run->io.port),
        "count" => Number(run->io.count),
        "data_offset" => Number(run->io.data_offset),
        "phys_addr" => Hex(run->mmio.phys_addr),
        "len" => Number(run->mmio.len),
        "is_write" when run->exit_reason == KVM_EXIT_TPR_ACCESS => Number(run->tpr_access.is_write),
        "is_write" => Number(run->mmio.is_write),
        "rip" => Hex(run->tpr_access.rip),
        "exception" => Number(run->debug.arch.exception),
        "pc" => Hex(run->debug.arch.pc),
        "dr6" => Hex(run->debug.arch.dr6),
        "dr7" => Hex(run->debug.arch.dr7),
        "suberror" => Number(run->@internal.suberror),
        "ndata" => Number(run->@internal.ndata),
        "msr_reason" => Number(run->msr.reason),
        "index" => Hex(run->msr.index),
        "vector" => Number(run->eoi.vector),
        "hardware_entry_failure_reason" => Hex(run->fail_entry.hardware_entry_failure_reason),
        "cpu" => Number(run->fail_entry.cpu),
        "data" => Data(run, expected),
        _ => $"(no reader for {field})",
    };

    private static string Data(kvm_run* run, JsonElement expected)
    {
        switch ((int)run->exit_reason)
        {
            case KVM_EXIT_IO:
                return Bytes((byte*)run + run->io.data_offset, run->io.size * (int)run->io.count);
            case KVM_EXIT_MMIO:
                return Bytes((byte*)&run->mmio.data, (int)run->mmio.len);
            case KVM_EXIT_X86_RDMSR or KVM_EXIT_X86_WRMSR:
                return Hex(run->msr.data);
            case KVM_EXIT_INTERNAL_ERROR:
                Span<ulong> data = run->@internal.data;
                return string.Join(',', data[..(int)Math.Min(run->@internal.ndata, 16)].ToArray().Select(Hex));
            default:
                return $"(no data in exit {run->exit_reason}, expected {expected})";
        }
    }

    private static string Bytes(byte* at, int count) => Convert.ToHexStringLower(new ReadOnlySpan<byte>(at, Math.Clamp(count, 0, 4096)));

    private static string Hex(ulong value) => $"0x{value:x}";

    private static string Number(ulong value) => value.ToString(CultureInfo.InvariantCulture);
}

using System.Globalization;
using System.Text;
using Kvm.Abi;
using Kvm.Conformance.Tests.Failures;
using Kvm.Core;
using static Kvm.Abi.Uapi;

namespace Kvm.Conformance.Tests.BadInput;

/// <summary>A VM with a vCPU, memory and a device on a computer; calls written as text, and all state that a call which fails must leave as it was.</summary>
internal sealed unsafe class Session : IDisposable
{
    private const ulong ramSize = 0x20000;
    /// <summary>IA32_TSC, HV_X64_MSR_VP_RUNTIME and HV_X64_MSR_TIME_REF_COUNT: time goes on.</summary>
    private static readonly uint[] clocks = [0x10, 0x40000010, 0x40000020];

    private readonly Computer computer;
    private readonly Dictionary<string, ulong> names = [];
    private readonly ulong run, arguments;
    private ulong next;

    public Session(Computer computer)
    {
        this.computer = computer;
        names["kvm"] = Fd(Process.Open("/dev/kvm"));
        names["vm"] = Fd(Process.Ioctl(Of("system"), KVM_CREATE_VM));
        names["vcpu"] = Fd(Process.Ioctl(Of("vm"), KVM_CREATE_VCPU, 0));
        run = (ulong)Process.Mmap(0x3000, Fcntl.PROT_READ | Fcntl.PROT_WRITE, Fcntl.MAP_SHARED, Of("vcpu")).Raw;
        names["event"] = Fd(Process.Eventfd());
        names["event2"] = Fd(Process.Eventfd());
        names["ram"] = Process.MapAnonymous(ramSize);
        names["ro"] = Process.MapAnonymous(0x2000);
        Process.Mprotect(names["ro"], 0x2000, Fcntl.PROT_READ).Should().Be(KvmResult.Ok);
        names["prot-none"] = Process.MapAnonymous(0x4000);
        Process.Mprotect(names["prot-none"], 0x4000, 0).Should().Be(KvmResult.Ok);
        arguments = next = Process.MapAnonymous(0x400000);
        // a page, and nothing behind it
        ulong half = Process.MapAnonymous(0x8000);
        Process.Munmap(half + 0x4000, 0x4000).Should().Be(KvmResult.Ok);
        names["half"] = half + 0x4000 - 4;
        names["gone"] = half + 0x5000;
        names["minus-one"] = Process.MapAnonymous(0x1000);
        *(int*)names["minus-one"] = -1;
        // The first run saves the FPU's state in the processor's own way.
        *(byte*)(run + 1) = 1;
        Ioctl("vcpu", Uapi.KVM_RUN, 0).Should().Be((KvmResult)Errno.EINTR);
        *(byte*)(run + 1) = 0;
    }

    public HostProcess Process => computer.Process;

    public ulong Named(string name) => names[name];

    public int Of(string kind) => (int)names[kind == "system" ? "kvm" : kind];

    /// <summary>A VFIO device of the VM.</summary>
    public void CreateDevice()
    {
        var device = new kvm_create_device { type = KVM_DEV_TYPE_VFIO };
        Process.Ioctl(Of("vm"), KVM_CREATE_DEVICE, ref device).Should().Be(KvmResult.Ok);
        names["device"] = device.fd;
    }

    public KvmResult Ioctl(string kind, uint number, ulong argument) => Process.Ioctl(Of(kind), number, argument);

    /// <summary>
    /// A preparation that must succeed: "vm KVM_X argument", "50 times vm KVM_X argument", "run offset:width=value" (the vCPU's page), "device" (of VFIO),
    /// "fresh" (another VM, without vCPUs), "vcpu" (the first of that one), "files" (no descriptor left).
    /// </summary>
    public void Prepare(string step)
    {
        string[] words = step.Split(' ', 3);
        switch (words[0])
        {
            case "vcpu" when words.Length == 1:
                names["vcpu"] = Fd(Process.Ioctl(Of("vm"), KVM_CREATE_VCPU, 0));
                break;
            case "run":
                Poke(run, step[4..]);
                break;
            case "files":
                Process.Files.Limit = Process.Files.Open.Count;
                break;
            case "device":
                CreateDevice();
                break;
            case "fresh":
                names["vm"] = Fd(Process.Ioctl(Of("system"), KVM_CREATE_VM));
                break;
            default:
                if (words[1] == "times")
                {
                    for (int i = int.Parse(words[0], CultureInfo.InvariantCulture); i > 0; i--)
                        Prepare(words[2]);
                    break;
                }

                Ioctl(words[0], BadCall.Number(words[1]), Argument(words[0], words.Length > 2 ? words[2] : "=0")).IsError.Should().BeFalse(step);
                break;
        }
    }

    /// <summary>"=value"; "[size offset:width=value …]", a structure of zeros otherwise; "&lt;KVM_GET_X size …&gt;", what that ioctl gives otherwise.</summary>
    public ulong Argument(string kind, string text)
    {
        if (text[0] == '=')
            return Value(text[1..]);
        string[] words = text[1..^1].Split(' ', 3);
        bool get = text[0] == '<';
        int size = int.Parse(words[get ? 1 : 0], CultureInfo.InvariantCulture);
        ulong at = next = next + 4095 & ~4095UL;
        next += (ulong)size;
        if (get)
            Ioctl(kind, BadCall.Number(words[0]), at).Should().Be(KvmResult.Ok, text);
        Poke(at, string.Join(' ', words[(get ? 2 : 1)..]));
        return at;
    }

    private void Poke(ulong at, string fields)
    {
        foreach (string field in fields.Split(' ', StringSplitOptions.RemoveEmptyEntries))
        {
            string[] parts = field.Split(':', '=');
            byte* p = (byte*)(at + Value(parts[0]));
            ulong value = Value(parts[2]);
            for (int i = 0; i < int.Parse(parts[1], CultureInfo.InvariantCulture); i++)
                p[i] = (byte)(value >> 8 * i);
        }
    }

    private ulong Value(string text)
    {
        if (names.TryGetValue(text, out ulong named))
            return named;
        if (text[0] == '-')
            return (ulong)-long.Parse(text[1..], CultureInfo.InvariantCulture);
        return text.StartsWith("0x", StringComparison.Ordinal) ? ulong.Parse(text[2..], NumberStyles.HexNumber, CultureInfo.InvariantCulture) : ulong.Parse(text, CultureInfo.InvariantCulture);
    }

    /// <summary>The host's state, and all that the vCPU's ioctls show, time aside.</summary>
    public string State()
    {
        var text = new StringBuilder(HostState.Of(computer.Kernel));
        ulong at = arguments + 0x3f0000;
        foreach ((string name, uint number, int size) in new[]
        {
            ("regs", KVM_GET_REGS, 144), ("sregs2", KVM_GET_SREGS2, 320), ("fpu", KVM_GET_FPU, 416), ("xsave", KVM_GET_XSAVE, 4096), ("xcrs", KVM_GET_XCRS, 392),
            ("events", KVM_GET_VCPU_EVENTS, 64), ("debugregs", KVM_GET_DEBUGREGS, 128), ("mp_state", KVM_GET_MP_STATE, 4),
        })
        {
            new Span<byte>((void*)at, size).Clear();
            text.Append($"{name} {Ioctl("vcpu", number, at)} {Convert.ToHexString(new ReadOnlySpan<byte>((void*)at, size))}\n");
        }

        *(uint*)at = 200;
        text.Append($"cpuid {Ioctl("vcpu", KVM_GET_CPUID2, at)} {Convert.ToHexString(new ReadOnlySpan<byte>((void*)at, 8 + 40 * (int)*(uint*)at))}\n");
        *(uint*)at = 200;
        Ioctl("system", KVM_GET_MSR_INDEX_LIST, at).Should().Be(KvmResult.Ok);
        uint[] msrs = new ReadOnlySpan<uint>((void*)(at + 4), (int)*(uint*)at).ToArray();
        foreach (uint msr in msrs)
        {
            if (clocks.Contains(msr))
                continue;
            *(ulong*)at = 1;
            *(ulong*)(at + 8) = msr;
            *(ulong*)(at + 16) = 0;
            text.Append($"msr {msr:x} {Ioctl("vcpu", KVM_GET_MSRS, at)} {*(ulong*)(at + 16):x}\n");
        }

        text.Append($"tsc {Ioctl("vcpu", KVM_GET_TSC_KHZ, 0)} {Ioctl("vm", KVM_GET_TSC_KHZ, 0)} mmu pages {Ioctl("vm", KVM_GET_NR_MMU_PAGES, 0)}\n");
        return text.ToString();
    }

    public void Dispose()
    {
        Process.Files.Limit = 1 << 16;
        foreach (Vma vma in Process.Mm.Vmas.ToArray())
            Process.Munmap(vma.Start, vma.Length);
        foreach (int fd in Process.Files.Open)
            Process.Close(fd);
    }

    private static ulong Fd(KvmResult result)
    {
        result.IsError.Should().BeFalse(result.ToString());
        return (ulong)result.Value;
    }
}

using Kvm.Abi;
using Kvm.Core;
using Kvm.Emulator;
using static Kvm.Abi.Uapi;

namespace Kvm.Arch.X86.Tests.Fpu;

/// <summary>The guest's FPU state in the processor and in the ioctls: fpu_swap_kvm_fpstate, kvm_load_guest_xsave_state, KVM_GET/SET_FPU, KVM_GET/SET_XSAVE, KVM_SET_XCRS.</summary>
public sealed unsafe class GuestFpuState
{
    public static TheoryData<string> Vendors => ["intel", "amd"];

    private const ulong cr4 = Cr4.OSFXSR | Cr4.OSXMMEXCPT;

    // Real mode: movdqa xmm2, xmm1; paddd xmm2, xmm0; movdqa xmm0, xmm2; out 10h, al; jmp back
    private static readonly byte[] add = [0x66, 0x0f, 0x6f, 0xd1, 0x66, 0x0f, 0xfe, 0xd0, 0x66, 0x0f, 0x6f, 0xc2, 0xe6, 0x10, 0xeb, 0xf0];

    /// <summary>A vCPU of its own in the guest, in real mode with SSE, at the program.</summary>
    private static int Vcpu(Guest g, uint id, ReadOnlySpan<byte> code)
    {
        int fd = id == 0 ? g.VcpuFd : g.CreateVcpu(id, out _);
        ulong at = 0x1000 + (ulong)id * 0x100;
        code.CopyTo(new Span<byte>(g.Memory + at, code.Length));
        kvm_sregs s;
        Guest.Ok(g.Process.Ioctl(fd, KVM_GET_SREGS, (ulong)&s));
        s.cs.@base = 0;
        s.cs.selector = 0;
        s.cr4 = cr4;
        Guest.Ok(g.Process.Ioctl(fd, KVM_SET_SREGS, (ulong)&s));
        kvm_regs r = default;
        r.rip = at;
        r.rflags = 2;
        r.rsp = 0x8000;
        Guest.Ok(g.Process.Ioctl(fd, KVM_SET_REGS, (ulong)&r));
        return fd;
    }

    private static byte[] GetXsave(Guest g, int fd)
    {
        var area = new byte[4096];
        fixed (byte* p = area)
            Guest.Ok(g.Process.Ioctl(fd, KVM_GET_XSAVE, (ulong)p));
        return area;
    }

    private static KvmResult SetXsave(Guest g, int fd, byte[] area)
    {
        fixed (byte* p = area)
            return g.Process.Ioctl(fd, KVM_SET_XSAVE, (ulong)p);
    }

    private static byte[] Area(ulong features, uint xmm0 = 0, uint xmm1 = 0, uint mxcsr = 0x1f80)
    {
        var area = new byte[4096];
        BitConverter.TryWriteBytes(area, (ushort)0x37f);
        BitConverter.TryWriteBytes(area.AsSpan(24), mxcsr);
        BitConverter.TryWriteBytes(area.AsSpan(160), xmm0);
        BitConverter.TryWriteBytes(area.AsSpan(176), xmm1);
        BitConverter.TryWriteBytes(area.AsSpan(512), features);
        return area;
    }

    private static uint Xmm(Guest g, int fd, int n) => BitConverter.ToUInt32(GetXsave(g, fd), 160 + n * 16);

    private static void Run(Guest g, int fd) => g.Process.Ioctl(fd, KVM_RUN).Raw.Should().Be(0);

    private static HostX86Cpu Cpu(Guest g, int n) => g.Kernel.Arch.HostX86.Cpus[n];

    [Theory]
    [MemberData(nameof(Vendors))]
    public void What_userspace_sets_the_guest_computes_with(string vendor)
    {
        using var g = new Guest(vendor);
        int fd = Vcpu(g, 0, add);
        SetXsave(g, fd, Area(3, 5, 7)).Raw.Should().Be(0);
        Run(g, fd);
        Xmm(g, fd, 2).Should().Be(12);
        Run(g, fd);
        Xmm(g, fd, 0).Should().Be(19);
        kvm_fpu fpu;
        Guest.Ok(g.Process.Ioctl(fd, KVM_GET_FPU, (ulong)&fpu));
        (*(uint*)((byte*)&fpu + 152)).Should().Be(19, "KVM_GET_FPU reads the same state");
        (BitConverter.ToUInt64(GetXsave(g, fd), 512) & 2).Should().Be(2);
    }

    [Theory]
    [MemberData(nameof(Vendors))]
    public void Two_vcpus_on_one_processor_keep_their_own(string vendor)
    {
        using var g = new Guest(vendor);
        int a = Vcpu(g, 0, add), b = Vcpu(g, 1, add);
        SetXsave(g, a, Area(3, 100, 1)).Raw.Should().Be(0);
        SetXsave(g, b, Area(3, 200, 2)).Raw.Should().Be(0);
        for (uint i = 1; i <= 3; i++)
        {
            Run(g, a);
            Run(g, b);
            Run(g, b);
            Xmm(g, a, 0).Should().Be(100 + i);
            Xmm(g, b, 0).Should().Be(200 + 4 * i);
        }
    }

    /// <summary>The registers stay loaded: another vCPU, or a look at the image for writing, takes them away.</summary>
    [Theory]
    [MemberData(nameof(Vendors))]
    public void Registers_are_switched_only_when_somebody_else_wants_them(string vendor)
    {
        using var g = new Guest(vendor);
        int a = Vcpu(g, 0, add), b = Vcpu(g, 1, add);
        FpuGuest first = ((X86Vcpu)g.Vm.Vcpus[0]).GuestFpu, second = ((X86Vcpu)g.Vm.Vcpus[1]).GuestFpu;
        first.LoadedOn.Should().BeNull();
        Run(g, a);
        first.LoadedOn.Should().Be(Cpu(g, 0));
        Run(g, a);
        GetXsave(g, a);
        first.LoadedOn.Should().Be(Cpu(g, 0), "reading leaves them");
        Run(g, b);
        first.LoadedOn.Should().BeNull();
        second.LoadedOn.Should().Be(Cpu(g, 0));
        SetXsave(g, b, Area(3)).Raw.Should().Be(0);
        second.LoadedOn.Should().BeNull();
    }

    [Theory]
    [MemberData(nameof(Vendors))]
    public void State_moves_with_the_thread_to_another_processor(string vendor)
    {
        using var g = new Guest(vendor, cpus: 2);
        int a = Vcpu(g, 0, add), b = Vcpu(g, 1, add);
        SetXsave(g, a, Area(3, 100, 1)).Raw.Should().Be(0);
        SetXsave(g, b, Area(3, 200, 2)).Raw.Should().Be(0);
        uint expected = 100, other = 200;
        foreach (int cpu in (int[])[0, 1, 1, 0, 1])
        {
            g.Process.Task.SetAffinity(cpu);
            Run(g, a);
            ((X86Vcpu)g.Vm.Vcpus[0]).GuestFpu.LoadedOn.Should().Be(Cpu(g, cpu));
            Xmm(g, a, 0).Should().Be(++expected);
            // The other one follows a CPU behind, so that it is sometimes where the first one's registers still are.
            g.Process.Task.SetAffinity(cpu ^ 1);
            Run(g, b);
            Xmm(g, b, 0).Should().Be(other += 2);
        }
    }

    [Theory]
    [MemberData(nameof(Vendors))]
    public void State_survives_its_processor_going_offline(string vendor)
    {
        using var g = new Guest(vendor, cpus: 2);
        int a = Vcpu(g, 0, add);
        SetXsave(g, a, Area(3, 100, 1)).Raw.Should().Be(0);
        g.Process.Task.SetAffinity(1);
        Run(g, a);
        g.Process.Task.SetAffinity(0);
        Guest.Ok(g.Kernel.Host.CpuDown(1));
        ((X86Vcpu)g.Vm.Vcpus[0]).GuestFpu.LoadedOn.Should().BeNull();
        Guest.Ok(g.Kernel.Host.CpuUp(1));
        Run(g, a);
        Xmm(g, a, 0).Should().Be(102);
        Cpu(g, 1).Xgetbv0().Should().Be(g.Kernel.Arch.HostXcr0, "the CPU that came back has XCR0 set up again");
    }

    [Theory]
    [MemberData(nameof(Vendors))]
    public void A_vcpu_that_is_gone_owns_no_registers(string vendor)
    {
        using var g = new Guest(vendor);
        int a = Vcpu(g, 0, add), b = Vcpu(g, 1, add);
        SetXsave(g, a, Area(3, 1, 1)).Raw.Should().Be(0);
        Run(g, b);
        FpuGuest gone = ((X86Vcpu)g.Vm.Vcpus[1]).GuestFpu;
        g.Process.Close(b);
        g.Process.Close(g.VmFd);
        Run(g, a);
        Xmm(g, a, 0).Should().Be(2);
        gone.LoadedOn.Should().BeNull();
    }

    /// <summary>Many threads, more vCPUs than CPUs: every one counts for itself.</summary>
    [Theory]
    [MemberData(nameof(Vendors))]
    public void Threads_that_share_processors(string vendor)
    {
        const int vcpus = 4, runs = 500;
        using var g = new Guest(vendor, cpus: 2);
        int[] fds = [.. Enumerable.Range(0, vcpus).Select(i => Vcpu(g, (uint)i, add))];
        for (int i = 0; i < vcpus; i++)
            SetXsave(g, fds[i], Area(3, (uint)i * 1000, (uint)i + 1)).Raw.Should().Be(0);
        Exception? failure = null;
        Thread[] threads = [.. fds.Select((fd, i) => new Thread(() =>
        {
            try
            {
                HostTask task = g.Process.Task;
                for (int n = 1; n <= runs; n++)
                {
                    if (n % 3 == 0)
                        task.SetAffinity((n / 3 + i) & 1);
                    Run(g, fd);
                    if (n % 7 == 0)
                        Xmm(g, fd, 0).Should().Be((uint)(i * 1000 + n * (i + 1)));
                }
            }
            catch (Exception e)
            {
                failure = e;
            }
        }))];
        foreach (Thread thread in threads)
            thread.Start();
        foreach (Thread thread in threads)
            thread.Join();
        failure.Should().BeNull();
        for (int i = 0; i < vcpus; i++)
            Xmm(g, fds[i], 0).Should().Be((uint)(i * 1000 + runs * (i + 1)));
    }

    /// <summary>KVM_SET_FPU does not touch XSTATE_BV: where a component is initial, what was set is not loaded.</summary>
    [Theory]
    [InlineData("intel", 0UL, 1u)]
    [InlineData("intel", 2UL, 41u)]
    [InlineData("amd", 2UL, 41u)]
    public void KVM_SET_FPU_keeps_the_header(string vendor, ulong features, uint expected)
    {
        using var g = new Guest(vendor);
        // movdqa xmm2, xmm0; out 10h, al
        int fd = Vcpu(g, 0, [0x66, 0x0f, 0x6f, 0xd0, 0xe6, 0x10]);
        SetXsave(g, fd, Area(features, xmm0: 9)).Raw.Should().Be(0);
        kvm_fpu fpu = default;
        fpu.fcw = 0x37f;
        *(uint*)((byte*)&fpu + 152) = 41;
        Guest.Ok(g.Process.Ioctl(fd, KVM_SET_FPU, (ulong)&fpu));
        kvm_fpu back;
        Guest.Ok(g.Process.Ioctl(fd, KVM_GET_FPU, (ulong)&back));
        (*(uint*)((byte*)&back + 152)).Should().Be(41);
        Run(g, fd);
        Xmm(g, fd, 2).Should().Be(expected == 41 ? 41u : 0u);
    }

    [Theory]
    [InlineData(0UL, 0UL, 0x1f80u, 0)]
    [InlineData(7UL, 0UL, 0x1f80u, 0)]
    [InlineData(0x400UL, 0UL, 0x1f80u, Errnos.EINVAL)]
    [InlineData(8UL, 0UL, 0x1f80u, Errnos.EINVAL)]
    [InlineData(3UL, 1UL << 63, 0x1f80u, Errnos.EINVAL)]
    [InlineData(3UL, 0UL, 0x11f80u, Errnos.EINVAL)]
    [InlineData(0UL, 0UL, 0x11f80u, 0)]
    public void KVM_SET_XSAVE_checks_header_and_MXCSR(ulong features, ulong layout, uint mxcsr, int errno)
    {
        using var g = new Guest("intel");
        byte[] area = Area(features, 1, 2, mxcsr);
        BitConverter.TryWriteBytes(area.AsSpan(520), layout);
        SetXsave(g, g.VcpuFd, area).Raw.Should().Be(-errno);
    }

    /// <summary>Guest CPUID as supported, then XCR0 by KVM_SET_XCRS: AVX executes; after every exit the processor has the host's XCR0 again.</summary>
    [Theory]
    [MemberData(nameof(Vendors))]
    public void XCR0_is_the_guests_inside_and_the_hosts_outside(string vendor)
    {
        using var g = new Guest(vendor);
        SetCpuid(g, g.VcpuFd);
        // Protected mode: vpaddd ymm2, ymm1, ymm0; mov ecx, 0; xgetbv; out 10h, al; jmp back
        int fd = Protected(g, [0xc5, 0xf5, 0xfe, 0xd0, 0xb9, 0, 0, 0, 0, 0x0f, 0x01, 0xd0, 0xe6, 0x10, 0xeb, 0xf0], Cr4.OSXSAVE);
        var xcrs = new kvm_xcrs { nr_xcrs = 1 };
        xcrs.xcrs[0].value = 7;
        Guest.Ok(g.Process.Ioctl(fd, KVM_SET_XCRS, (ulong)&xcrs));
        byte[] area = Area(7, 5, 7);
        area[576] = 3;
        area[592] = 4;
        SetXsave(g, fd, area).Raw.Should().Be(0);
        for (int i = 0; i < 2; i++)
        {
            Run(g, fd);
            g.Run->exit_reason.Should().Be((uint)KVM_EXIT_IO);
            Cpu(g, 0).Processor.State->Xcr0.Should().Be(g.Kernel.Arch.HostXcr0);
        }
        byte[] back = GetXsave(g, fd);
        (BitConverter.ToUInt32(back, 192), back[608]).Should().Be((12u, (byte)7));
        g.Regs.rax.Should().Be(7);
        xcrs = default;
        Guest.Ok(g.Process.Ioctl(fd, KVM_GET_XCRS, (ulong)&xcrs));
        xcrs.xcrs[0].value.Should().Be(7);
    }

    /// <summary>XSETBV exits; what the guest's CPUID does not allow faults. Without it there is no AVX either.</summary>
    [Theory]
    [InlineData("intel", 7u, true)]
    [InlineData("intel", 0x207u, true)]
    [InlineData("intel", 5u, false)]
    [InlineData("amd", 7u, true)]
    [InlineData("amd", 0x207u, false)]
    public void The_guest_sets_XCR0_itself(string vendor, uint value, bool allowed)
    {
        using var g = new Guest(vendor);
        SetCpuid(g, g.VcpuFd);
        // xor ecx, ecx; xor edx, edx; mov eax, value; xsetbv; xgetbv; out 10h, al
        int fd = Protected(g, [0x31, 0xc9, 0x31, 0xd2, 0xb8, .. BitConverter.GetBytes(value), 0x0f, 0x01, 0xd1, 0x0f, 0x01, 0xd0, 0xe6, 0x10], Cr4.OSXSAVE);
        Run(g, fd);
        g.Run->exit_reason.Should().Be(allowed ? (uint)KVM_EXIT_IO : KVM_EXIT_SHUTDOWN, "without an IDT #GP is a triple fault");
        if (allowed)
            g.Regs.rax.Should().Be(value);
    }

    /// <summary>PKRU is switched at each entry and exit, and lives in the vCPU, not in the image.</summary>
    [Fact]
    public void PKRU()
    {
        using var g = new Guest("intel");
        SetCpuid(g, g.VcpuFd);
        // xor ecx, ecx; rdpkru; out 10h, al; mov eax, 30h; wrpkru (edx is 0); out 10h, al
        int fd = Protected(g, [0x31, 0xc9, 0x0f, 0x01, 0xee, 0xe6, 0x10, 0xb8, 0x30, 0, 0, 0, 0x0f, 0x01, 0xef, 0xe6, 0x10], Cr4.PKE | Cr4.OSXSAVE);
        byte[] area = Area(0x203);
        BitConverter.TryWriteBytes(area.AsSpan(0xa80), 0x1234u);
        SetXsave(g, fd, area).Raw.Should().Be(0);
        Run(g, fd);
        g.Regs.rax.Should().Be(0x1234);
        const uint host = 0x5555_5554;
        Cpu(g, 0).ReadPkru().Should().Be(host);
        Run(g, fd);
        Cpu(g, 0).ReadPkru().Should().Be(host);
        BitConverter.ToUInt32(GetXsave(g, fd), 0xa80).Should().Be(0x30);
        SetXsave(g, fd, Area(3)).Raw.Should().Be(0);
        g.Vcpu.Pkru.Should().Be(0x30, "without the bit PKRU stays");
    }

    /// <summary>KVM's own emulator uses the guest's registers in the processor: a 16-byte load from a device.</summary>
    [Theory]
    [MemberData(nameof(Vendors))]
    public void Emulated_moves_use_the_guests_registers(string vendor)
    {
        using var g = new Guest(vendor);
        // Memory ends at 8 MiB. movups xmm1, [0900000h]; out 10h, al
        int fd = Protected(g, [0x0f, 0x10, 0x0d, 0, 0, 0x90, 0, 0xe6, 0x10], 0);
        for (ulong part = 0; part < 2; part++)
        {
            Run(g, fd);
            g.Run->exit_reason.Should().Be((uint)KVM_EXIT_MMIO);
            *(ulong*)((byte*)&g.Run->mmio + 8) = 0x1111_0000_2222_0000 + part;
        }
        Run(g, fd);
        g.Run->exit_reason.Should().Be((uint)KVM_EXIT_IO);
        byte[] area = GetXsave(g, fd);
        (BitConverter.ToUInt64(area, 176), BitConverter.ToUInt64(area, 184)).Should().Be((0x1111_0000_2222_0000UL, 0x1111_0000_2222_0001UL));
    }

    private static int Protected(Guest g, ReadOnlySpan<byte> code, ulong extraCr4)
    {
        int fd = Vcpu(g, 0, code);
        kvm_sregs s = g.Sregs;
        s.cr0 = 0x31;
        s.cr4 = cr4 | extraCr4;
        Flat(ref s.cs, 0xb, 8);
        Flat(ref s.ds, 3, 0x10);
        Flat(ref s.es, 3, 0x10);
        Flat(ref s.ss, 3, 0x10);
        s.idt.limit = 0;
        g.Sregs = s;
        return fd;
    }

    private static void Flat(ref kvm_segment segment, byte type, ushort selector)
    {
        segment = new kvm_segment { limit = uint.MaxValue, selector = selector, type = type, present = 1, s = 1, db = 1, g = 1 };
    }

    /// <summary>KVM_SET_CPUID2 with what KVM_GET_SUPPORTED_CPUID offers.</summary>
    private static void SetCpuid(Guest g, int fd)
    {
        const int entries = 100;
        byte* buffer = stackalloc byte[8 + entries * 40];
        *(uint*)buffer = entries;
        Guest.Ok(g.Process.Ioctl(g.KvmFd, KVM_GET_SUPPORTED_CPUID, (ulong)buffer));
        Guest.Ok(g.Process.Ioctl(fd, KVM_SET_CPUID2, (ulong)buffer));
    }
}

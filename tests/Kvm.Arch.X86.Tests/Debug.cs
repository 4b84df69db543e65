using Kvm.Abi;
using Kvm.Core;
using Kvm.Core.Tracing;
using static Kvm.Abi.Uapi;
namespace Kvm.Arch.X86.Tests;
public unsafe class DebugX
{
    [Fact]
    public void Nmi()
    {
        using var g = new Guest("amd");
        g.Load([0x90, 0xeb, 0xfe]);
        *(uint*)(g.Memory + 8) = 0x1100;
        new byte[] { 0xb0, 0x09, 0xf4 }.CopyTo(new Span<byte>(g.Memory + 0x1100, 3));
        Guest.Ok(g.Process.Ioctl(g.VcpuFd, KVM_NMI));
        var lines = new System.Collections.Concurrent.ConcurrentQueue<string>();
        Tracepoints.Event += (in TracepointRecord r) => lines.Enqueue(r.Name + " " + r.Text);
        HostTask? task = null;
        KvmResult res = 0;
        var thread = new Thread(() => { task = g.Process.Task; res = g.RunOnce(); });
        thread.Start();
        thread.Join(3000);
        task!.Send(10);
        bool ok = thread.Join(3000);
        throw new Exception($"{ok} {res.Raw} exit {g.Run->exit_reason} rip {g.Vcpu.Regs[16]:x} pend {g.Vcpu.NmiPending} inj {g.Vcpu.NmiInjected} mode {g.Vcpu.Mode} req {g.Vcpu.Requests:x}\n" + string.Join("\n", lines.Take(40)));
    }
}

using System.Diagnostics;
using System.Text;
using Kvm.Abi;

namespace Kvm.Client.Tests.Soak;

/// <summary>Threads that run the vCPUs of an <see cref="SmpGuest"/>, and a watchdog that tells what every processor does when one does not get on.</summary>
internal sealed class SmpRun(SmpGuest guest, GuestMemory memory, IReadOnlyList<Vcpu> vcpus)
{
    private readonly List<Thread> _threads = [];
    private readonly List<string> _unexpected = [];
    private bool _over;

    /// <summary>How long a processor may make no progress on a busy machine.</summary>
    public static TimeSpan Patience => TimeSpan.FromSeconds(60);

    public void Start()
    {
        Volatile.Write(ref _over, false);
        foreach (Vcpu vcpu in vcpus)
        {
            var thread = new Thread(() => Loop(vcpu), 256 << 10) { IsBackground = true, Name = $"vcpu {vcpu.Id}" };
            _threads.Add(thread);
            thread.Start();
        }
    }

    /// <summary>All vCPUs leave the guest, wherever they are.</summary>
    public void Pause()
    {
        Volatile.Write(ref _over, true);
        foreach (Vcpu vcpu in vcpus) vcpu.Kick();
        foreach (Thread thread in _threads)
            thread.Join(Patience).Should().BeTrue($"{thread.Name} leaves the guest when it is kicked");
        _threads.Clear();
        foreach (Vcpu vcpu in vcpus) vcpu.RunPage.immediate_exit = 0; // one that was kicked outside KVM_RUN
        _unexpected.Should().BeEmpty();
    }

    /// <summary>Goes on until <paramref name="over"/>; fails with the state of all processors when one makes no progress.</summary>
    public void Watch(Func<bool> over)
    {
        var rounds = new ulong[guest.Processors];
        var since = new long[guest.Processors];
        Array.Fill(since, Stopwatch.GetTimestamp());
        while (!over())
        {
            Thread.Sleep(5);
            lock (_unexpected) _unexpected.Should().BeEmpty();
            bool stopping = guest.IsStopping(memory.Span);
            for (int i = 0; i < rounds.Length; i++)
            {
                ulong now = guest.RoundsOf(memory.Span, i);
                if (now != rounds[i] || (stopping && guest.HasStopped(memory.Span, i))) (rounds[i], since[i]) = (now, Stopwatch.GetTimestamp());
                else if (Stopwatch.GetElapsedTime(since[i]) > Patience) throw new Xunit.Sdk.XunitException(Stuck(i));
            }
        }
    }

    /// <summary>Lets the processors finish, and checks that nothing was lost.</summary>
    public SmpFigures Finish(bool restored = false)
    {
        SmpGuest.RequestStop(memory.Span);
        Watch(() => guest.IsDone(memory.Span));
        Pause();
        guest.Faults(memory.Span, restored).Should().BeEmpty();
        return guest.Figures(memory.Span);
    }

    private void Loop(Vcpu vcpu)
    {
        try
        {
            while (!Volatile.Read(ref _over))
            {
                VcpuExit exit = vcpu.Run();
                if (exit.Interrupted) continue;
                string more = exit.Reason == Uapi.KVM_EXIT_INTERNAL_ERROR ? $", suberror {exit.Page.@internal.suberror}" : "";
                lock (_unexpected) _unexpected.Add($"vCPU {vcpu.Id}: {exit.ReasonName}{more} at rip {vcpu.Regs.rip:x}");
                return;
            }
        }
        catch (Exception e)
        {
            lock (_unexpected) _unexpected.Add($"vCPU {vcpu.Id}: {e}");
        }
    }

    /// <summary>What the guest says of each processor first; then they are stopped, and what the kernel says.</summary>
    private string Stuck(int who)
    {
        var text = new StringBuilder($"processor {who} makes no progress:\n");
        for (int i = 0; i < guest.Processors; i++) text.AppendLine($"{i,3}: {guest.Describe(memory.Span, i)}");
        Volatile.Write(ref _over, true);
        foreach (Vcpu vcpu in vcpus) vcpu.Kick();
        Thread.Sleep(500);
        foreach (Vcpu vcpu in vcpus)
        {
            if (_threads[(int)vcpu.Id].IsAlive)
            {
                text.AppendLine($"{vcpu.Id,3}: does not leave KVM_RUN");
                continue;
            }

            kvm_regs r = vcpu.Regs;
            text.AppendLine($"{vcpu.Id,3}: rip {r.rip:x} rflags {r.rflags:x} mp_state {vcpu.MpState} IRR {Vectors(vcpu, 0x200)} ISR {Vectors(vcpu, 0x100)} " +
                            $"LVTT {Register(vcpu, 0x320):x} TMICT {Register(vcpu, 0x380):x} deadline {vcpu.GetMsr(0x6e0):x} tsc {vcpu.GetMsr(0x10):x} " +
                            $"injected {vcpu.VcpuEvents.interrupt.injected}/{vcpu.VcpuEvents.interrupt.nr:x} nmi {vcpu.VcpuEvents.nmi.pending}/{vcpu.VcpuEvents.nmi.injected}/{vcpu.VcpuEvents.nmi.masked}");
        }

        return text.ToString();
    }

    /// <summary>With posted interrupts in IRR: KVM_GET_LAPIC takes them in.</summary>
    private static string Vectors(Vcpu vcpu, int register)
    {
        IEnumerable<string> set = Enumerable.Range(0, 256).Where(v => (Register(vcpu, register + v / 32 * 16) >> v % 32 & 1) != 0).Select(static v => $"{v:x}");
        return $"[{string.Join(' ', set)}]";
    }

    private static unsafe uint Register(Vcpu vcpu, int offset)
    {
        kvm_lapic_state state = vcpu.Lapic;
        return *(uint*)((byte*)&state + offset);
    }
}

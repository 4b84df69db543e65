using Kvm.Abi;
using Kvm.Core.Tracing;

namespace Kvm.Core;

/// <remarks>
/// Cross calls. A call to an idle CPU is executed by the sender, who holds that CPU meanwhile; a call to an occupied CPU is queued with an interrupt and executed
/// by the occupant at its next safe point. A waiting sender services its own queue, so crossing calls can't deadlock.
/// </remarks>
public sealed partial class Host
{
    /// <summary>
    /// Runs the function on one CPU. 0, or -ENXIO when the CPU is offline or does not exist. With <paramref name="wait"/> it has run on return.
    /// </summary>
    [KernelFunction("smp_call_function_single", File = "kernel/smp.c")]
    public KvmResult SmpCallFunctionSingle(int cpu, Action<object?> function, object? argument = null, bool wait = true)
    {
        using KernelScope scope = EnterKernel();
        using var _ = FunctionTrace.Enter("smp_call_function_single");
        if ((uint)cpu >= (uint)Cpus.Count || !Cpus[cpu].Online) return Errno.ENXIO;
        HostTask task = scope.Task;
        task.PreemptCount++;
        try
        {
            HostCpu target = Cpus[cpu];
            if (target == task.Cpu)
            {
                RunLocal(task, function, argument);
                return 0;
            }

            var call = new CpuCall(function, argument);
            target.Enqueue(call);
            Poke(task, target);
            if (!wait) return 0;
            bool ran = WaitFor(task, target, call);
            if (call.Error is { } e) throw new InvalidOperationException("A cross call threw.", e);
            return ran ? 0 : Errno.ENXIO;
        }
        finally
        {
            task.PreemptCount--;
        }
    }

    /// <summary>Runs the function on every online CPU; with <paramref name="wait"/> all have run on return.</summary>
    [KernelFunction("on_each_cpu_cond_mask", File = "kernel/smp.c")]
    public void OnEachCpu(Action<object?> function, object? argument = null, bool wait = true) =>
        OnEachCpu(_ => true, function, argument, wait);

    /// <summary>on_each_cpu_mask: every online CPU of the mask.</summary>
    public void OnEachCpuMask(CpuMask mask, Action<object?> function, object? argument = null, bool wait = true) =>
        OnEachCpu(cpu => mask.Test(cpu.Id), function, argument, wait);

    /// <summary>smp_call_function_many: every online CPU of the mask but this one.</summary>
    [KernelFunction("smp_call_function_many_cond", File = "kernel/smp.c")]
    public void SmpCallFunctionMany(CpuMask mask, Action<object?> function, object? argument = null, bool wait = true)
    {
        using KernelScope scope = EnterKernel();
        scope.Task.PreemptCount++;
        try
        {
            CallMany(scope.Task, c => mask.Test(c.Id), function, argument, wait, local: false);
        }
        finally
        {
            scope.Task.PreemptCount--;
        }
    }

    private void OnEachCpu(Func<HostCpu, bool> condition, Action<object?> function, object? argument, bool wait)
    {
        using KernelScope scope = EnterKernel();
        using var _ = FunctionTrace.Enter("on_each_cpu_cond_mask");
        scope.Task.PreemptCount++;
        try
        {
            CallMany(scope.Task, condition, function, argument, wait, local: true);
        }
        finally
        {
            scope.Task.PreemptCount--;
        }
    }

    private void CallMany(HostTask task, Func<HostCpu, bool> condition, Action<object?> function, object? argument, bool wait, bool local)
    {
        List<(HostCpu Cpu, CpuCall Call)>? calls = null;
        HostCpu me = task.Cpu!;
        bool here = local && condition(me);
        using (FunctionTrace.Enter("smp_call_function_many_cond"))
        {
            foreach (HostCpu cpu in Cpus)
            {
                if (cpu == me || !cpu.Online || !condition(cpu)) continue;
                var call = new CpuCall(function, argument);
                (calls ??= []).Add((cpu, call));
                cpu.Enqueue(call);
            }

            if (here) RunLocal(task, function, argument);
            if (calls is null) return;
            foreach (var (cpu, _) in calls) Poke(task, cpu);
            if (!wait) return;
            foreach (var (cpu, call) in calls) WaitFor(task, cpu, call);
        }

        if (calls.Select(c => c.Call.Error).FirstOrDefault(e => e is not null) is { } error)
            throw new InvalidOperationException("A cross call threw.", error);
    }

    private static void RunLocal(HostTask task, Action<object?> function, object? argument)
    {
        task.IrqDepth++;
        try
        {
            function(argument);
        }
        finally
        {
            task.IrqDepth--;
            if (task.IrqDepth == 0) task.Cpu?.ServiceInterrupts();
        }
    }

    private bool WaitFor(HostTask task, HostCpu target, CpuCall call)
    {
        var spin = new SpinWait();
        int rounds = 0;
        while (!call.Done)
        {
            task.Cpu!.ServiceInterrupts();
            if (!target.Online && call.Cancel()) return false;
            if (target.Occupant is null) Poke(task, target);
            if (call.Done) break;
            spin.SpinOnce(rounds++ < 2000 ? -1 : 20); // a guest needs microseconds to exit; do not sleep a millisecond for it
        }

        return true;
    }

    /// <summary>If the target is idle, runs its queue on its behalf: this thread is that CPU for the moment.</summary>
    private void Poke(HostTask task, HostCpu target)
    {
        if (!target.HasCalls || !target.TryOccupy(task)) return;
        RunAs(task, target);
        ReleaseOccupied(target);
    }

    /// <summary>The CPU was left with work queued: the leaver runs it, unless someone else came first.</summary>
    private void RunOnIdle(HostCpu cpu)
    {
        HostTask task = HostTask.Current;
        while (cpu.HasCalls && cpu.TryOccupy(task))
        {
            RunAs(task, cpu);
            cpu.Vacate();
        }
    }

    private static void RunAs(HostTask task, HostCpu cpu)
    {
        HostCpu? own = task.Cpu;
        task.Cpu = cpu;
        task.IrqDepth++;
        try
        {
            using (FunctionTrace.OnOtherCpu(cpu))
            {
                if (cpu.Hardware is { } hw)
                {
                    int vector;
                    while ((vector = hw.AcknowledgeInterrupt()) >= 0) cpu.HandleInterrupt((byte)vector);
                }

                cpu.RunCalls();
            }
        }
        finally
        {
            task.IrqDepth--;
            task.Cpu = own;
        }
    }
}

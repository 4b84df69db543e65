namespace Kvm.Core;

/// <summary>
/// A kernel thread that works off a queue (kthread_worker, workqueue). It occupies no CPU of the host, so that guests which keep all CPUs busy do not delay it.
/// The thread exists from the first work on.
/// </summary>
public sealed class HostWorker : IDisposable
{
    private readonly object _gate = new();
    private readonly Queue<HostWork> _queue = new();
    private readonly string _name;
    private HostWork? _running;
    private Thread? _thread;
    private bool _stop;

    /// <summary>kthread_create_worker.</summary>
    public HostWorker(string name) => _name = name;

    /// <summary>queue_work, kthread_queue_work: false when the work waits already.</summary>
    [Tracing.KernelFunction("kthread_queue_work", File = "kernel/kthread.c")]
    public bool Queue(HostWork work)
    {
        lock (_gate)
        {
            if (work.Pending || _stop) return false;
            work.Pending = true;
            _queue.Enqueue(work);
            if (_thread is null)
            {
                _thread = new Thread(Loop) { IsBackground = true, Name = _name };
                _thread.Start();
            }
            else
            {
                Monitor.PulseAll(_gate);
            }

            return true;
        }
    }

    /// <summary>flush_work, kthread_flush_work: every run that was asked for has ended. May sleep; not from the work itself.</summary>
    [Tracing.KernelFunction("kthread_flush_work", File = "kernel/kthread.c")]
    public void Flush(HostWork work)
    {
        Tracing.FunctionTrace.Leaf("kthread_flush_work");
        lock (_gate)
        {
            if (!work.Pending && _running != work) return;
        }

        HostTask task = HostTask.Current;
        bool leave = task.Cpu is not null && task.PreemptCount == 0 && task.IrqDepth == 0;
        if (leave) task.LeaveCpu(preempted: false);
        Await(work);
        if (leave) task.ReturnToCpu();
    }

    /// <summary>Waits for the runs that were asked for; the caller has no CPU.</summary>
    internal void Await(HostWork work)
    {
        lock (_gate)
        {
            while (work.Pending || _running == work) Monitor.Wait(_gate);
        }
    }

    /// <summary>kthread_destroy_worker: works off what waits and ends the thread.</summary>
    public void Dispose()
    {
        lock (_gate)
        {
            _stop = true;
            Monitor.PulseAll(_gate);
        }

        if (_thread is null) return;
        HostTask task = HostTask.Current;
        bool leave = task.Cpu is not null && task.PreemptCount == 0 && task.IrqDepth == 0;
        if (leave) task.LeaveCpu(preempted: false);
        _thread.Join();
        if (leave) task.ReturnToCpu();
    }

    private void Loop()
    {
        lock (_gate)
        {
            for (; ; )
            {
                while (!_queue.TryDequeue(out _running))
                {
                    if (_stop) return;
                    Monitor.Wait(_gate);
                }

                _running.Pending = false;
                Monitor.Exit(_gate);
                try
                {
                    _running.Run();
                }
                finally
                {
                    Monitor.Enter(_gate);
                }

                _running = null;
                Monitor.PulseAll(_gate);
            }
        }
    }
}

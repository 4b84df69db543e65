namespace Kvm.Core.Tests;

public sealed class schedule_work : IDisposable
{
    private readonly Host _host = new(new HostOptions { CpuCount = 1 });

    public void Dispose() => _host.Dispose();

    /// <summary>On Linux the worker has the CPU before the program that made the call goes on.</summary>
    [Fact]
    public void Is_done_when_the_system_call_that_left_it_returns()
    {
        var order = new List<string>();
        var first = new HostWork(() => Slowly(order, "first"));
        var second = new HostWork(() => Slowly(order, "second"));
        using (_host.EnterKernel())
        {
            using (_host.EnterKernel())
            {
                _host.ScheduleWork(first);
                _host.ScheduleWork(second);
            }

            lock (order) order.Add("call");
        }

        order.Should().Equal("call", "first", "second");
    }

    /// <summary>A call that leaves no work waits for none.</summary>
    [Fact]
    public void Delays_no_other_call()
    {
        using var goOn = new ManualResetEventSlim();
        var work = new HostWork(goOn.Wait);
        Thread caller = TestHost.Start(() =>
        {
            using (_host.EnterKernel()) _host.ScheduleWork(work);
        });
        caller.Join(50).Should().BeFalse("its work is not done");
        using (_host.EnterKernel())
        {
        }

        goOn.Set();
        TestHost.Join(caller);
    }

    private static void Slowly(List<string> order, string name)
    {
        Thread.Sleep(30);
        lock (order) order.Add(name);
    }
}

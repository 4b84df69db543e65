namespace Kvm.Core.Tests;

public sealed class hrtimer_ : IDisposable
{
    private readonly Host _host = new(new HostOptions { CpuCount = 1 });
    private readonly ManualResetEventSlim _running = new(), _goOn = new();

    public void Dispose()
    {
        _goOn.Set();
        _host.Dispose();
        _running.Dispose();
        _goOn.Dispose();
    }

    /// <summary>hrtimer_cancel waits for the function; a timer that has fired and was not started again was not waiting.</summary>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Cancel_while_the_function_runs_says_whether_the_timer_would_have_waited_again(bool again)
    {
        int runs = 0;
        HrTimer? timer = null;
        timer = new HrTimer(_host, () =>
        {
            Interlocked.Increment(ref runs);
            _running.Set();
            _goOn.Wait();
            timer!.Expires = _host.KtimeNs;
            return again;
        });
        timer.Start(_host.KtimeNs);
        _running.Wait();
        bool? was = null;
        Thread canceller = TestHost.Start(() => was = timer.Cancel());
        Thread.Sleep(20);
        was.Should().BeNull("the function is running");
        _goOn.Set();
        TestHost.Join(canceller);
        was.Should().Be(again);
        timer.Active.Should().BeFalse();
        Thread.Sleep(20);
        runs.Should().Be(1);
    }

    [Fact]
    public void Cancel_says_whether_the_timer_was_waiting()
    {
        var timer = new HrTimer(_host, () =>
        {
            _running.Set();
            return false;
        });
        timer.Start(_host.KtimeNs + 1_000_000_000_000);
        timer.Cancel().Should().BeTrue();
        timer.Cancel().Should().BeFalse();
        timer.Start(_host.KtimeNs);
        _running.Wait();
        TestHost.Await(() => !timer.Active);
        timer.Cancel().Should().BeFalse();
    }
}

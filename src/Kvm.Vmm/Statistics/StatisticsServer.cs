using System.Net.Sockets;
using System.Text.Json;
using Kvm.Client;
using static Kvm.Abi.Uapi;

namespace Kvm.Vmm.Statistics;

/// <summary>Tells a guest's counters to whoever asks through its socket in <see cref="GuestDirectory"/>: each connection gets one <see cref="GuestSnapshot"/> as JSON.</summary>
public sealed class StatisticsServer : IDisposable
{
    private static int s_count;

    private readonly Pc _pc;
    private readonly string _name, _backend, _file;
    private readonly Socket _socket;
    private readonly KvmStatistics _vm;
    private readonly List<KvmStatistics> _vcpus = [];
    private readonly Task _serving;

    /// <param name="pc">The guest; it does not run yet.</param>
    /// <param name="name">What its user calls it.</param>
    /// <param name="backend">The kernel that runs it.</param>
    /// <exception cref="IOException">There is no place for the socket.</exception>
    /// <exception cref="UnauthorizedAccessException">There is no place for the socket.</exception>
    /// <exception cref="KvmException">The kernel has no statistics.</exception>
    public StatisticsServer(Pc pc, string name, string backend)
    {
        ArgumentNullException.ThrowIfNull(pc);
        (_pc, _name, _backend) = (pc, name, backend);
        (_socket, _file) = GuestDirectory.Listen(Interlocked.Increment(ref s_count));
        try
        {
            _vm = pc.Vm.OpenStatistics();
            foreach (VcpuLoop loop in pc.Loops) _vcpus.Add(loop.Vcpu.OpenStatistics());
        }
        catch
        {
            Close();
            throw;
        }

        _serving = ServeAsync();
    }

    /// <summary>The counters of now.</summary>
    public GuestSnapshot Read() => new(Environment.ProcessId, _name, _backend, _pc.Ram.Size, (long)(TimeProvider.System.GetElapsedTime(0).TotalMilliseconds * 1e6), _vm.Read(),
    [
        .. _pc.Loops.Zip(_vcpus, (loop, statistics) => new VcpuSnapshot(loop.Vcpu.Id, statistics.Read(), loop.ExitsByReason.ToDictionary(e => ExitNames.Of(e.Key), e => e.Value))),
    ]);

    /// <summary>Takes the socket away. Before the VM goes.</summary>
    public void Dispose()
    {
        _socket.Dispose();
        _serving.Wait();
        Close();
    }

    private void Close()
    {
        _socket.Dispose();
        File.Delete(_file);
        foreach (KvmStatistics vcpu in _vcpus) vcpu.Dispose();
        _vm?.Dispose();
    }

    private async Task ServeAsync()
    {
        while (true)
        {
            try
            {
                using Socket client = await _socket.AcceptAsync().ConfigureAwait(false);
                byte[] answer = JsonSerializer.SerializeToUtf8Bytes(Read());
                await client.SendAsync(answer).ConfigureAwait(false);
            }
            catch (SocketException) when (_socket.SafeHandle.IsClosed)
            {
                return;
            }
            catch (ObjectDisposedException)
            {
                return;
            }
            catch (SocketException)
            {
                // This client went away without its answer.
            }
        }
    }
}

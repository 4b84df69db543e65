using System.Collections;
using System.Runtime.CompilerServices;

namespace Kvm.Core;

/// <summary>
/// The ioctls of one kind of file, in number order. Rows are added once, at start; the order is checked. Copying and -EFAULT are done here, never in a handler
/// (except in <see cref="IoctlPtr{TTarget,T}"/> rows, whose signature says so).
/// </summary>
/// <remarks>Dispatch is on the full 32-bit request, as the kernel's <c>switch (ioctl)</c>.</remarks>
public sealed class IoctlTable<TTarget> : IEnumerable<IoctlRow<TTarget>>
{
    private readonly List<IoctlRow<TTarget>> _rows = [];
    private readonly Dictionary<uint, IoctlRow<TTarget>> _byRequest = [];

    /// <summary>The rows in the order in which they were added.</summary>
    public IReadOnlyList<IoctlRow<TTarget>> Rows => _rows;

    /// <summary>The row of a request, or null.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public IoctlRow<TTarget>? Find(uint request) => _byRequest.TryGetValue(request, out var row) ? row : null;

    /// <summary>Runs the request's handler, or returns <paramref name="unknown"/>.</summary>
    public KvmResult Dispatch(TTarget target, uint request, ulong arg, KvmResult unknown) =>
        _byRequest.TryGetValue(request, out var row) ? row.Invoke(target, arg) : unknown;

    /// <summary>A row whose handler takes the argument by value.</summary>
    public void Add(uint request, string name, IoctlValue<TTarget> handler) => AddRow(new(request, name, handler));

    /// <summary>A row whose handler takes no argument.</summary>
    public void Add(uint request, string name, Func<TTarget, KvmResult> handler) => AddRow(new(request, name, (t, _) => handler(t)));

    /// <summary>A row that copies <typeparamref name="T"/> in.</summary>
    public void AddIn<T>(uint request, string name, IoctlIn<TTarget, T> handler) where T : unmanaged =>
        AddRow(new(request, name, (target, arg) =>
        {
            T value = default;
            if (!new UserPtr<T>(arg).Read(out value)) return Abi.Errno.EFAULT;
            return handler(target, in value);
        }));

    /// <summary>A row that copies <typeparamref name="T"/> out after success.</summary>
    public void AddOut<T>(uint request, string name, IoctlOut<TTarget, T> handler) where T : unmanaged =>
        AddRow(new(request, name, (target, arg) =>
        {
            T value = default;
            KvmResult r = handler(target, ref value);
            if (r.IsError) return r;
            return new UserPtr<T>(arg).Write(in value) ? r : Abi.Errno.EFAULT;
        }));

    /// <summary>A row that copies <typeparamref name="T"/> in, and out after success.</summary>
    public void AddRef<T>(uint request, string name, IoctlRef<TTarget, T> handler) where T : unmanaged =>
        AddRow(new(request, name, (target, arg) =>
        {
            var argp = new UserPtr<T>(arg);
            if (!argp.Read(out T value)) return Abi.Errno.EFAULT;
            KvmResult r = handler(target, ref value);
            if (r.IsError) return r;
            return argp.Write(in value) ? r : Abi.Errno.EFAULT;
        }));

    /// <summary>A row whose handler copies by itself.</summary>
    public void AddPtr<T>(uint request, string name, IoctlPtr<TTarget, T> handler) where T : unmanaged =>
        AddRow(new(request, name, (target, arg) => handler(target, new UserPtr<T>(arg))));

    public IEnumerator<IoctlRow<TTarget>> GetEnumerator() => _rows.GetEnumerator();
    IEnumerator IEnumerable.GetEnumerator() => GetEnumerator();

    private void AddRow(IoctlRow<TTarget> row)
    {
        if (_rows.Count > 0 && _rows[^1].Number > row.Number)
            throw new ArgumentException($"{row.Name} is out of number order after {_rows[^1].Name}.");
        _byRequest.Add(row.Request, row);
        _rows.Add(row);
    }
}

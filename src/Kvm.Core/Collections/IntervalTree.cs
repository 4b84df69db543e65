namespace Kvm.Collections;

/// <summary>
/// Intervals with values, ordered by their first element and, where that is the same, by a key of the caller's: a balanced tree that never changes. A changed
/// tree is a new one that shares all but the way to the change, so readers of the old one take no lock.
/// </summary>
/// <remarks>Search, addition and removal take logarithmic time. Each node knows the greatest last element below it: intervals may overlap.</remarks>
internal sealed class IntervalTree<T> where T : class
{
    public static readonly IntervalTree<T> Empty = new(null, 0);

    private readonly Node? _root;

    private IntervalTree(Node? root, int count)
    {
        _root = root;
        Count = count;
    }

    public int Count { get; }

    /// <summary>Intervals on the longest way down.</summary>
    public int Height => HeightOf(_root);

    /// <summary>The tree with one more interval, [<paramref name="start"/>, <paramref name="last"/>]. Its start and key together must be new.</summary>
    public IntervalTree<T> Add(ulong start, ulong last, T value, ulong key = 0) => new(Insert(_root, new Node(start, last, key, value, null, null)), Count + 1);

    /// <summary>The tree without the interval of that start and key, or this tree when there is none.</summary>
    public IntervalTree<T> Remove(ulong start, ulong key = 0)
    {
        bool found = false;
        Node? root = Delete(_root, start, key, ref found);
        return found ? new(root, Count - 1) : this;
    }

    /// <summary>The value of the last interval that begins at or before <paramref name="point"/>; null when all begin later.</summary>
    public T? Floor(ulong point)
    {
        T? best = null;
        for (Node? node = _root; node is not null;)
        {
            if (node.Start <= point)
            {
                best = node.Value;
                node = node.Right;
            }
            else
            {
                node = node.Left;
            }
        }

        return best;
    }

    /// <summary>The value of the first interval; null when there is none.</summary>
    public T? First
    {
        get
        {
            Node? node = _root;
            while (node?.Left is not null) node = node.Left;
            return node?.Value;
        }
    }

    /// <summary>The value of an interval that contains <paramref name="point"/>, of a tree whose intervals do not overlap; null when none does.</summary>
    public T? Find(ulong point)
    {
        for (Node? node = _root; node is not null; node = point < node.Start ? node.Left : node.Right)
        {
            if (point - node.Start <= node.Last - node.Start) return node.Value;
        }

        return null;
    }

    /// <summary>The values of the intervals that have an element in [<paramref name="start"/>, <paramref name="last"/>], in order. Allocates nothing.</summary>
    public Query Overlapping(ulong start, ulong last) => new(_root, start, last);

    /// <summary>All values, in order.</summary>
    public Query All => new(_root, 0, ulong.MaxValue);

    /// <summary>An enumeration of intervals that meet a range.</summary>
    public struct Query
    {
        private readonly Node? _root;
        private readonly ulong _start, _last;
        private Node? _at;

        internal Query(Node? root, ulong start, ulong last) => (_root, _start, _last) = (root, start, last);

        public readonly T Current => _at!.Value;

        public readonly Query GetEnumerator() => this;

        public bool MoveNext()
        {
            _at = Next(_root, _at);
            return _at is not null;
        }

        /// <summary>The first that meets the range behind <paramref name="after"/>. Subtrees that end before the range, or begin behind it, are not entered.</summary>
        private readonly Node? Next(Node? node, Node? after)
        {
            while (node is not null && node.Greatest >= _start)
            {
                if (after is null || Compare(after.Start, after.Key, node) < 0)
                {
                    if (Next(node.Left, after) is { } left) return left;
                    if (node.Start > _last) return null;
                    if (node.Last >= _start) return node;
                }

                node = node.Right;
            }

            return null;
        }
    }

    internal sealed class Node
    {
        public readonly ulong Start, Last, Key;
        public readonly ulong Greatest;
        public readonly T Value;
        public readonly Node? Left, Right;
        public readonly int Height;

        public Node(ulong start, ulong last, ulong key, T value, Node? left, Node? right)
        {
            (Start, Last, Key, Value, Left, Right) = (start, last, key, value, left, right);
            Height = 1 + Math.Max(HeightOf(left), HeightOf(right));
            Greatest = Math.Max(last, Math.Max(left?.Greatest ?? 0, right?.Greatest ?? 0));
        }

        public Node With(Node? left, Node? right) => new(Start, Last, Key, Value, left, right);
    }

    private static int HeightOf(Node? node) => node?.Height ?? 0;

    private static int Compare(ulong start, ulong key, Node to) => start != to.Start ? start.CompareTo(to.Start) : key.CompareTo(to.Key);

    private static Node Insert(Node? node, Node added)
    {
        if (node is null) return added;
        int order = Compare(added.Start, added.Key, node);
        if (order == 0) throw new InvalidOperationException("BUG: the interval is in the tree.");
        return order < 0 ? Balanced(node, Insert(node.Left, added), node.Right) : Balanced(node, node.Left, Insert(node.Right, added));
    }

    private static Node? Delete(Node? node, ulong start, ulong key, ref bool found)
    {
        if (node is null) return null;
        int order = Compare(start, key, node);
        if (order < 0)
        {
            Node? left = Delete(node.Left, start, key, ref found);
            return found ? Balanced(node, left, node.Right) : node;
        }

        if (order > 0)
        {
            Node? right = Delete(node.Right, start, key, ref found);
            return found ? Balanced(node, node.Left, right) : node;
        }

        found = true;
        if (node.Left is null) return node.Right;
        if (node.Right is null) return node.Left;
        Node? rest = WithoutFirst(node.Right, out Node first);
        return Balanced(first, node.Left, rest);
    }

    private static Node? WithoutFirst(Node node, out Node first)
    {
        if (node.Left is null)
        {
            first = node;
            return node.Right;
        }

        return Balanced(node, WithoutFirst(node.Left, out first), node.Right);
    }

    /// <summary><paramref name="middle"/> with other children, whose heights differ by two at most.</summary>
    private static Node Balanced(Node middle, Node? left, Node? right)
    {
        int balance = HeightOf(left) - HeightOf(right);
        if (balance > 1)
        {
            return HeightOf(left!.Left) >= HeightOf(left.Right)
                ? left.With(left.Left, middle.With(left.Right, right))
                : left.Right!.With(left.With(left.Left, left.Right.Left), middle.With(left.Right.Right, right));
        }

        if (balance < -1)
        {
            return HeightOf(right!.Right) >= HeightOf(right.Left)
                ? right.With(middle.With(left, right.Left), right.Right)
                : right.Left!.With(middle.With(left, right.Left.Left), right.With(right.Left.Right, right.Right));
        }

        return middle.With(left, right);
    }
}

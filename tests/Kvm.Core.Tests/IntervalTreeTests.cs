using FluentAssertions;
using Kvm.Collections;
using Xunit;

namespace Kvm.Core.Tests;

/// <summary>Intervals in a tree that never changes: against a list that is searched through.</summary>
public class IntervalTreeTests
{
    private sealed record Interval(ulong Start, ulong Last, ulong Key);

    [Fact]
    public void Random_intervals_are_found_as_in_a_list()
    {
        var random = new Random(7);
        var list = new List<Interval>();
        IntervalTree<Interval> tree = IntervalTree<Interval>.Empty;
        for (int step = 0; step < 4000; step++)
        {
            if (list.Count > 0 && random.Next(5) < 2)
            {
                Interval gone = list[random.Next(list.Count)];
                list.Remove(gone);
                tree = tree.Remove(gone.Start, gone.Key);
            }
            else
            {
                ulong start = (ulong)random.Next(300);
                var added = new Interval(start, start + (ulong)random.Next(20), (ulong)step);
                list.Add(added);
                tree = tree.Add(added.Start, added.Last, added, added.Key);
            }

            if (step % 10 != 0) continue;
            tree.Count.Should().Be(list.Count);
            ulong from = (ulong)random.Next(320), to = from + (ulong)random.Next(30);
            Values(tree.Overlapping(from, to)).Should().Equal(list.Where(i => i.Start <= to && i.Last >= from).OrderBy(i => i.Start).ThenBy(i => i.Key));
            Values(tree.All).Should().Equal(list.OrderBy(i => i.Start).ThenBy(i => i.Key));
            tree.Floor(from).Should().Be(list.Where(i => i.Start <= from).OrderBy(i => i.Start).ThenBy(i => i.Key).LastOrDefault());
            tree.First.Should().Be(list.OrderBy(i => i.Start).ThenBy(i => i.Key).FirstOrDefault());
        }
    }

    [Fact]
    public void Without_overlaps_a_point_has_one_interval_or_none()
    {
        IntervalTree<Interval> tree = IntervalTree<Interval>.Empty;
        foreach (ulong start in new ulong[] { 100, 0, 50, ulong.MaxValue - 9 }) tree = tree.Add(start, start + 9, new Interval(start, start + 9, 0));
        tree.Find(0)!.Start.Should().Be(0);
        tree.Find(9)!.Start.Should().Be(0);
        tree.Find(10).Should().BeNull();
        tree.Find(49).Should().BeNull();
        tree.Find(109)!.Start.Should().Be(100);
        tree.Find(110).Should().BeNull();
        tree.Find(ulong.MaxValue)!.Last.Should().Be(ulong.MaxValue);
    }

    [Fact]
    public void A_tree_stays_as_it_was_when_another_is_made_of_it()
    {
        var one = new Interval(1, 2, 0);
        IntervalTree<Interval> before = IntervalTree<Interval>.Empty.Add(1, 2, one);
        IntervalTree<Interval> after = before.Remove(1).Add(5, 6, new Interval(5, 6, 0));
        before.Find(1).Should().BeSameAs(one);
        before.Find(5).Should().BeNull();
        after.Find(1).Should().BeNull();
        before.Remove(5).Should().BeSameAs(before);
    }

    /// <summary>Ascending, descending and random order, with half of them taken away again: at most 1.45 steps where a perfect tree has one.</summary>
    [Theory]
    [InlineData("ascending")]
    [InlineData("descending")]
    [InlineData("random")]
    public void The_way_down_is_logarithmic(string order)
    {
        const int count = 20_000;
        int[] keys = [.. Enumerable.Range(0, count)];
        if (order == "descending") Array.Reverse(keys);
        if (order == "random") new Random(3).Shuffle(keys);
        IntervalTree<Interval> tree = IntervalTree<Interval>.Empty;
        foreach (int key in keys) tree = tree.Add((ulong)key, (ulong)key, new Interval((ulong)key, (ulong)key, 0));
        tree.Height.Should().BeLessThanOrEqualTo((int)(1.45 * Math.Log2(count + 2)));
        foreach (int key in keys.Where(k => k < count / 2)) tree = tree.Remove((ulong)key);
        tree.Count.Should().Be(count / 2);
        tree.Height.Should().BeLessThanOrEqualTo((int)(1.45 * Math.Log2(count / 2 + 2)));
    }

    [Fact]
    public void Enumeration_allocates_nothing()
    {
        IntervalTree<Interval> tree = IntervalTree<Interval>.Empty;
        for (ulong i = 0; i < 1000; i++) tree = tree.Add(i, i, new Interval(i, i, 0));
        Sum(tree); // compiled
        long before = GC.GetAllocatedBytesForCurrentThread();
        ulong sum = Sum(tree);
        (GC.GetAllocatedBytesForCurrentThread() - before).Should().Be(0);
        sum.Should().Be(999 * 1000 / 2);
    }

    private static ulong Sum(IntervalTree<Interval> tree)
    {
        ulong sum = 0;
        foreach (Interval i in tree.Overlapping(0, 2000)) sum += i.Start;
        return sum;
    }

    private static List<Interval> Values(IntervalTree<Interval>.Query query)
    {
        var list = new List<Interval>();
        foreach (Interval i in query) list.Add(i);
        return list;
    }
}

namespace Kvm.Abi.Tests;

public class ErrnoTests
{
    [Theory]
    [InlineData(Errno.EPERM, 1)]
    [InlineData(Errno.EINTR, 4)]
    [InlineData(Errno.E2BIG, 7)]
    [InlineData(Errno.EBADF, 9)]
    [InlineData(Errno.EAGAIN, 11)]
    [InlineData(Errno.ENOMEM, 12)]
    [InlineData(Errno.EFAULT, 14)]
    [InlineData(Errno.EBUSY, 16)]
    [InlineData(Errno.EEXIST, 17)]
    [InlineData(Errno.EINVAL, 22)]
    [InlineData(Errno.EMFILE, 24)]
    [InlineData(Errno.ENOTTY, 25)]
    [InlineData(Errno.ENOSYS, 38)]
    [InlineData(Errno.EOPNOTSUPP, 95)]
    [InlineData(Errno.EHWPOISON, 133)]
    [InlineData(Errno.ERESTARTSYS, 512)]
    [InlineData(Errno.ENOTSUPP, 524)]
    public void Has_linux_s_number(Errno errno, int number) => ((int)errno).Should().Be(number);

    [Fact]
    public void Every_number_has_one_name()
    {
        Enum.GetValues<Errno>().Should().OnlyHaveUniqueItems();
        Errno.EAGAIN.ToString().Should().Be("EAGAIN");
        Uapi.EWOULDBLOCK.Should().Be(Errno.EAGAIN);
    }

    /// <summary>1..133 are all taken on x86-64, but for 41 and 58, which were merged into other names.</summary>
    [Fact]
    public void Leaves_only_the_gaps_of_the_header()
    {
        var taken = Enum.GetValues<Errno>().Select(e => (int)e).ToHashSet();
        Enumerable.Range(1, 133).Where(n => !taken.Contains(n)).Should().Equal(41, 58);
    }
}

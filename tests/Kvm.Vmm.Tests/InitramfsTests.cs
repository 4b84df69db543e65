using System.Text;
using Kvm.Vmm.Boot;

namespace Kvm.Vmm.Tests;

/// <summary>The cpio "newc" format.</summary>
public class InitramfsTests
{
    [Fact]
    public void Archive_is_header_name_and_content_each_padded_to_four_bytes()
    {
        byte[] archive = new Initramfs().AddDirectory("dev").AddFile("init", "abcde"u8).ToArray();
        string text = Encoding.ASCII.GetString(archive);
        text.Should().Be(
            "070701" + "00000001" + "000041ed" + Zeroes(2) + "00000001" + Zeroes(6) + "00000004" + Zeroes(1) + "dev\0" + "\0\0" +
            "070701" + "00000002" + "000081ed" + Zeroes(2) + "00000001" + Zeroes(1) + "00000005" + Zeroes(4) + "00000005" + Zeroes(1) + "init\0" + "\0" + "abcde" + "\0\0\0" +
            "070701" + "00000003" + Zeroes(3) + "00000001" + Zeroes(6) + "0000000b" + Zeroes(1) + "TRAILER!!!\0" + "\0\0\0");
        (archive.Length % 4).Should().Be(0);
    }

    [Fact]
    public void Permissions_are_the_caller_s() =>
        Encoding.ASCII.GetString(new Initramfs().AddFile("x", [], UnixFileMode.UserRead).ToArray()).Should().StartWith("070701" + "00000001" + "00008100");

    [Fact]
    public void Files_can_follow_after_the_bytes_were_taken()
    {
        Initramfs files = new Initramfs().AddFile("a", "1"u8);
        byte[] first = files.ToArray();
        files.ToArray().Length.Should().Be(first.Length);
        Encoding.ASCII.GetString(files.AddFile("b", "2"u8).ToArray()).Should().MatchRegex("a\0.*b\0.*TRAILER!!!");
    }

    private static string Zeroes(int fields) => new('0', fields * 8);
}

using System.Text;

namespace Kvm.Tool.Tests;

/// <summary>Ctrl-A and what follows it, on a terminal.</summary>
public class EscapeKeysTests
{
    [Theory]
    [InlineData("ls\r", "ls\r", "")]
    [InlineData("a\u0001ab", "a\u0001b", "")]
    [InlineData("\u0001\u0001", "\u0001", "")]
    [InlineData("\u0001x", "", "quit")]
    [InlineData("\u0001X", "", "quit")]
    [InlineData("a\u0001hb", "ab", "help")]
    [InlineData("a\u0001?b", "ab", "help")]
    [InlineData("a\u0001qb", "ab", "")]
    [InlineData("x\u0003\u001a", "x\u0003\u001a", "")]
    public void Keys_go_to_the_guest_except_after_ctrl_a(string typed, string kept, string said)
    {
        string whole = "", bytewise = "", heard = "";
        var keys = new EscapeKeys(() => heard += "quit", () => heard += "help");
        byte[] all = Encoding.ASCII.GetBytes(typed);
        whole = Encoding.ASCII.GetString(all, 0, keys.Filter(all));
        heard.Should().Be(said);
        foreach (char key in typed) // as a terminal hands them over
        {
            byte[] one = [(byte)key];
            bytewise += Encoding.ASCII.GetString(one, 0, keys.Filter(one));
        }

        whole.Should().Be(kept);
        bytewise.Should().Be(kept);
        heard.Should().Be(said + said);
    }
}

using System.CommandLine;

namespace Kvm.Tool;

/// <summary>The commands and their options.</summary>
internal static class CommandLine
{
    private const string ExitCodes = """


        Exit codes: 0 the guest halted, reset or switched itself off; 2 wrong command line; 3 unusable file; 4 the back end failed;
        5 the guest crashed; 6 the time was up; odd numbers from a guest that wrote v to port 0xf4: (v << 1) | 1.
        """;

    public static RootCommand Build()
    {
        var root = new RootCommand("A software KVM: the Linux 6.1 KVM kernel on emulated Intel and AMD processors, in one process. Without a command: demo." + ExitCodes)
        {
            DemoCommand.Build(),
            RunCommand.Build(),
            TraceCommand.Build(),
            DoctorCommand.Build(),
        };
        root.SetAction(_ => DemoCommand.Run());
        return root;
    }
}

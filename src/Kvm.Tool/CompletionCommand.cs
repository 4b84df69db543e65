using System.CommandLine;

namespace Kvm.Tool;

/// <summary><c>kvm completion SHELL</c>: what makes a shell complete this command's options, with the command itself to ask (System.CommandLine's <c>[suggest]</c>).</summary>
internal static class CompletionCommand
{
    private const string Bash = """
        # eval "$(kvm completion bash)", for instance in ~/.bashrc
        _kvm() {
            local IFS=$'\n'
            COMPREPLY=($(compgen -W "$(kvm "[suggest:${COMP_POINT}]" "${COMP_LINE}" 2> /dev/null)" -- "${COMP_WORDS[COMP_CWORD]}"))
        }
        complete -o default -F _kvm kvm

        """;

    private const string Zsh = """
        # eval "$(kvm completion zsh)", for instance in ~/.zshrc, after compinit
        _kvm() {
            local -a found
            found=("${(@f)$(kvm "[suggest:${CURSOR}]" "${BUFFER}" 2> /dev/null)}")
            compadd -a found || _files
        }
        compdef _kvm kvm

        """;

    private const string Fish = """
        # kvm completion fish | source, for instance in ~/.config/fish/config.fish
        complete -c kvm -a '(kvm "[suggest:"(string length -- (commandline -cp))"]" (commandline -cp) 2> /dev/null)'

        """;

    public static Command Build()
    {
        var shell = new Argument<string>("shell") { Description = "bash, zsh or fish" };
        var command = new Command("completion", "Print what makes a shell complete kvm's commands and options") { shell };
        shell.OneOf("completion", "bash", "zsh", "fish");
        command.SetAction(result =>
        {
            Console.Out.Write(result.GetValue(shell) switch { "bash" => Bash, "zsh" => Zsh, _ => Fish });
            return ExitCode.Success;
        });
        return command;
    }
}

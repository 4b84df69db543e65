using System.CommandLine;
using System.CommandLine.Help;
using System.CommandLine.Invocation;

namespace Kvm.Tool;

/// <summary>The help that follows from the options, then examples and, for the whole command, the exit codes.</summary>
internal sealed class HelpWithMore(HelpAction options) : SynchronousCommandLineAction
{
    private const string Root = """
        Exit codes:
          0    the guest halted, or switched itself off
          2    wrong command line
          3    a file can't be read or written, or is not what it should be
          4    the back end does not work here, or refused a call
          5    the guest crashed
          6    the time of --timeout was up, Ctrl-C, or Ctrl-A x
          8    conformance: answers differ from the recorded ones
          10   the guest reset itself
          odd  (v << 1) | 1 from a guest that wrote v to port 0xf4

        Examples:
          kvm                                        an embedded guest on both vendors
          kvm run --kernel vmlinuz --cpu amd         boots a Linux kernel
          kvm trace create-vm                        the kernel's path through KVM_CREATE_VM
          kvm conformance recorded.jsonl             compares with a recording of a real kernel
          In the source tree, kvm is "dotnet run --project src/Kvm.Tool --".
        """;

    private const string Run = """
        How the kernel is entered:
          A bzImage is entered at the 64-bit entry point, in long mode with page tables that map the first 4 GiB to themselves. --entry 32 enters it in protected mode
          without paging, and --entry 16 at the real-mode setup code, which asks a small BIOS in guest memory for the memory map and switches modes itself.
          A multiboot image is always entered in protected mode.
          Firmware (--firmware) starts where processors do after a reset, 16 bytes below 4 GiB; a kernel is then what the firmware makes of it.

        Examples:
          kvm run --kernel vmlinuz --timeout 60      boots; the kernel panics where it finds no root file system, and resets
          kvm run --kernel vmlinuz --initrd initrd.img --smp 4                     four processors and an initial RAM disk
          kvm run --kernel vmlinuz --backend native  on this host's /dev/kvm
          kvm run --firmware bios-256k.bin --fw-cfg floppyimg/boot=floppy.img      SeaBIOS boots a floppy disk
          kvm run --firmware OVMF_CODE_4M.fd --vars my-vars.fd                     UEFI firmware and its variables
          kvm run --firmware OVMF.fd --kernel vmlinuz                              UEFI firmware starts the kernel
          On a terminal the guest gets every key, and Ctrl-A x ends it (Ctrl-A h for help); otherwise it reads standard input, and Ctrl-C or SIGTERM end it. What the guest prints goes to standard output, everything else to standard error.
        """;

    private const string Trace = """
        Examples:
          kvm trace create-vm --cpu amd              the first VM: virtualization is switched on on both processors
          kvm trace run --fold | less                the first KVM_RUN, without times
        """;

    /// <summary>Help is shown however wrong the rest of the line is.</summary>
    public override bool ClearsParseErrors => true;

    public override int Invoke(ParseResult parseResult)
    {
        int code = options.Invoke(parseResult);
        TextWriter output = parseResult.InvocationConfiguration.Output;
        string? more = parseResult.CommandResult.Command switch { RootCommand => Root, { Name: "run" } => Run, { Name: "trace" } => Trace, _ => null };
        if (more is not null) output.WriteLine(more + Environment.NewLine);
        return code;
    }
}

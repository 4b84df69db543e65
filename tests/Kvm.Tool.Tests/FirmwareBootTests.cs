using Kvm.Client;
using Kvm.Emulator;
using Kvm.Vmm;
using Kvm.Vmm.Boot;
using Xunit.Abstractions;

namespace Kvm.Tool.Tests;

/// <summary>Debian's own firmware and boot programs; see <see cref="DebianFirmware"/> for where they come from and when these tests are skipped.</summary>
public class FirmwareBootTests(ITestOutputHelper output)
{
    private const string MemtestConsole = "console=ttyS0,115200";

    public static TheoryData<string> Cpus => ["intel", "amd"];

    /// <summary>
    /// From the reset vector: SeaBIOS finds the machine, makes tables, boots a floppy disk that fw_cfg holds; GRUB loads itself through INT 13h, shows its menu on the
    /// serial line, prints the BIOS's memory map, and switches the machine off as SeaBIOS's ACPI tables say.
    /// </summary>
    [SkippableTheory, MemberData(nameof(Cpus))]
    public void SeaBIOS_boots_GRUB_from_a_floppy_disk(string cpu)
    {
        string debug = Path.GetTempFileName();
        try
        {
            ToolRun run = ToolRun.Of("run", "--cpu", cpu, "--memory", "64M", "--firmware", DebianFirmware.Path("bios-256k.bin"),
                "--fw-cfg", $"floppyimg/grub={DebianFirmware.Path("grub-floppy.img")}", "--debugcon", debug, "--timeout", "150", "--stats");
            Write(run);
            run.Output.Should().Contain("SeaBIOS (version ").And.Contain("Booting from Floppy...").And.Contain("GRUB loading").And.Contain("GNU GRUB  version ")
                .And.Contain("base_addr = 0x100000, length = 0x").And.Contain("base_addr = 0xfffc0000, length = 0x40000, reserved RAM");
            run.Errors.Should().Contain("guest switched itself off");
            run.ExitCode.Should().Be(ExitCode.Success);
            File.ReadAllText(debug).Should().Contain("Running on QEMU (i440fx)").And.Contain("Running on KVM").And.Contain("Found QEMU fw_cfg")
                .And.Contain("QEMU fw_cfg DMA interface supported").And.Contain("init bdf=00:01.3 id=8086:7113").And.Contain("PS2 keyboard initialized");
        }
        finally
        {
            File.Delete(debug);
        }
    }

    /// <summary>The same from a disk: SeaBIOS's own driver finds the virtio device and reads its sectors.</summary>
    [SkippableTheory, MemberData(nameof(Cpus))]
    public void SeaBIOS_boots_GRUB_from_a_virtio_disk(string cpu)
    {
        string debug = Path.GetTempFileName(), disk = Path.GetTempFileName();
        try
        {
            File.Copy(DebianFirmware.Path("grub-floppy.img"), disk, overwrite: true);
            using (FileStream file = File.OpenWrite(disk)) file.SetLength(16 << 20);
            ToolRun run = ToolRun.Of("run", "--cpu", cpu, "--memory", "64M", "--firmware", DebianFirmware.Path("bios-256k.bin"),
                "--disk", disk + ",ro", "--debugcon", debug, "--timeout", "150", "--stats");
            Write(run);
            run.Output.Should().Contain("Booting from Hard Disk...").And.Contain("GNU GRUB  version ").And.Contain("base_addr = 0x100000, length = 0x");
            run.Errors.Should().Contain("guest switched itself off");
            run.ExitCode.Should().Be(ExitCode.Success);
            File.ReadAllText(debug).Should().Contain("found virtio-blk at 00:02.0").And.Contain("using modern (1.0) virtio mode");
        }
        finally
        {
            File.Delete(debug);
            File.Delete(disk);
        }
    }

    /// <summary>
    /// The same where the processor helps less: real mode in virtual-8086 mode with the kernel's emulator for what that cannot do, and page tables that the kernel shadows.
    /// </summary>
    [SkippableTheory]
    [InlineData(CpuVendor.Intel, "unrestricted_guest")]
    [InlineData(CpuVendor.Intel, "ept")]
    [InlineData(CpuVendor.Amd, "npt")]
    public void SeaBIOS_boots_GRUB_without(CpuVendor vendor, string feature)
    {
        FirmwareImage image = FirmwareImage.Parse(File.ReadAllBytes(DebianFirmware.Path("bios-256k.bin")));
        byte[] floppy = File.ReadAllBytes(DebianFirmware.Path("grub-floppy.img"));
        IKvmBackend backend = KvmBackend.Model(m =>
        {
            m.Vendor = vendor;
            m.ModuleParameters[feature] = "0";
        });
        using var guest = new SerialGuest(backend, new PcOptions { Memory = 64 << 20 }, pc =>
        {
            pc.FwCfg.AddFile("floppyimg/grub", floppy);
            pc.LoadFirmware(image);
        });
        guest.WaitFor(@"SeaBIOS \(version");
        guest.WaitFor("GNU GRUB  version");
        guest.WaitForEnd().Reason.Should().Be(GuestStopReason.PowerOff);
        guest.Text.Should().Contain("base_addr = 0xfffc0000, length = 0x40000, reserved RAM");
    }

    /// <summary>GRUB as a multiboot image, at home in real and protected mode; it loads memtest86+ from its disk in memory and starts it in protected mode.</summary>
    [SkippableTheory, MemberData(nameof(Cpus))]
    public void GRUB_starts_memtest86(string cpu)
    {
        byte[] image = File.ReadAllBytes(DebianFirmware.Path("grub-core.img"));
        using var guest = new SerialGuest(cpu, new PcOptions { Memory = 32 << 20 }, pc => pc.LoadMultiboot(image, "grub"));
        guest.WaitFor(@"GRUB is on the serial line");
        guest.WaitFor(@"\[m\] memtest86\+");
        guest.Send("m");
        guest.WaitFor("GRUB starts memtest86\\+");
        Memtest(guest);
    }

    /// <summary>Started by its 64-bit and its 32-bit entry point it measures the clock with the timer, draws its screen and tests.</summary>
    [SkippableTheory]
    [InlineData("intel", LinuxEntry.Long64)]
    [InlineData("amd", LinuxEntry.Long64)]
    [InlineData("amd", LinuxEntry.Protected32)]
    public void Memtest86_tests_memory(string cpu, LinuxEntry entry)
    {
        BzImage image = BzImage.Parse(File.ReadAllBytes(DebianFirmware.Path("memtest86+x64.bin")));
        using var guest = new SerialGuest(cpu, new PcOptions { Memory = 16 << 20 }, pc => pc.LoadLinux(image, entry, MemtestConsole));
        Memtest(guest).Should().Contain("16MB");
    }

    /// <summary>
    /// The whole path: SEC, PEI, DXE, the boot manager, and the shell that is in the image. It lives from the local APIC's timer; it takes commands from the serial
    /// line, and the last one switches the machine off.
    /// </summary>
    [SkippableTheory, MemberData(nameof(Cpus))]
    public void OVMF_shell_takes_commands(string cpu)
    {
        FirmwareImage image = FirmwareImage.Parse(File.ReadAllBytes(DebianFirmware.Path("OVMF.fd")));
        using var guest = new SerialGuest(cpu, Uefi, pc => pc.LoadFirmware(image));
        guest.WaitFor(@"UEFI Interactive Shell v2\.[^\x1b]*EDK II");
        guest.WaitFor("any other key to continue");
        guest.Send("\x1b");
        guest.WaitFor("Shell> ");
        guest.Send("ver\r");
        guest.WaitFor(@"Shell> [\s\S]*UEFI Interactive Shell v[\s\S]*Shell> "); // what is typed comes back letter by letter, with cursor positions between
        guest.Send("reset -s\r");
        GuestStop stop = guest.WaitForEnd();
        output.WriteLine(guest.Text);
        stop.Reason.Should().Be(GuestStopReason.PowerOff);
    }

    /// <summary>Without a local APIC in the kernel there is none, and its timer does not run: the shell comes, and halts for ever when it waits for a key.</summary>
    [SkippableFact]
    public void OVMF_without_a_local_APIC_ends_at_its_prompt()
    {
        FirmwareImage image = FirmwareImage.Parse(File.ReadAllBytes(DebianFirmware.Path("OVMF.fd")));
        using var guest = new SerialGuest("intel", Uefi with { Irqchip = false }, pc => pc.LoadFirmware(image));
        guest.WaitFor(@"UEFI Interactive Shell v2\.[^\x1b]*EDK II");
    }

    /// <summary>Code in ROM, variables in a flash: what the firmware stores there is in the file at once, and a second start finds it and has less to store.</summary>
    [SkippableTheory, MemberData(nameof(Cpus))]
    public void OVMF_keeps_its_variables_in_the_flash(string cpu)
    {
        FirmwareImage image = FirmwareImage.Parse(File.ReadAllBytes(DebianFirmware.Path("OVMF_CODE_4M.fd")));
        byte[] fresh = File.ReadAllBytes(DebianFirmware.Path("OVMF_VARS_4M.fd")), flash = [.. fresh];
        int first = Start(), second = Start();
        flash.Should().NotEqual(fresh);
        first.Should().BeGreaterThan(100, "boot options, the boot order, console devices, a monotonic counter");
        second.Should().BeInRange(1, first / 2, "most of it is there already");

        int Start()
        {
            int writes = 0;
            using var guest = new SerialGuest(cpu, Uefi, pc => pc.LoadFirmware(image, flash.ToArray(), (offset, data) =>
            {
                writes++;
                data.CopyTo(flash.AsSpan((int)offset));
            }));
            output.WriteLine(guest.WaitFor(@"BdsDxe: starting Boot0001 ""EFI Internal Shell"""));
            return writes;
        }
    }

    /// <summary>fw_cfg offers the kernel; OVMF starts it as the EFI program that it also is.</summary>
    [SkippableTheory, MemberData(nameof(Cpus))]
    public void OVMF_starts_Linux(string cpu)
    {
        ToolRun run = ToolRun.UntilOutput("] efi: EFI v", TimeSpan.FromMinutes(3), "run", "--cpu", cpu, "--memory", "512M", "--firmware", DebianFirmware.Path("OVMF.fd"),
            "--kernel", DebianKernel.Path, "--append", "console=ttyS0 earlyprintk=ttyS0,115200 nokaslr");
        Write(run);
        run.Output.Should().Contain("] Linux version ").And.Contain("] efi: EFI v2.70 by EDK II");
    }

    /// <summary>OVMF makes page tables for all physical addresses that there are.</summary>
    private static PcOptions Uefi => new() { Memory = 256 << 20, PhysicalBits = 40 };

    /// <summary>Waits for the screen and for a test after the first.</summary>
    private string Memtest(SerialGuest guest)
    {
        guest.WaitFor(@"Memtest86\+ v\d");
        guest.WaitFor(@"CPU: 1 Cores 1 Threads");
        string text = guest.WaitFor(@"#[1-9] +\[[A-Z]");
        output.WriteLine(text);
        text.Should().NotMatchRegex("Errors: *[1-9]");
        return text;
    }

    private void Write(ToolRun run)
    {
        output.WriteLine(run.Errors);
        output.WriteLine(run.Output);
    }
}

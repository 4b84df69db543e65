// A Linux kernel, a file system with one program of our own in it, and that program's words from user space.
//   samples/linux/fetch-kernel.sh                                                     fetches Debian's kernel
//   dotnet run --project samples/LinuxHello                                           boots it on the model, an Intel processor
//   dotnet run --project samples/LinuxHello -- samples/linux/cache/vmlinuz amd        names the kernel and the processor
//   dotnet run --project samples/LinuxHello -- samples/linux/cache/vmlinuz native     on this host's /dev/kvm

using System.IO.Pipelines;
using Kvm.Client;
using Kvm.Vmm;
using Kvm.Vmm.Boot;
using LinuxHello;

string kernel = args.Length > 0 ? args[0] : "samples/linux/cache/vmlinuz";
string cpu = args.Length > 1 ? args[1] : "intel";
try
{
    using var kvm = KvmSystem.Open(cpu == "native" ? KvmBackend.Native : KvmBackend.ByName("model", cpu));
    using var pc = new Pc(kvm, new PcOptions { Memory = 512 << 20, Output = PipeWriter.Create(Console.OpenStandardOutput()) });
    pc.LoadLinux(BzImage.Parse(File.ReadAllBytes(kernel)), LinuxEntry.Long64, "console=ttyS0 quiet panic=-1", HelloInit.FileSystem());
    GuestStop stop = pc.Run(timeout: TimeSpan.FromMinutes(5));
    Console.Error.WriteLine(stop);
    return stop.Reason == GuestStopReason.Reset ? 0 : 1;
}
catch (Exception e) when (e is KvmException or ArgumentException or BootException or IOException)
{
    Console.Error.WriteLine(e.Message);
    Console.Error.WriteLine("usage: LinuxHello [kernel] [intel|amd|native]; samples/linux/fetch-kernel.sh fetches a kernel");
    return 2;
}

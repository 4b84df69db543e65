// The first guest of every KVM tutorial: 16-bit code adds two numbers, prints the sum, and halts.
//   dotnet run --project samples/Quickstart                     on the model, an Intel processor
//   dotnet run --project samples/Quickstart -- model amd        on the model, an AMD processor
//   dotnet run --project samples/Quickstart -- native           on this host's /dev/kvm

using Kvm.Client;
using Quickstart;

string backend = args.Length > 0 ? args[0] : "model";
string cpu = args.Length > 1 ? args[1] : "intel";
try
{
    AddingGuest.Run(KvmBackend.ByName(backend, cpu), Console.Out);
    return 0;
}
catch (ArgumentException e)
{
    Console.Error.WriteLine(e.Message);
    Console.Error.WriteLine("usage: Quickstart [model|native] [intel|amd]");
    return 2;
}
catch (KvmException e)
{
    Console.Error.WriteLine(e.Message);
    return 1;
}

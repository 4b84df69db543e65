// A guest that takes itself from real mode to 64-bit mode: own page tables, own IDT, and an exception that it handles.
//   dotnet run --project samples/LongMode                     on the model, an Intel processor
//   dotnet run --project samples/LongMode -- model amd        on the model, an AMD processor
//   dotnet run --project samples/LongMode -- native           on this host's /dev/kvm

using Kvm.Client;
using LongMode;

string backend = args.Length > 0 ? args[0] : "model";
string cpu = args.Length > 1 ? args[1] : "intel";
try
{
    LongModeGuest.Run(KvmBackend.ByName(backend, cpu), Console.Out);
    return 0;
}
catch (ArgumentException e)
{
    Console.Error.WriteLine(e.Message);
    Console.Error.WriteLine("usage: LongMode [model|native] [intel|amd]");
    return 2;
}
catch (KvmException e)
{
    Console.Error.WriteLine(e.Message);
    return 1;
}

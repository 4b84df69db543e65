// The life of KVM on a machine, from insmod to rmmod: what is switched on when, what is counted, who refuses what, and how everything is undone.
//   dotnet run --project samples/Lifecycle               on an Intel and on an AMD machine
//   dotnet run --project samples/Lifecycle -- intel      on one of them
//
// Every line that begins with "ok" is a statement that was checked.

using Lifecycle;

string[] vendors = args is [] ? ["intel", "amd"] : args;
if (vendors.Except(["intel", "amd"]).Any())
{
    Console.Error.WriteLine("usage: Lifecycle [intel|amd]");
    return 2;
}

var story = new Story(Console.Out);
foreach (string vendor in vendors) story.Tell(vendor == "intel");
Console.WriteLine($"{story.Checked} statements, {(story.Failed == 0 ? "all of them hold" : $"{story.Failed} of them do not hold")}");
return story.Failed == 0 ? 0 : 1;

// The life of KVM on a machine, from insmod to rmmod: what is switched on when, what is counted, who refuses what, and how everything is undone.
//
//     dotnet run --project samples/Lifecycle [intel|amd]
//
// Every line that begins with "ok" is a statement that was checked. The exit code is the number of statements that did not hold.
using Lifecycle;

string[] vendors = args is [string one, ..] ? [one] : ["intel", "amd"];
var story = new Story(Console.Out);
foreach (string vendor in vendors)
{
    if (vendor is not ("intel" or "amd"))
    {
        Console.Error.WriteLine("usage: Lifecycle [intel|amd]");
        return 2;
    }

    story.Tell(vendor == "intel");
}

return story.Failed;

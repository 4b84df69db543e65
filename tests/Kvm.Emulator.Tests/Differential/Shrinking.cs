using FsCheck;
using FsCheck.Fluent;
using Microsoft.FSharp.Collections;
using Microsoft.FSharp.Core;

namespace Kvm.Emulator.Tests.Differential;

/// <summary>Runs a property with FsCheck and keeps what it ended with.</summary>
internal sealed class Shrinking : IRunner
{
    private TestResult? result;
    private int steps;

    /// <summary>Null when the property held; else the case that FsCheck found, the one it shrank it to, and in how many steps.</summary>
    internal static (ProgramCase Found, ProgramCase Shrunk, int Steps)? Check(Arbitrary<ProgramCase> programs, Func<ProgramCase, bool> holds, int tests, ulong seed)
    {
        var runner = new Shrinking();
        // FsCheck's replay: a seed, an odd gamma, no size.
        var replay = new Replay(new Rnd(seed, 2 * seed + 1), FSharpOption<int>.None);
        Config config = Config.Quick.WithMaxTest(tests).WithReplay(FSharpOption<Replay>.Some(replay)).WithRunner(runner);
        FsCheck.Check.One(config, Prop.ForAll(programs, holds));
        return runner.result switch
        {
            TestResult.Passed => null,
            TestResult.Failed failed => ((ProgramCase)failed.Item2.Head, (ProgramCase)failed.Item3.Head, runner.steps),
            _ => throw new InvalidOperationException("the property was not decided"),
        };
    }

    public void OnStartFixture(Type type)
    {
    }

    public void OnArguments(int test, FSharpList<object> arguments, FSharpFunc<int, FSharpFunc<FSharpList<object>, string>> every)
    {
    }

    public void OnShrink(FSharpList<object> arguments, FSharpFunc<FSharpList<object>, string> everyShrink) => steps++;

    public void OnFinished(string name, TestResult testResult) => result = testResult;
}

using Kvm.Emulator.Tests.Engine;

namespace Kvm.Emulator.Tests.Differential;

/// <summary>The host's processor as the judge of programs: each instruction is executed by both on the host's state.</summary>
internal sealed unsafe class HostJudge(NativeProcessor native, GuestMachine guest)
{
    /// <summary>Null when all instructions end alike; else which one does not, and how.</summary>
    internal string? Difference(ProgramCase program)
    {
        Load(program);
        for (int i = 0; i < program.Code.Count; i++)
        {
            if (OneCase.Step(program.Code[i], program.Decode(i), native, guest) is { } difference)
                return $"instruction {i}: {difference}";
        }
        return null;
    }

    /// <summary>The program behind its first <paramref name="count"/> instructions, with what they leave.</summary>
    internal ProgramCase? Advance(ProgramCase program, int count)
    {
        Load(program);
        for (int i = 0; i < count; i++)
        {
            native.State->Gpr[15] = (ulong)native.Data;
            native.Execute(program.Code[i]);
        }
        HostState state = *native.State;
        state.Fault = 0;
        state.Gpr[4] = state.Gpr[15] = 0;
        return new ProgramCase([.. program.Code.Skip(count)], state, new ReadOnlySpan<byte>(native.Data, ProgramCase.DataSize).ToArray());
    }

    private void Load(ProgramCase program)
    {
        *native.State = program.State;
        program.Data.CopyTo(new Span<byte>(native.Data, ProgramCase.DataSize));
    }
}

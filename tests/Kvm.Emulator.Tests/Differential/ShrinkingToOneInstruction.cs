using Iced.Intel;
using Kvm.Emulator.Tests.Engine;
using Xunit.Abstractions;

namespace Kvm.Emulator.Tests.Differential;

/// <summary>A judge that is wrong about one instruction, now and then, among programs of several: FsCheck arrives at that instruction alone and at the least that it takes.</summary>
public sealed unsafe class ShrinkingToOneInstruction(ITestOutputHelper output)
{
    /// <summary>Wrong results from here on.</summary>
    private const ulong threshold = 0x100;

    [Theory]
    [InlineData(1)]
    [InlineData(77)]
    [InlineData(20261121)]
    public void Wrong_sum_of_XADD_with_large_sources(ulong seed)
    {
        using var guest = new GuestMachine(InstructionDifferential.Model);
        guest.Start(64, [0xf4]);
        var judge = new GuestJudge(guest, WrongXadd);
        Code[] forms = [.. CaseGeneration.Forms.Where(static c => c.CpuidFeatures()[0] is CpuidFeature.INTEL8086 or CpuidFeature.INTEL386 or CpuidFeature.INTEL486 or CpuidFeature.X64)];
        var found = Shrinking.Check(ProgramGenerator.Programs(forms, new ProgramShrinker(judge.Advance)), judge.Agrees, 20_000, seed);
        found.Should().NotBeNull();
        (ProgramCase from, ProgramCase shrunk, int steps) = found!.Value;
        output.WriteLine($"{from.Code.Count} instructions\n{from}\nin {steps} steps\n{shrunk}");
        judge.Agrees(shrunk).Should().BeFalse("what shrinking ends with still fails");
        shrunk.Code.Should().ContainSingle();
        Instruction instruction = shrunk.Decode(0);
        instruction.Mnemonic.Should().Be(Mnemonic.Xadd);
        HostState s = shrunk.State;
        s.Rflags.Should().Be(0x202);
        new ReadOnlySpan<ulong>(s.Gpr, 15).ToArray().Where(r => r != 0).Should().Equal([threshold], "only the source matters, and only that it is not smaller");
        shrunk.Data.Should().OnlyContain(b => b == 0);
        new ReadOnlySpan<byte>(s.Fx + 32, 384).ContainsAnyExcept((byte)0).Should().BeFalse();
    }

    [Fact]
    public void A_judge_that_is_never_wrong_finds_nothing()
    {
        using var guest = new GuestMachine(InstructionDifferential.Model);
        guest.Start(64, [0xf4]);
        var judge = new GuestJudge(guest, static (_, _) => false);
        Shrinking.Check(ProgramGenerator.Programs([Code.Xadd_rm64_r64, Code.Adc_rm64_r64], new ProgramShrinker(judge.Advance)), judge.Agrees, 200, 5).Should().BeNull();
    }

    private static bool WrongXadd(Instruction i, HostState before)
        => i.Mnemonic == Mnemonic.Xadd && before.Gpr[i.Op1Register.GetFullRegister().GetNumber()] >= threshold;

    /// <summary>Executes programs on the emulated processor alone and finds the results wrong that it is told to.</summary>
    private sealed class GuestJudge(GuestMachine guest, Func<Instruction, HostState, bool> wrong)
    {
        internal bool Agrees(ProgramCase program)
        {
            HostState state = program.State;
            byte[] data = [.. program.Data];
            for (int i = 0; i < program.Code.Count; i++)
            {
                HostState before = state;
                Step(program.Code[i], ref state, data);
                HostState judged = state;
                if (wrong(program.Decode(i), before))
                    judged.Gpr[0] ^= 1;
                if (judged.Gpr[0] != state.Gpr[0])
                    return false;
            }
            return true;
        }

        internal ProgramCase? Advance(ProgramCase program, int count)
        {
            HostState state = program.State;
            byte[] data = [.. program.Data];
            for (int i = 0; i < count; i++)
                Step(program.Code[i], ref state, data);
            state.Gpr[4] = state.Gpr[15] = 0;
            return new ProgramCase([.. program.Code.Skip(count)], state, data);
        }

        private void Step(byte[] code, ref HostState state, byte[] data)
        {
            guest.Start(64, code);
            fixed (HostState* s = &state)
            fixed (byte* d = data)
            {
                OneCase.Load(s, d, guest);
                guest.Run(1);
                for (int r = 0; r < 15; r++)
                    s->Gpr[r] = r == 4 ? 0 : guest.State->Gpr[r];
                s->Rflags = guest.Cpu.Rflags & 0xcd5 | 0x202;
            }
            new ReadOnlySpan<byte>(guest.Ram + GuestMachine.DataBase, data.Length).CopyTo(data);
        }
    }
}

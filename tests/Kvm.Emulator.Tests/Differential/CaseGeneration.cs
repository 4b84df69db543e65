using Iced.Intel;

namespace Kvm.Emulator.Tests.Differential;

/// <summary>The differential test says something about a form only when cases of it come about, with the operand in a register and in memory.</summary>
public sealed class CaseGeneration
{
    private const int tries = 60;

    public static IEnumerable<Code> Forms => Enum.GetValues<Code>().Where(static c => CoverageCatalog.Of(c) == Coverage.Differential);

    [Fact]
    public void Every_form_of_the_differential_test_comes_about()
        => Forms.Where(static c => Cases(c).Count == 0).Should().BeEmpty();

    [Fact]
    public void Every_form_that_can_have_a_memory_operand_has_one_now_and_then()
        => Forms.Where(static c => Takes(c, static n => n is "mem" || n.EndsWith("_or_mem", StringComparison.Ordinal)) && !Cases(c).Any(HasMemory)).Should().BeEmpty();

    [Fact]
    public void Every_form_that_can_have_a_register_operand_in_its_place_has_one_too()
        => Forms.Where(static c => Takes(c, static n => n.EndsWith("_or_mem", StringComparison.Ordinal)) && Cases(c).TrueForAll(HasMemory)).Should().BeEmpty();

    private static bool Takes(Code code, Predicate<string> kind)
    {
        OpCodeInfo info = code.ToOpCode();
        return Enumerable.Range(0, info.OpCount).Any(i => kind(info.GetOpKind(i).ToString()));
    }

    private static bool HasMemory(Instruction i) => Enumerable.Range(0, i.OpCount).Any(n => i.GetOpKind(n) == OpKind.Memory);

    private static List<Instruction> Cases(Code code)
    {
        List<Instruction> cases = [];
        for (int seed = 0; seed < tries; seed++)
        {
            if (new CaseGenerator(new Random(seed)).Encode(code, out Instruction instruction) != null)
                cases.Add(instruction);
        }
        return cases;
    }
}

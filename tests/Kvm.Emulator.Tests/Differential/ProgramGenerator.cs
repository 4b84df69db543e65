using FsCheck;
using FsCheck.Fluent;
using Iced.Intel;

namespace Kvm.Emulator.Tests.Differential;

/// <summary>FsCheck's view of programs: generated from a seed and the test's size, shrunk by <see cref="ProgramShrinker"/>.</summary>
internal static unsafe class ProgramGenerator
{
    private const int longest = 12;

    internal static Arbitrary<ProgramCase> Programs(Code[] forms, ProgramShrinker shrinker)
        => Arb.From(Gen.Choose(1, longest).SelectMany(n => Gen.Choose(int.MinValue, int.MaxValue).Select(seed => Make(forms, n, seed))), shrinker.Shrink);

    internal static ProgramCase Make(Code[] forms, int length, int seed)
    {
        var random = new Random(seed);
        var generator = new CaseGenerator(random);
        List<byte[]> code = [];
        OneCase? first = null;
        while (code.Count < length)
        {
            Code form = forms[random.Next(forms.Length)];
            if (OneCase.Make(form, random.Next()) is not { } one || one.ReachesFar)
                continue;
            first ??= one;
            code.Add(one.Bytes);
        }
        HostState state = default;
        byte[] data = new byte[ProgramCase.DataSize];
        fixed (byte* p = data)
            first!.Prepare(&state, p);
        return new ProgramCase(code, state, data);
    }
}

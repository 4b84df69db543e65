using System.Globalization;
using Iced.Intel;
using Kvm.Emulator.Vector;

namespace Kvm.Emulator.Tests.Vector;

/// <summary>Transcendental functions against results computed with 600 bits: rounded correctly in every direction.</summary>
public sealed unsafe class X87Functions
{
    private static readonly Dictionary<string, Code> codes = new()
    {
        ["fsin"] = Code.Fsin,
        ["fcos"] = Code.Fcos,
        ["fptan"] = Code.Fptan,
        ["f2xm1"] = Code.F2xm1,
        ["fyl2x"] = Code.Fyl2x,
        ["fyl2xp1"] = Code.Fyl2xp1,
        ["fpatan"] = Code.Fpatan,
    };

    public static TheoryData<string> Names => [.. codes.Keys];

    private static IEnumerable<string> Lines(string name)
    {
        using Stream stream = typeof(X87Functions).Assembly.GetManifestResourceStream("Vector.x87-functions")!;
        using var reader = new StreamReader(stream);
        while (reader.ReadLine() is { } line)
        {
            if (line.StartsWith(name + " ", StringComparison.Ordinal))
                yield return line;
        }
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void Results_are_correctly_rounded(string name)
    {
        using var comparison = new CoreComparison();
        comparison.Select(X87Forms.Of(codes[name])[0]);
        int lines = 0;
        foreach (string line in Lines(name))
        {
            string[] words = line.Split(' ');
            Prepare(comparison.State, words);
            comparison.RunManaged(0);
            // FPTAN pushes a one.
            byte* result = comparison.Managed->Fx + VectorUnit.FxSt + (name == "fptan" ? 16 : 0);
            $"{*(ushort*)(result + 8):x4}:{*(ulong*)result:x16}".Should().Be(words[^1], "{0}", line);
            (*(ushort*)(comparison.Managed->Fx + VectorUnit.FxStatus) & 0x6f).Should().BeOneOf([0x20, 0x32], "{0}", line);
            lines++;
        }
        lines.Should().BeGreaterThan(100);
    }

    private static void Prepare(CpuState* s, string[] words)
    {
        *(ushort*)(s->Fx + VectorUnit.FxControl) = (ushort)(0x37f | int.Parse(words[1], CultureInfo.InvariantCulture) << 10);
        *(ushort*)(s->Fx + VectorUnit.FxStatus) = 0;
        s->Fx[VectorUnit.FxTags] = (byte)(words.Length == 5 ? 3 : 1);
        for (int i = 0; i < words.Length - 3; i++)
        {
            string operand = words[words.Length - 2 - i];
            *(ushort*)(s->Fx + VectorUnit.FxSt + 16 * i + 8) = ushort.Parse(operand[..4], NumberStyles.HexNumber, CultureInfo.InvariantCulture);
            *(ulong*)(s->Fx + VectorUnit.FxSt + 16 * i) = ulong.Parse(operand[5..], NumberStyles.HexNumber, CultureInfo.InvariantCulture);
        }
    }
}

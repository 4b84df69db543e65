using System.Globalization;
using System.Text;
using Iced.Intel;

namespace Kvm.Emulator.Tests.Differential;

/// <summary>Instructions one after the other, the registers they start with, and two pages of memory at R15: everything that a difference depends on, in plain sight.</summary>
internal sealed unsafe class ProgramCase
{
    internal const int DataSize = 0x1100;

    internal ProgramCase(IReadOnlyList<byte[]> code, HostState state, byte[] data)
    {
        Code = code;
        State = state;
        Data = data;
    }

    internal IReadOnlyList<byte[]> Code { get; }

    internal HostState State { get; }

    internal byte[] Data { get; }

    internal ProgramCase With(IReadOnlyList<byte[]> code) => new(code, State, Data);

    internal ProgramCase With(HostState state) => new(Code, state, Data);

    internal ProgramCase With(byte[] data) => new(Code, State, data);

    internal Instruction Decode(int n) => Iced.Intel.Decoder.Create(64, Code[n]).Decode();

    public override string ToString()
    {
        var text = new StringBuilder();
        for (int i = 0; i < Code.Count; i++)
            text.Append(CultureInfo.InvariantCulture, $"{Decode(i)} [{Convert.ToHexString(Code[i])}]; ");
        HostState s = State;
        for (int r = 0; r < 15; r++)
        {
            if (s.Gpr[r] != 0)
                text.Append(CultureInfo.InvariantCulture, $"{Register.RAX + r}={s.Gpr[r]:x} ");
        }
        text.Append(CultureInfo.InvariantCulture, $"rflags={s.Rflags:x}");
        for (int i = 0; i < DataSize; i += 8)
        {
            ulong word = BitConverter.ToUInt64(Data, i);
            if (word != 0)
                text.Append(CultureInfo.InvariantCulture, $" [r15+{i:x}]={word:x}");
        }
        var fx = new ReadOnlySpan<byte>(s.Fx, 512);
        for (int i = 0; i < 16; i++)
        {
            if (fx.Slice(160 + i * 16, 16).ContainsAnyExcept((byte)0) || new ReadOnlySpan<byte>(s.YmmHi + i * 16, 16).ContainsAnyExcept((byte)0))
                text.Append(CultureInfo.InvariantCulture, $" ymm{i}={Convert.ToHexString(new ReadOnlySpan<byte>(s.YmmHi + i * 16, 16))}:{Convert.ToHexString(fx.Slice(160 + i * 16, 16))}");
        }
        for (int i = 0; i < 8; i++)
        {
            if (fx.Slice(32 + i * 16, 10).ContainsAnyExcept((byte)0))
                text.Append(CultureInfo.InvariantCulture, $" st{i}={Convert.ToHexString(fx.Slice(32 + i * 16, 10))}");
        }
        return text.Append(CultureInfo.InvariantCulture, $" fcw={*(ushort*)s.Fx:x} fsw={*(ushort*)(s.Fx + 2):x} ftw={s.Fx[4]:x} mxcsr={*(uint*)(s.Fx + 24):x}").ToString();
    }
}

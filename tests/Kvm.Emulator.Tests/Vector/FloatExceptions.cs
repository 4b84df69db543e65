using Iced.Intel;
using Kvm.Emulator.Tests.Differential;
using Kvm.Emulator.Tests.Engine;
using Kvm.Emulator.Vector;

namespace Kvm.Emulator.Tests.Vector;

/// <summary>SIMD floating-point exceptions that are not masked: whether #XM comes, what MXCSR tells about it, and that nothing else has changed.</summary>
[Collection("host signals")]
public sealed unsafe class FloatExceptions
{
    private const int area = 64;

    private static readonly CpuModel model = CpuModel.IntelSkylake
        .WithCpuid(1, 0, new CpuidLeaf(0, 0, 1 | 1 << 9 | 1 << 12 | 1 << 19 | 1 << 26 | 1 << 28 | 1 << 29, 1 | 1 << 23 | 1 << 24 | 1 << 25 | 1 << 26));

    /// <summary>The same instruction with the same operands on the host, where exceptions come as signals, and in a guest. KVM_TEST_CASES: of all instructions together.</summary>
    [SkippableFact]
    public void Are_those_of_the_host_processor()
    {
        Skip.If(NativeProcessor.Missing is not null, NativeProcessor.Missing);
        using var native = new NativeProcessor();
        using var comparison = new CoreComparison();
        using var guest = new GuestMachine(model, vectorEngine: VectorEngine.Managed);
        Code[] codes = [.. FloatCores.All.Where(code => !FloatCores.IsEstimate(code))];
        long cases = CoreComparison.Cases(700, codes.Length), faults = 0;
        foreach (Code code in codes)
        {
            var random = new CaseRandom(~(CoreComparison.Seed + (ulong)code));
            byte[] bytes = [];
            for (long done = 0; done < cases; done++)
            {
                if (done % 50 == 0)
                    bytes = Next(ref random, code, comparison);
                if (bytes.Length == 0)
                    break;
                FloatInstructions.Operands(ref random, comparison);
                VectorUnit.Mxcsr(comparison.State) &= ~((uint)random.Next64() & (random.One(2) ? VectorUnit.MxcsrMasks : 0x0c00)) | ~VectorUnit.MxcsrMasks;
                if (Difference(comparison, bytes, native, guest) is { } difference)
                    Assert.Fail($"{comparison.Selected}, case {done}, MXCSR {VectorUnit.Mxcsr(comparison.State):x4}: {difference}");
                faults += guest.PendingVector == Fault.XM ? 1 : 0;
            }
        }
        faults.Should().BeGreaterThan(20_000);
    }

    /// <summary>Empty: the host does not have it.</summary>
    private static byte[] Next(ref CaseRandom random, Code code, CoreComparison comparison)
    {
        Instruction instruction;
        do
            instruction = FloatInstructions.Next(ref random, code);
        while (UsesReserved(instruction));
        if (!comparison.Select(instruction))
            return [];
        FloatInstructions.Registers(ref random, comparison);
        using var stream = new MemoryStream();
        Iced.Intel.Encoder.Create(64, new StreamCodeWriter(stream)).Encode(instruction, 0);
        return stream.ToArray();
    }

    // The host's stack pointer is not the instruction's to change; RBX is where memory operands are.
    private static bool UsesReserved(in Instruction instruction)
    {
        for (int i = 0; i < instruction.OpCount; i++)
        {
            if (instruction.GetOpKind(i) == OpKind.Register && instruction.GetOpRegister(i) is Register.ESP or Register.RSP or Register.EBX or Register.RBX)
                return true;
        }
        return false;
    }

    private static string? Difference(CoreComparison comparison, byte[] bytes, NativeProcessor native, GuestMachine guest)
    {
        CpuState* from = comparison.State, s = guest.State;
        HostState* h = native.State;
        guest.Start(64, bytes);
        for (int i = 0; i < 16; i++)
            h->Gpr[i] = s->Gpr[i] = from->Gpr[i];
        s->Gpr[4] = GuestMachine.StackTop;
        h->Gpr[3] = (ulong)native.Data - 0x40;
        s->Gpr[3] = GuestMachine.DataBase - 0x40;
        h->Rflags = 0x202;
        Buffer.MemoryCopy(from->Fx, h->Fx, 512, 512);
        Buffer.MemoryCopy(from->Fx, s->Fx, 512, 512);
        Buffer.MemoryCopy(from->YmmHi, h->YmmHi, 256, 256);
        Buffer.MemoryCopy(from->YmmHi, s->YmmHi, 256, 256);
        Buffer.MemoryCopy(comparison.Area, native.Data, area, area);
        Buffer.MemoryCopy(comparison.Area, guest.Ram + GuestMachine.DataBase, area, area);
        s->Cr0 |= Cr0.NE | Cr0.MP;
        s->Cr4 |= Cr4.OSFXSR | Cr4.OSXMMEXCPT | Cr4.OSXSAVE;
        s->Xcr0 = 7;
        guest.Cpu.UpdateMode();
        native.Execute(bytes);
        guest.Run(1);
        return Difference(native, guest);
    }

    private static string? Difference(NativeProcessor native, GuestMachine guest)
    {
        HostState* h = native.State;
        CpuState* s = guest.State;
        int vector = (int)h->Fault - 1;
        if (vector != guest.PendingVector)
            return $"exception {guest.PendingVector}, host {vector}";
        if (*(uint*)(h->Fx + VectorUnit.FxMxcsr) != VectorUnit.Mxcsr(s))
            return $"MXCSR {VectorUnit.Mxcsr(s):x4}, host {*(uint*)(h->Fx + VectorUnit.FxMxcsr):x4}";
        if (!new Span<byte>(h->Fx + VectorUnit.FxXmm, 256).SequenceEqual(new Span<byte>(s->Fx + VectorUnit.FxXmm, 256))
            || !new Span<byte>(h->YmmHi, 256).SequenceEqual(new Span<byte>(s->YmmHi, 256)))
            return "vector registers";
        if (!new Span<byte>(native.Data, area).SequenceEqual(new Span<byte>(guest.Ram + GuestMachine.DataBase, area)))
            return "memory";
        if (*(ushort*)(h->Fx + VectorUnit.FxStatus) != *(ushort*)(s->Fx + VectorUnit.FxStatus) || h->Fx[VectorUnit.FxTags] != s->Fx[VectorUnit.FxTags])
            return "x87 status and tags";
        for (int i = 0; i < 8; i++)
        {
            int at = VectorUnit.FxSt + i * 16;
            if (!new Span<byte>(h->Fx + at, 10).SequenceEqual(new Span<byte>(s->Fx + at, 10)))
                return $"MMX register {i}";
        }
        for (int i = 0; i < 16; i++)
        {
            if (i is not (3 or 4) && h->Gpr[i] != s->Gpr[i])
                return $"general register {i}";
        }
        return null;
    }
}

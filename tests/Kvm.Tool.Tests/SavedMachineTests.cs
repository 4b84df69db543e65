using System.Runtime.InteropServices;
using System.Security.Cryptography;
using Iced.Intel;
using Kvm.Client;
using Kvm.Vmm;
using Kvm.Vmm.Migration;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Tool.Tests;

/// <summary><c>kvm run --save</c> and <c>--restore</c>: a guest that is interrupted somewhere goes on in another process as if nothing had been.</summary>
public sealed class SavedMachineTests : IDisposable
{
    private const uint Data = 0x200000, DataSize = 0x100000, Stack = 0x180000;
    private readonly string _folder = Directory.CreateTempSubdirectory("saved").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Theory]
    [InlineData("intel", "")]
    [InlineData("amd", "")]
    [InlineData("intel", "ept=0")]
    public void A_guest_goes_on_bit_by_bit_in_another_process(string cpu, string parameter)
    {
        using var guest = new MultibootGuest(Computes);
        string[] machine = ["--cpu", cpu, "--memory", "8M", .. parameter.Length > 0 ? (string[])["--parameter", parameter] : []];
        string whole = At("whole"), half = At("half"), quarter = At("quarter"), end = At("end");
        ToolRun reference = ToolRun.Of(["run", "--kernel", guest.Path, .. machine, "--save", whole]);
        reference.ExitCode.Should().Be(85, reference.Errors);

        // Where exactly it stops is chance: somewhere in the first second of its work.
        ToolRun first = ToolRun.Of(["run", "--kernel", guest.Path, .. machine, "--timeout", "0.1", "--save", quarter]);
        first.ExitCode.Should().Be(ExitCode.TimedOut, first.Errors);
        ToolRun second = ToolRun.Of(["run", "--restore", quarter, .. machine, "--timeout", "0.1", "--save", half]);
        second.ExitCode.Should().Be(ExitCode.TimedOut, second.Errors);
        ToolRun third = ToolRun.Of(["run", "--restore", half, .. machine, "--save", end]);
        third.ExitCode.Should().Be(85, third.Errors);
        (first.Output + second.Output + third.Output).Should().Be(reference.Output);
        Final(end).Should().Be(Final(whole));
        reference.Output.Should().MatchRegex("^[0-9a-p]{48}$");
    }

    [Fact]
    public void Files_that_are_none_are_one_line_and_exit_code_3()
    {
        using var guest = new MultibootGuest(Computes);
        string good = At("good"), cut = At("cut"), torn = At("torn"), old = At("old"), text = At("text");
        ToolRun.Of("run", "--kernel", guest.Path, "--memory", "8M", "--timeout", "0.1", "--save", good).ExitCode.Should().Be(ExitCode.TimedOut);
        byte[] bytes = File.ReadAllBytes(good);
        File.WriteAllBytes(cut, bytes[..(bytes.Length / 2)]);
        byte[] damaged = [.. bytes];
        damaged[^60] ^= 1;
        File.WriteAllBytes(torn, damaged);
        byte[] other = [.. bytes];
        other[8] = 99;
        File.WriteAllBytes(old, other);
        File.WriteAllText(text, "hello");
        Refused(cut, "truncated");
        Refused(torn, "damaged");
        Refused(old, "version 99");
        Refused(text, "is no saved machine");
        Refused(At("none"), "no such file");
        Refused(good, "GenuineIntel", "--cpu", "amd");
        ToolRun.Of("run", "--restore", good, "--kernel", guest.Path).ExitCode.Should().Be(ExitCode.Usage);
        ToolRun unsaved = ToolRun.Of("run", "--kernel", guest.Path, "--memory", "8M", "--timeout", "0.1", "--irqchip", "user", "--save", At("user"));
        unsaved.ExitCode.Should().Be(ExitCode.BadFile);
        unsaved.Errors.Should().Contain("can't be saved");
        File.Exists(At("user")).Should().BeFalse();
    }

    private static void Refused(string file, string reason, params string[] options)
    {
        ToolRun run = ToolRun.Of(["run", "--restore", file, .. options]);
        run.ExitCode.Should().Be(ExitCode.BadFile, run.Errors);
        run.Errors.Trim().Split('\n').Should().ContainSingle().Which.Should().Contain(file).And.Contain(reason);
    }

    private string At(string name) => Path.Combine(_folder, name);

    /// <summary>Registers of every kind, and a hash of all memory.</summary>
    private static string Final(string file)
    {
        using IDisposable owner = Open(file, out VmState state, out byte[] memory);
        VcpuState v = state.Vcpus.Single();
        return string.Join('\n', Hex(v.Regs), Hex(v.SRegs), Hex(v.DebugRegs), Hex(v.Xcrs), Convert.ToHexString(v.Xsave), Convert.ToHexString(SHA256.HashData(memory)));
    }

    private static IDisposable Open(string file, out VmState state, out byte[] memory)
    {
        KvmSystem kvm = KvmSystem.Open(KvmBackend.ByName("model"));
        using Vm vm = kvm.CreateVm();
        using GuestMemory ram = vm.MapMemory(0, 0, 8 << 20);
        using FileStream stream = File.OpenRead(file);
        using var reader = new StateReader(stream, file);
        Pc.ReadOptions(reader, new PcOptions()).Memory.Should().Be(8 << 20);
        state = VmState.Read(reader, section => MemoryState.Take(section, [ram]) || section.Tag == "devi");
        memory = ram.Span.ToArray();
        return kvm;
    }

    private static string Hex<T>(T value) where T : unmanaged => Convert.ToHexString(MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in value)));

    /// <summary>
    /// Random numbers that depend on all of general registers, x87, SSE and 1 MiB of memory; now and then a letter of them goes out through the serial port, sometimes as a string instruction.
    /// It takes seconds, and no two moments of it are alike.
    /// </summary>
    private static void Computes(Assembler c)
    {
        Label outer = c.CreateLabel(), inner = c.CreateLabel(), last = c.CreateLabel();
        c.mov(esp, Stack);
        c.mov(eax, cr4);
        c.or(eax, 0x600);
        c.mov(cr4, eax);
        c.mov(eax, cr0);
        c.and(eax, unchecked((int)~6u));
        c.or(eax, 2);
        c.mov(cr0, eax);
        c.fninit();
        c.fldpi();
        c.mov(eax, 0x12345678);
        c.movd(xmm1, eax);
        c.pshufd(xmm1, xmm1, 0);
        c.movdqa(xmm0, xmm1);
        c.mov(ebx, 1);
        c.mov(ebp, 24);
        c.Label(ref outer);
        c.mov(ecx, 40_000);
        c.Label(ref inner);
        c.imul(ebx, ebx, 1664525);
        c.add(ebx, 1013904223);
        c.mov(esi, ebx);
        c.shr(esi, 8);
        c.and(esi, (int)(DataSize - 4) & ~15);
        c.paddd(xmm0, xmm1);
        c.pxor(xmm0, __xmmword_ptr[esi + (int)Data]);
        c.movdqa(__xmmword_ptr[esi + (int)Data], xmm0);
        c.add(__dword_ptr[esi + (int)Data + 4], ebx);
        c.fld(st0);
        c.fsqrt();
        c.faddp(st1, st0);
        c.fstp(__qword_ptr[Stack]);
        c.xor(__dword_ptr[Stack + 4], 0x100000); // between two powers of two
        c.and(__dword_ptr[Stack + 4], 0x403fffff);
        c.fld(__qword_ptr[Stack]);
        c.dec(ecx);
        c.jnz(inner);
        c.movd(eax, xmm0);
        c.add(eax, __dword_ptr[Stack]);
        c.add(eax, ebx);
        c.and(al, 15);
        c.add(al, (sbyte)'a');
        c.mov(dx, 0x3f8);
        c.@out(dx, al);
        c.mov(__byte_ptr[Stack + 16], al);
        c.mov(esi, Stack + 16);
        c.mov(ecx, 1);
        c.rep.outsb();
        c.dec(ebp);
        c.jnz(outer);
        c.Label(ref last);
        c.mov(al, 42);
        c.@out(0xf4, al);
        c.jmp(last);
    }
}

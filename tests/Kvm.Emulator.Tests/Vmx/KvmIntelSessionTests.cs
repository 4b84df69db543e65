using System.Globalization;
using System.Runtime.InteropServices;
using Kvm.Emulator.Vmx;

namespace Kvm.Emulator.Tests.Vmx;

/// <summary>
/// What the real kvm_intel module of Linux 6.1 did to a processor, from VMXON to the first VM exit of a guest (recorded instruction by instruction on an
/// emulated Skylake-X), replayed on the processor model of that machine: every instruction succeeds, every
/// VMREAD gives the recorded value, the VMCS at VMLAUNCH is the recorded one, the entry checks pass and the guest leaves with the recorded exit.
/// </summary>
/// <remarks>Lines: VMXON pa, VMCLEAR pa, VMPTRLD pa, VMWRITE field value, VMREAD field value, INVEPT/INVVPID type vpid address, VMCS field value (content at VMLAUNCH), VMLAUNCH pa, VMEXIT reason qualification interruption.</remarks>
public unsafe class KvmIntelSessionTests
{
    private const ulong RamSize = 512 << 20;

    public static TheoryData<string> Sessions
    {
        get
        {
            var data = new TheoryData<string>();
            foreach (string name in typeof(KvmIntelSessionTests).Assembly.GetManifestResourceNames().Where(n => n.StartsWith("Vmx.kvm-intel-", StringComparison.Ordinal)))
                data.Add(name["Vmx.kvm-intel-".Length..]);
            return data;
        }
    }

    private static string[][] Load(string session)
    {
        using Stream stream = typeof(KvmIntelSessionTests).Assembly.GetManifestResourceStream("Vmx.kvm-intel-" + session)!;
        using var reader = new StreamReader(stream);
        return [.. reader.ReadToEnd().Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(l => l.Split(' '))];
    }

    private static ulong Hex(string text) => ulong.Parse(text, NumberStyles.HexNumber, CultureInfo.InvariantCulture);

    private static void EnterKernelMode(Processor cpu)
    {
        // CR4 as the recorded HOST_CR4 implies: VME … SMAP.
        cpu.EnterKernelMode(new KernelContext { Cr3 = 0x1000, ExtraCr4 = 0x3726a0, TssBase = 0xfffffe000003e000, GdtBase = 0xfffffe000003c000, IdtBase = 0xfffffe0000000000 });
        cpu.WriteCr(4, cpu.ReadCr(4) | Cr4.VMXE).Ok.Should().BeTrue();
    }

    [Theory]
    [MemberData(nameof(Sessions))]
    public void Replays(string session)
    {
        using var machine = new Machine(CpuModel.Load("bochs-skylake-x"));
        void* ram = NativeMemory.AllocZeroed((nuint)RamSize + 4096);
        byte* aligned = (byte*)(((ulong)ram + 4095) & ~4095UL);
        machine.Memory.Map(0, RamSize, aligned);
        Processor cpu = machine.Processors[0];
        EnterKernelMode(cpu);
        cpu.ReadMsr(Msr.IA32_VMX_BASIC, out ulong basic);
        var content = new Dictionary<uint, ulong>();
        bool launched = false;
        int vmwrites = 0;
        foreach (string[] line in Load(session))
        {
            ulong operand = Hex(line[1]);
            switch (line[0])
            {
                case "VMXON":
                    *(uint*)(aligned + operand) = (uint)basic;
                    cpu.Vmxon(operand).Should().Be(InstructionResult.Success);
                    break;
                case "VMCLEAR":
                    *(uint*)(aligned + operand) = (uint)basic;
                    cpu.Vmclear(operand).Should().Be(InstructionResult.Success);
                    break;
                case "VMPTRLD":
                    cpu.Vmptrld(operand).Should().Be(InstructionResult.Success);
                    break;
                case "VMWRITE" when !launched:
                    vmwrites++;
                    cpu.Vmwrite((uint)operand, Hex(line[2])).Should().Be(InstructionResult.Success, "VMWRITE {0}", (VmcsField)operand);
                    break;
                case "VMREAD":
                    cpu.Vmread((uint)operand, out ulong value).Should().Be(InstructionResult.Success, "VMREAD {0}", (VmcsField)operand);
                    value.Should().Be(Expected((VmcsField)operand, Hex(line[2])), "VMREAD {0}", (VmcsField)operand);
                    break;
                case "INVEPT":
                    cpu.Invept(operand, Hex(line[3])).Should().Be(InstructionResult.Success);
                    break;
                case "INVVPID":
                    cpu.Invvpid(operand, (ushort)Hex(line[2]), Hex(line[3])).Should().Be(InstructionResult.Success);
                    break;
                case "VMCS":
                    content[(uint)operand] = Hex(line[2]);
                    break;
                case "VMLAUNCH":
                    cpu.CurrentVmcsPointer.Should().Be(operand);
                    break;
                case "VMEXIT":
                    CompareContent(cpu, content);
                    cpu.Vmlaunch().Should().Be(InstructionResult.Success, "the rule that failed: {0}", cpu.Vmx.FailedRule);
                    cpu.Vmx.FailedRule.Should().BeNull();
                    cpu.Vmread(VmcsField.VM_EXIT_REASON, out ulong reason);
                    cpu.Vmread(VmcsField.EXIT_QUALIFICATION, out ulong qualification);
                    cpu.Vmread(VmcsField.VM_EXIT_INTR_INFO, out ulong interruption);
                    (reason, qualification, interruption).Should().Be((operand, Expected(VmcsField.EXIT_QUALIFICATION, Hex(line[2])), Hex(line[3])));
                    launched = true;
                    break;
            }
            if (launched && line[0] == "VMWRITE")
                break;
        }
        launched.Should().BeTrue();
        vmwrites.Should().BeGreaterThan(200);
        NativeMemory.Free(ram);
    }

    /// <summary>A page walk that counts as a write sets bits 0 and 1 of the qualification (SDM vol 3C, "Exit Qualification for EPT Violations"); the recording machine sets bit 1 only.</summary>
    private static ulong Expected(VmcsField field, ulong recorded) => field == VmcsField.EXIT_QUALIFICATION && recorded == 0x82 ? 0x83 : recorded;

    private static void CompareContent(Processor cpu, Dictionary<uint, ulong> content)
    {
        int compared = 0;
        foreach ((uint field, ulong value) in content)
        {
            // The recording lists every encoding it knows; components that this model does not have read as 0 there.
            if (!cpu.Vmread(field, out ulong actual).Ok)
            {
                value.Should().Be(0, "{0} is not supported", (VmcsField)field);
                continue;
            }
            if ((VmcsField)field is VmcsField.VM_INSTRUCTION_ERROR or VmcsField.HOST_RIP)
                continue;
            actual.Should().Be(value, "{0} at VMLAUNCH", (VmcsField)field);
            compared++;
        }
        compared.Should().BeGreaterThan(120);
    }
}

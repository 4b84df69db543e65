using Kvm.Emulator.Vmx;

namespace Kvm.Emulator.Tests.Vmx;

/// <summary>Whatever a VMCS, its tables and its guest contain, an entry ends in a failure or an exit, never in a crash of the process.</summary>
public unsafe class VmxRobustnessTests
{
    private static readonly VmcsField[] Fields = [.. Enum.GetValues<VmcsField>().Where(f => ((uint)f & 1) == 0)];

    private static ulong RandomValue(Random random, VmxMachine m, ulong old) => random.Next(8) switch
    {
        0 => 0,
        1 => ulong.MaxValue,
        2 => old ^ (1UL << random.Next(64)),
        3 => (ulong)random.NextInt64(),
        4 => (ulong)random.Next(16),
        5 => (ulong)m.Guest + ((ulong)random.Next(512) << 12),
        6 => old + 1,
        _ => old ^ (ulong)(uint)random.Next(),
    };

    [Theory]
    [InlineData(11), InlineData(12), InlineData(13), InlineData(14), InlineData(15), InlineData(16), InlineData(17), InlineData(18)]
    public void Random_VMCS_contents(int seed)
    {
        var random = new Random(seed);
        using VmxMachine m = new VmxMachine().WithGuest(longMode: true);
        using var events = new Periodic(() =>
        {
            // A guest that waits or loops is ended by one of these.
            m.Cpu.RaiseInterrupt(0x40);
            m.Cpu.RaiseNmi();
            m.Cpu.RaiseInit();
            m.Cpu.RaiseSipi(1);
        }, 1);
        EnterRandomly(random, m);
    }

    private static void EnterRandomly(Random random, VmxMachine m)
    {
        byte[] pristine = new byte[4096];
        m.Cpu.Vmclear(m.VmcsPage);
        new Span<byte>((void*)m.VmcsPage, 4096).CopyTo(pristine);
        int entered = 0;
        for (int i = 0; i < 1000; i++)
        {
            VmxMachine.EnterKernelMode(m.Cpu);
            m.State->Cr4 |= Cr4.VMXE;
            m.Cpu.Vmclear(m.VmcsPage);
            pristine.CopyTo(new Span<byte>((void*)m.VmcsPage, 4096));
            m.Cpu.Vmptrld(m.VmcsPage).Ok.Should().BeTrue();
            random.NextBytes(new Span<byte>(m.Guest + VmxMachine.CodeAddress, 256));
            for (int n = random.Next(1, 6); n > 0; n--)
            {
                VmcsField field = Fields[random.Next(Fields.Length)];
                if (m.Cpu.Vmread(field, out ulong old).Ok)
                    m.Cpu.Vmwrite(field, RandomValue(random, m, old));
            }
            InstructionResult result = m.Cpu.Vmlaunch();
            m.Cpu.NonRoot.Should().BeNull();
            if (result.Ok && (m.Read(VmcsField.VM_EXIT_REASON) >> 31) == 0)
                entered++;
        }
        entered.Should().BeGreaterThan(50);
    }

    [Theory]
    [InlineData(21), InlineData(22)]
    public void Random_EPT_entries(int seed)
    {
        var random = new Random(seed);
        using VmxMachine m = new VmxMachine().WithGuest(longMode: true);
        m.Code(64, a => a.hlt());
        m.Set(VmcsField.EPT_POINTER, 0x40);
        ulong* pml4 = (ulong*)m.EptRoot;
        ulong* pdpt = (ulong*)(*pml4 & ~0xfffUL);
        ulong* pd = (ulong*)(*pdpt & ~0xfffUL);
        (ulong pml4Entry, ulong pdptEntry, ulong pdEntry) = (*pml4, *pdpt, *pd);
        m.Launch();
        var reasons = new HashSet<VmxExitReason>();
        for (int i = 0; i < 2000; i++)
        {
            (*pml4, *pdpt, *pd) = (pml4Entry, pdptEntry, pdEntry);
            for (int page = 0; page < 16; page++)
                m.EptEntry(page) = ((ulong)m.Guest + ((ulong)page << 12)) | 7 | 6 << 3;
            ulong flip = 1UL << random.Next(64);
            switch (random.Next(5))
            {
                case 0: *pml4 ^= flip; break;
                case 1: *pdpt ^= flip; break;
                case 2: *pd ^= flip; break;
                default: m.EptEntry(random.Next(16)) ^= flip; break;
            }
            m.Cpu.Invept(2, 0);
            m.Write(VmcsField.GUEST_RIP, VmxMachine.CodeAddress);
            m.Write(VmcsField.GUEST_RFLAGS, 2);
            m.Write(VmcsField.GUEST_INTERRUPTIBILITY_INFO, 0);
            reasons.Add(m.Resume());
        }
        reasons.Should().Contain([VmxExitReason.HLT, VmxExitReason.EPT_MISCONFIG, VmxExitReason.EPT_VIOLATION]);
    }
}

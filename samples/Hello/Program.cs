using Kvm.Abi;
using Kvm.Client;
using static Kvm.Abi.Uapi;

byte[] code =
[
    0xba, 0xf8, 0x03, // mov dx, 0x3f8
    0x00, 0xd8,       // add al, bl
    0x04, 0x30,       // add al, '0'
    0xee,             // out dx, al
    0xf4,             // hlt
];

// A computer of its own with an Intel processor. KvmBackend.Native instead: this host's /dev/kvm.
using var kvm = KvmSystem.Open(KvmBackend.ByName("model", cpu: "intel"));
using var vm = kvm.CreateVm();
using var ram = vm.MapMemory(slot: 0, guestAddress: 0x1000, size: 0x1000);
code.CopyTo(ram.Span);

using var vcpu = vm.CreateVcpu(0);
kvm_sregs sregs = vcpu.SRegs; // out of reset at F000:FFF0; we want 0000:1000
sregs.cs.@base = 0;
sregs.cs.selector = 0;
vcpu.SRegs = sregs;
vcpu.Regs = new kvm_regs { rip = 0x1000, rax = 2, rbx = 2, rflags = 2 };

while (true)
{
    VcpuExit exit = vcpu.Run();
    if (exit.Reason == KVM_EXIT_HLT) break;
    if (exit.Reason != KVM_EXIT_IO || exit.Io.Port != 0x3f8) throw new InvalidOperationException(exit.ReasonName);
    Console.WriteLine($"the guest says {(char)exit.Io.Data[0]}"); // the guest says 4
}

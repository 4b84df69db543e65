using Kvm.Abi;
using Kvm.Arch.X86;
using Kvm.Arch.X86.Vmx;
using Kvm.Core;
using Kvm.Emulator;
using static Kvm.Abi.Uapi;

using var kernel = KernelHost.Create(MachineOptions.Uniform(CpuModel.IntelSkylake, count: 2));
Console.WriteLine(kernel.LoadVendor(new KvmIntel(kernel.Arch))); // 0: modprobe kvm_intel

HostProcess process = kernel.Host.Process;
int kvm = process.Open("/dev/kvm", O_RDWR | O_CLOEXEC).Value;
int vm = process.Ioctl(kvm, KVM_CREATE_VM).Value;
int vcpu = process.Ioctl(vm, KVM_CREATE_VCPU, 0).Value;

Console.WriteLine(process.Ioctl(vm, KVM_CREATE_VCPU, 0)); // -EEXIST
Console.WriteLine(process.Ioctl(vm, KVM_RUN));            // -ENOTTY: that is an ioctl of a vCPU

kernel.Host.Faults.Fail("alloc_page:kvm_run");            // whatever can fail fails on demand, and is undone
Console.WriteLine(process.Ioctl(vm, KVM_CREATE_VCPU, 1)); // -ENOMEM
Console.WriteLine(process.Ioctl(vm, KVM_CREATE_VCPU, 1)); // 3: the next descriptor

kvm_regs regs = default;
process.Ioctl(vcpu, KVM_GET_REGS, ref regs);
Console.WriteLine($"0x{regs.rip:x}");                     // 0xfff0

using System.Text;
using Kvm.Arch.X86;
using Kvm.Core;
using Kvm.Emulator;

namespace Kvm.Conformance.Tests.Failures;

/// <summary>All that a call which failed must leave as it was, as text: pages and what they are for, descriptors, modules, VMs, slots, mappings, processors.</summary>
internal static unsafe class HostState
{
    private const ulong cr4Vmxe = 1 << 13, eferSvme = 1 << 12;

    /// <remarks>
    /// Without the pages of nested and shadow page tables: a KVM_RUN that fails keeps those it has set aside for later, and a slot that can't be moved has lost its entries before;
    /// in the kernel too. And without the slots of the identity page table and of the APIC access page, which the first vCPU of a VM makes and later ones find, whether that vCPU lives or not.
    /// Arrays of slots are that slot's too; what a session forgets to give back shows at its end.
    /// </remarks>
    public static string Of(KernelHost kernel)
    {
        var text = new StringBuilder();
        Host host = kernel.Host;
        foreach ((string tag, long n) in host.Pages.InUseByTag.Where(static t => t.Key is not ("kvm_mmu_page" or "kvm_mmu_shadowed_info" or "vmalloc:gfn_track" or "vmalloc:lpage_info" or "vmalloc:rmap")).OrderBy(static t => t.Key, StringComparer.Ordinal))
            text.Append($"pages {tag} {n}\n");
        text.Append($"files {host.OpenFileCount}: {string.Join(' ', host.Process.Files.Open)}\n");
        foreach (HostModule module in host.Modules.Loaded)
            text.Append($"module {module.Name} {module.RefCount}\n");
        text.Append($"devices {string.Join(' ', host.Devices.All.Select(static d => d.Path))}\n");
        text.Append($"debugfs {(host.Debugfs.Exists("kvm") ? host.Debugfs.List("kvm").Count : 0)}\n");
        text.Append($"usage {kernel.Kvm.UsageCount} vendor {kernel.Kvm.Vendor?.Name}\n");
        int quiet = 0;
        foreach (KvmVm vm in kernel.Kvm.VmList)
        {
            ulong pages = vm.NrMemslotPages;
            for (int space = 0; space < KvmLimits.KVM_ADDRESS_SPACE_NUM; space++)
            {
                foreach (KvmMemorySlot slot in vm.Memslots(space).ByGfn)
                {
                    if (slot.Id is not (X86Arch.IDENTITY_PAGETABLE_PRIVATE_MEMSLOT or X86Arch.APIC_ACCESS_PAGE_PRIVATE_MEMSLOT))
                        text.Append($"slot {space} {slot.Id} {slot.BaseGfn:x} {slot.Npages:x} {slot.UserspaceAddr:x} {slot.Flags:x}\n");
                    else if (space == 0)
                        quiet++;
                    else
                        pages -= 2;
                }
            }

            text.Append($"vm users {vm.UsersCount} vcpus {vm.CreatedVcpus} {vm.OnlineVcpus} pages {pages} devices {vm.Devices.Count} ring {vm.DirtyRingSize}\n");
        }

        text.Append($"mappings {host.Process.Mm.Vmas.Count - quiet} notifiers {host.Process.Mm.NotifierCount}\n");

        foreach (Processor cpu in kernel.Machine.Processors)
            text.Append($"cpu{cpu.Index} vmxe {(cpu.State->Cr4 & cr4Vmxe) != 0} vmx {cpu.InVmxOperation} svme {(cpu.State->Efer & eferSvme) != 0}\n");
        return text.ToString();
    }
}

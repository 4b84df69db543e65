using Kvm.Abi;
using static Kvm.Abi.Uapi;

namespace Kvm.Client;

/// <summary>MSR lists and values as ioctl arguments.</summary>
internal static class MsrAccess
{
    /// <summary>Asks for the number first (E2BIG, nmsrs set), then for the list.</summary>
    public static uint[] GetList(KvmFd fd, uint request)
    {
        uint count = 0;
        while (true)
        {
            using var argument = new VariableArgument<kvm_msr_list, uint>((int)count, 4);
            argument.Header.nmsrs = count;
            long result = fd.TryIoctl(request, argument.Address);
            if (result >= 0) return argument.Elements[..(int)argument.Header.nmsrs].ToArray();
            if (result != -(long)Errno.E2BIG || argument.Header.nmsrs <= count) throw new KvmException(IoctlNames.Of(request), (Errno)(-result));
            count = argument.Header.nmsrs;
        }
    }

    public static int Get(KvmFd fd, Span<kvm_msr_entry> entries)
    {
        using var argument = new VariableArgument<kvm_msrs, kvm_msr_entry>(entries.Length, 8);
        argument.Header.nmsrs = (uint)entries.Length;
        entries.CopyTo(argument.Elements);
        int done = (int)fd.Ioctl(KVM_GET_MSRS, argument.Address);
        argument.Elements[..done].CopyTo(entries);
        return done;
    }

    public static int Set(KvmFd fd, ReadOnlySpan<kvm_msr_entry> entries)
    {
        using var argument = new VariableArgument<kvm_msrs, kvm_msr_entry>(entries.Length, 8);
        argument.Header.nmsrs = (uint)entries.Length;
        entries.CopyTo(argument.Elements);
        return (int)fd.Ioctl(KVM_SET_MSRS, argument.Address);
    }
}

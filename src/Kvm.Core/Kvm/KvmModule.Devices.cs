using Kvm.Abi;
using Kvm.Core.Tracing;

namespace Kvm.Core;

/// <remarks>KVM_CREATE_DEVICE.</remarks>
public sealed partial class KvmModule
{
    private readonly Func<KvmVm, KvmVmDevice>?[] _deviceTypes = new Func<KvmVm, KvmVmDevice>?[(int)kvm_device_type.KVM_DEV_TYPE_MAX];

    internal KvmVmDeviceOperations VmDeviceOperations { get; } = new();

    /// <summary>kvm_register_device_ops: -ENOSPC for an unknown type, -EEXIST when taken.</summary>
    [KernelFunction("kvm_register_device_ops", File = "virt/kvm/kvm_main.c")]
    public KvmResult RegisterDevice(int type, Func<KvmVm, KvmVmDevice> create)
    {
        FunctionTrace.Leaf("kvm_register_device_ops");
        if ((uint)type >= (uint)_deviceTypes.Length) return Errno.ENOSPC;
        if (_deviceTypes[type] is not null) return Errno.EEXIST;
        _deviceTypes[type] = create;
        return 0;
    }

    /// <summary>kvm_unregister_device_ops.</summary>
    [KernelFunction("kvm_unregister_device_ops", File = "virt/kvm/kvm_main.c")]
    public void UnregisterDevice(int type)
    {
        FunctionTrace.Leaf("kvm_unregister_device_ops");
        _deviceTypes[type] = null;
    }

    /// <summary>-ENODEV for a type that this host has not; with KVM_CREATE_DEVICE_TEST that is all that is asked.</summary>
    [KernelFunction("kvm_ioctl_create_device", File = "virt/kvm/kvm_main.c")]
    internal KvmResult IoctlCreateDevice(KvmVm vm, ref kvm_create_device cd)
    {
        if (cd.type >= (uint)_deviceTypes.Length || _deviceTypes[cd.type] is not { } make) return Errno.ENODEV;
        if ((cd.flags & Uapi.KVM_CREATE_DEVICE_TEST) != 0) return 0;
        if (Host.Faults.ShouldFail("kzalloc", "kvm_device")) return Errno.ENOMEM;
        KvmVmDevice device = make(vm);
        KvmResult r;
        using (vm.Lock.Enter())
        {
            r = device.Create();
            if (r.IsError) return r;
            vm.Devices.Add(device);
        }

        device.Init();
        vm.Get();
        r = Host.AnonInodeGetFd(device.Name, VmDeviceOperations, device, Fcntl.O_RDWR | Fcntl.O_CLOEXEC);
        if (r.IsError)
        {
            vm.PutNoDestroy();
            using var _ = vm.Lock.Enter();
            vm.Devices.Remove(device);
            device.Release();
            return r;
        }

        cd.fd = (uint)r.Value;
        return 0;
    }
}

namespace Kvm.Emulator;

/// <summary>Who designed the processor: decides VMX or SVM, SYSENTER/SYSCALL rules and a few undefined corners.</summary>
public enum CpuVendor { Intel, Amd }

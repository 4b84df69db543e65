namespace Kvm.Core;

/// <summary>A handler that takes the argument by value.</summary>
public delegate KvmResult IoctlValue<in TTarget>(TTarget target, ulong arg);

/// <summary>A handler whose argument is copied in before the call (_IOW).</summary>
public delegate KvmResult IoctlIn<in TTarget, T>(TTarget target, in T value) where T : unmanaged;

/// <summary>A handler whose result is copied out when it succeeded (_IOR).</summary>
public delegate KvmResult IoctlOut<in TTarget, T>(TTarget target, ref T value) where T : unmanaged;

/// <summary>A handler whose argument is copied in before and copied out when it succeeded (_IOWR).</summary>
public delegate KvmResult IoctlRef<in TTarget, T>(TTarget target, ref T value) where T : unmanaged;

/// <summary>A handler that copies by itself: it checks before it copies, or the argument has a flexible array.</summary>
public delegate KvmResult IoctlPtr<in TTarget, T>(TTarget target, UserPtr<T> argp) where T : unmanaged;

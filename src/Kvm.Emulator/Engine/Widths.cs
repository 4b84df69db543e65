using System.Runtime.CompilerServices;

namespace Kvm.Emulator.Engine;

/// <summary>An operand width as a type argument, so that one handler text gives one specialised handler per width.</summary>
internal unsafe interface IWidth
{
    static abstract int Size { get; }
    static abstract int Bits { get; }
    /// <summary>Loads from memory or a register, zero-extended.</summary>
    static abstract ulong Load(void* p);
    /// <summary>Loads sign-extended.</summary>
    static abstract ulong LoadSigned(void* p);
    static abstract void Store(void* p, ulong value);
    /// <summary>Stores to a register: 32-bit results clear the upper half.</summary>
    static abstract void StoreRegister(void* p, ulong value);
    static abstract ulong Sign(ulong value);
    static abstract ulong Zero(ulong value);
    /// <summary>Atomic compare-exchange; returns what was there.</summary>
    static abstract ulong CompareExchange(void* p, ulong value, ulong comparand);
    static abstract ulong Exchange(void* p, ulong value);
}

internal readonly unsafe struct W8 : IWidth
{
    public static int Size => 1;
    public static int Bits => 8;
    [MethodImpl(MethodImplOptions.AggressiveInlining)] public static ulong Load(void* p) => *(byte*)p;
    [MethodImpl(MethodImplOptions.AggressiveInlining)] public static ulong LoadSigned(void* p) => (ulong)*(sbyte*)p;
    [MethodImpl(MethodImplOptions.AggressiveInlining)] public static void Store(void* p, ulong value) => *(byte*)p = (byte)value;
    [MethodImpl(MethodImplOptions.AggressiveInlining)] public static void StoreRegister(void* p, ulong value) => *(byte*)p = (byte)value;
    [MethodImpl(MethodImplOptions.AggressiveInlining)] public static ulong Sign(ulong value) => (ulong)(sbyte)value;
    [MethodImpl(MethodImplOptions.AggressiveInlining)] public static ulong Zero(ulong value) => (byte)value;
    public static ulong CompareExchange(void* p, ulong value, ulong comparand) => Interlocked.CompareExchange(ref *(byte*)p, (byte)value, (byte)comparand);
    public static ulong Exchange(void* p, ulong value) => Interlocked.Exchange(ref *(byte*)p, (byte)value);
}

internal readonly unsafe struct W16 : IWidth
{
    public static int Size => 2;
    public static int Bits => 16;
    [MethodImpl(MethodImplOptions.AggressiveInlining)] public static ulong Load(void* p) => *(ushort*)p;
    [MethodImpl(MethodImplOptions.AggressiveInlining)] public static ulong LoadSigned(void* p) => (ulong)*(short*)p;
    [MethodImpl(MethodImplOptions.AggressiveInlining)] public static void Store(void* p, ulong value) => *(ushort*)p = (ushort)value;
    [MethodImpl(MethodImplOptions.AggressiveInlining)] public static void StoreRegister(void* p, ulong value) => *(ushort*)p = (ushort)value;
    [MethodImpl(MethodImplOptions.AggressiveInlining)] public static ulong Sign(ulong value) => (ulong)(short)value;
    [MethodImpl(MethodImplOptions.AggressiveInlining)] public static ulong Zero(ulong value) => (ushort)value;
    public static ulong CompareExchange(void* p, ulong value, ulong comparand) => Interlocked.CompareExchange(ref *(ushort*)p, (ushort)value, (ushort)comparand);
    public static ulong Exchange(void* p, ulong value) => Interlocked.Exchange(ref *(ushort*)p, (ushort)value);
}

internal readonly unsafe struct W32 : IWidth
{
    public static int Size => 4;
    public static int Bits => 32;
    [MethodImpl(MethodImplOptions.AggressiveInlining)] public static ulong Load(void* p) => *(uint*)p;
    [MethodImpl(MethodImplOptions.AggressiveInlining)] public static ulong LoadSigned(void* p) => (ulong)*(int*)p;
    [MethodImpl(MethodImplOptions.AggressiveInlining)] public static void Store(void* p, ulong value) => *(uint*)p = (uint)value;
    [MethodImpl(MethodImplOptions.AggressiveInlining)] public static void StoreRegister(void* p, ulong value) => *(ulong*)p = (uint)value;
    [MethodImpl(MethodImplOptions.AggressiveInlining)] public static ulong Sign(ulong value) => (ulong)(int)value;
    [MethodImpl(MethodImplOptions.AggressiveInlining)] public static ulong Zero(ulong value) => (uint)value;
    public static ulong CompareExchange(void* p, ulong value, ulong comparand) => Interlocked.CompareExchange(ref *(uint*)p, (uint)value, (uint)comparand);
    public static ulong Exchange(void* p, ulong value) => Interlocked.Exchange(ref *(uint*)p, (uint)value);
}

internal readonly unsafe struct W64 : IWidth
{
    public static int Size => 8;
    public static int Bits => 64;
    [MethodImpl(MethodImplOptions.AggressiveInlining)] public static ulong Load(void* p) => *(ulong*)p;
    [MethodImpl(MethodImplOptions.AggressiveInlining)] public static ulong LoadSigned(void* p) => *(ulong*)p;
    [MethodImpl(MethodImplOptions.AggressiveInlining)] public static void Store(void* p, ulong value) => *(ulong*)p = value;
    [MethodImpl(MethodImplOptions.AggressiveInlining)] public static void StoreRegister(void* p, ulong value) => *(ulong*)p = value;
    [MethodImpl(MethodImplOptions.AggressiveInlining)] public static ulong Sign(ulong value) => value;
    [MethodImpl(MethodImplOptions.AggressiveInlining)] public static ulong Zero(ulong value) => value;
    public static ulong CompareExchange(void* p, ulong value, ulong comparand) => Interlocked.CompareExchange(ref *(ulong*)p, value, comparand);
    public static ulong Exchange(void* p, ulong value) => Interlocked.Exchange(ref *(ulong*)p, value);
}

namespace Kvm.Abi;

/// <summary>
/// A C structure that ends in a flexible array member: its elements follow the structure in memory and are not part of its size.
/// </summary>
[AttributeUsage(AttributeTargets.Struct, AllowMultiple = true)]
public sealed class FlexibleArrayAttribute(string name, Type elementType) : Attribute
{
    /// <summary>The member's name in C.</summary>
    public string Name { get; } = name;

    public Type ElementType { get; } = elementType;

    /// <summary>Bytes from the start of the structure to the first element.</summary>
    public int Offset { get; init; }
}

namespace Lifecycle;

/// <summary>An unwinding label of a kernel function, and a failure that jumps to it.</summary>
/// <param name="Function">The kernel function.</param>
/// <param name="Name">The label in it. From there it falls through the labels before it in this list, to its end.</param>
/// <param name="Point">The fault point: "kind:tag". Null: a processor that can't enable virtualization. Empty: nothing jumps there, and <paramref name="Meaning"/> says why.</param>
/// <param name="Use">Which use of the point fails, 1 the first.</param>
/// <param name="Meaning">What this label undoes, in addition to those before it.</param>
/// <param name="Vendor">intel, amd, or both where null.</param>
internal sealed record Label(string Function, string Name, string? Point, int Use, string Meaning, string? Vendor = null);

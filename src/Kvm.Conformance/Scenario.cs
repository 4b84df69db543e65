using System.Text.Json;

namespace Kvm.Conformance;

/// <summary>One recorded scenario: steps that a real kernel was asked, with its answers.</summary>
/// <param name="Name">Group and name, such as <c>irqchip/create-twice</c>.</param>
/// <param name="Portable">Its answers do not depend on the vendor or the recorded host.</param>
/// <param name="Steps">The array of steps.</param>
public sealed record Scenario(string Name, bool Portable, JsonElement Steps);

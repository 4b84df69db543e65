namespace Kvm.Vmm.Migration;

/// <summary>A saved state that can't be read, or does not fit the machine it shall be restored into. The message says what is wrong and where.</summary>
public sealed class StateFileException(string message, Exception? inner = null) : Exception(message, inner);

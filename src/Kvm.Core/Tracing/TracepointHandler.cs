namespace Kvm.Core.Tracing;

/// <summary>Gets every tracepoint event.</summary>
public delegate void TracepointHandler(in TracepointRecord record);

namespace Kvm.Emulator.Engine;

/// <summary>
/// How <see cref="VectorLoop"/> computes floating-point instructions, by their names: destination first, both are operands as they lie in the registers or memory.
/// False: nothing has happened, the instruction's handler has to do it.
/// </summary>
internal unsafe interface IVectorArithmetic
{
    /// <summary>Whether MXCSR has controls that the rest is made for. From here to <see cref="End"/> it may lack flags of what has been computed.</summary>
    static abstract bool Begin(CpuState* s);

    static abstract void End(CpuState* s);

    static abstract bool AddSd(byte* to, byte* from);
    static abstract bool SubSd(byte* to, byte* from);
    static abstract bool MulSd(byte* to, byte* from);
    static abstract bool DivSd(byte* to, byte* from);
    static abstract bool SqrtSd(byte* to, byte* from);
    static abstract bool AddSs(byte* to, byte* from);
    static abstract bool SubSs(byte* to, byte* from);
    static abstract bool MulSs(byte* to, byte* from);
    static abstract bool DivSs(byte* to, byte* from);
    static abstract bool AddPd(byte* to, byte* from);
    static abstract bool SubPd(byte* to, byte* from);
    static abstract bool MulPd(byte* to, byte* from);
    static abstract bool DivPd(byte* to, byte* from);
    static abstract bool AddPs(byte* to, byte* from);
    static abstract bool SubPs(byte* to, byte* from);
    static abstract bool MulPs(byte* to, byte* from);
    static abstract bool DivPs(byte* to, byte* from);

    /// <summary>From a general register or memory.</summary>
    static abstract bool CvtSi64Sd(byte* to, byte* from);
    static abstract bool CvtSi32Ss(byte* to, byte* from);

    /// <summary>To a general register, all of it.</summary>
    static abstract bool CvttSdSi32(byte* to, byte* from);
    static abstract bool CvttSdSi64(byte* to, byte* from);
    static abstract bool CvttSsSi32(byte* to, byte* from);
    static abstract bool CvtSsSd(byte* to, byte* from);
    static abstract bool CvtSdSs(byte* to, byte* from);

    /// <summary>The first operand is greater, less, equal: one of three bits, and the arithmetic flags above them.</summary>
    const uint Greater = 1, Less = 2 | 1 << 8, Equal = 4 | 0x40 << 8;

    /// <summary>COMISD and UCOMISD; 0: left to the handler.</summary>
    static abstract uint ComiSd(byte* first, byte* second);
    static abstract uint ComiSs(byte* first, byte* second);
}

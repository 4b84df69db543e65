using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;

namespace Kvm.Emulator.Svm;

/// <summary>
/// Segment registers in and out of VMCBs, four at a time. The form of the VMCB and that of the processor are both kept of what was converted last,
/// so that a run of entries and exits which leave the segments alone compares and copies instead of converting (ARCHITECTURE D3).
/// </summary>
internal sealed unsafe partial class SvmUnit
{
    /// <summary>Four segment registers in both forms. The bytes are compared whole, so nothing else says that they are still true.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct SegmentImage
    {
        public Vector256<byte> Vmcb0, Vmcb1;
        public Vector256<byte> Cpu0, Cpu1, Cpu2;
        /// <summary>The two forms can be made of each other, both ways.</summary>
        public bool Valid;
        /// <summary>Counts the changes of the image.</summary>
        public uint Generation;
    }

    private const int ImageBytes = 192, Images = 4;

    /// <summary>ES CS SS DS and FS GS LDTR TR, of the guest and of the host.</summary>
    private readonly SegmentImage* guestData, hostData, guestSystem, hostSystem;

    private static SegmentImage* Image(byte* block, int n) => (SegmentImage*)(block + (n * ImageBytes));

    private SegmentImage* SystemImage(ulong pa) => pa == HsavePa ? hostSystem : guestSystem;

    private byte* DataSegments => (byte*)Unsafe.AsPointer(ref state->Segs);
    private byte* SystemSegments => DataSegments + (4 * sizeof(SegmentCache));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private void LoadDataSegments(VmcbSaveArea* s, SegmentImage* image)
        => LoadSegments(Vector256.Load((byte*)&s->Es), Vector256.Load((byte*)&s->Ss), image, DataSegments);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private void StoreDataSegments(VmcbSaveArea* s, SegmentImage* image)
    {
        StoreSegments(DataSegments, image, out Vector256<byte> low, out Vector256<byte> high);
        low.Store((byte*)&s->Es);
        high.Store((byte*)&s->Ss);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void LoadSegments(Vector256<byte> low, Vector256<byte> high, SegmentImage* image, byte* to)
    {
        if (!image->Valid || ((low ^ image->Vmcb0) | (high ^ image->Vmcb1)) != Vector256<byte>.Zero)
            ToCpu(low, high, image, (SegmentCache*)to);
        else
        {
            image->Cpu0.Store(to);
            image->Cpu1.Store(to + 32);
            image->Cpu2.Store(to + 64);
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void StoreSegments(byte* from, SegmentImage* image, out Vector256<byte> low, out Vector256<byte> high)
    {
        if (!image->Valid
            || ((Vector256.Load(from) ^ image->Cpu0) | (Vector256.Load(from + 32) ^ image->Cpu1) | (Vector256.Load(from + 64) ^ image->Cpu2)) != Vector256<byte>.Zero)
        {
            ToVmcb((SegmentCache*)from, image, out low, out high);
            return;
        }
        low = image->Vmcb0;
        high = image->Vmcb1;
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static void ToCpu(Vector256<byte> low, Vector256<byte> high, SegmentImage* image, SegmentCache* to)
    {
        VmcbSegment* from = stackalloc VmcbSegment[4];
        low.Store((byte*)from);
        high.Store((byte*)(from + 2));
        bool exact = true;
        for (int i = 0; i < 4; i++)
        {
            to[i].Selector = from[i].Selector;
            to[i].AccessRights = VmcbSegment.ToAccessRights(from[i].Attributes);
            to[i].Limit = from[i].Limit;
            to[i].Base = from[i].Base;
            exact &= VmcbSegment.ToAttributes(to[i].AccessRights) == from[i].Attributes;
        }
        Keep(image, low, high, (byte*)to, exact);
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static void ToVmcb(SegmentCache* from, SegmentImage* image, out Vector256<byte> low, out Vector256<byte> high)
    {
        VmcbSegment* to = stackalloc VmcbSegment[4];
        bool exact = true;
        for (int i = 0; i < 4; i++)
        {
            to[i].Selector = from[i].Selector;
            to[i].Attributes = VmcbSegment.ToAttributes(from[i].AccessRights);
            to[i].Limit = from[i].Limit;
            to[i].Base = from[i].Base;
            exact &= VmcbSegment.ToAccessRights(to[i].Attributes) == from[i].AccessRights;
        }
        low = Vector256.Load((byte*)to);
        high = Vector256.Load((byte*)(to + 2));
        Keep(image, low, high, (byte*)from, exact);
    }

    private static void Keep(SegmentImage* image, Vector256<byte> low, Vector256<byte> high, byte* cpu, bool exact)
    {
        image->Vmcb0 = low;
        image->Vmcb1 = high;
        image->Cpu0 = Vector256.Load(cpu);
        image->Cpu1 = Vector256.Load(cpu + 32);
        image->Cpu2 = Vector256.Load(cpu + 64);
        image->Valid = exact;
        image->Generation++;
    }

    /// <summary>The part of the state that VMRUN and #VMEXIT leave alone: FS, GS, TR, LDTR, SYSCALL and SYSENTER MSRs.</summary>
    private void LoadSystemState(VmcbSaveArea* s, SegmentImage* image)
    {
        LoadSegments(Vector256.Load((byte*)&s->Fs), Vector256.Create(Vector128.Load((byte*)&s->Ldtr), Vector128.Load((byte*)&s->Tr)), image, SystemSegments);
        // STAR … SYSENTER_EIP lie in the same order in both.
        byte* from = (byte*)&s->Star, to = (byte*)&state->Star;
        Vector256<byte> low = Vector256.Load(from), high = Vector256.Load(from + 32);
        low.Store(to);
        high.Store(to + 32);
    }

    /// <summary>The reverse of <see cref="LoadSystemState"/>.</summary>
    private void SaveSystemState(VmcbSaveArea* s, SegmentImage* image)
    {
        StoreSegments(SystemSegments, image, out Vector256<byte> low, out Vector256<byte> high);
        low.Store((byte*)&s->Fs);
        high.GetLower().Store((byte*)&s->Ldtr);
        high.GetUpper().Store((byte*)&s->Tr);
        byte* from = (byte*)&state->Star, to = (byte*)&s->Star;
        low = Vector256.Load(from);
        high = Vector256.Load(from + 32);
        low.Store(to);
        high.Store(to + 32);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Load(VmcbSegment* from, ref DescriptorTableRegister to)
    {
        to.Base = from->Base;
        to.Limit = from->Limit & 0xffff;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Store(in DescriptorTableRegister from, VmcbSegment* to)
    {
        to->Base = from.Base;
        to->Limit = from.Limit;
    }
}

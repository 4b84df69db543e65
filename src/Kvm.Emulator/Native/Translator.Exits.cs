using Kvm.Emulator.Engine;

namespace Kvm.Emulator.Native;

internal sealed unsafe partial class Translator
{
    /// <summary>A branch to code behind the block that is still to be written.</summary>
    private struct PendingExit
    {
        /// <summary>The branch's displacement.</summary>
        internal byte* From;
        internal ExitKind Kind;
        /// <summary>Edge: a conditional branch taken; where it goes, and how many instructions of the block come behind it.</summary>
        internal bool IsEdge;
        internal int Op;
        internal ulong Target;
    }

    private readonly PendingExit[] exits = new PendingExit[4 * Block.MaximumOps + 8];
    private int exitCount;

    private void Exit(byte* from, ExitKind kind, int op) => exits[exitCount++] = new PendingExit { From = from, Kind = kind, Op = op };

    /// <summary>A conditional branch to the interpreter, before the operation.</summary>
    private void InterpretIf(int condition, int op) => Exit(e.JumpIf(condition), ExitKind.Interpret, op);

    private void Exits()
    {
        // Writing one may add others.
        for (int i = 0; i < exitCount; i++)
        {
            if (exits[i].From == null)
                continue;
            PendingExit exit = exits[i];
            e.Here(exit.From);
            if (exit.IsEdge)
            {
                Edge(exit.Target, exit.Op);
                continue;
            }
            switch (exit.Kind)
            {
                case ExitKind.Head:
                    if (exit.Op != 0)
                        AddToBudget(block->OpCount);
                    LeaveTo(engine.AddSite(new Site { Block = block, Rip = rip, Kind = ExitKind.Head }));
                    break;
                case ExitKind.Link:
                case ExitKind.FarLink:
                    LeaveTo(engine.AddSite(new Site { Block = block, Rip = exit.Target, Patch = exit.Kind == ExitKind.Link ? exit.From : null, Kind = exit.Kind }));
                    break;
                default:
                    Join(i);
                    if (exit.Kind == ExitKind.Indirect)
                        e.Near(true, 0x89, HostRegister.R14, &s->NativeTarget);
                    LeaveTo(InterpretSite(exit.Op, exit.Kind));
                    break;
            }
        }
    }

    // Exits of one instruction to the interpreter are the same.
    private void Join(int first)
    {
        for (int i = first + 1; i < exitCount; i++)
        {
            ref PendingExit other = ref exits[i];
            if (other.From == null || other.IsEdge || other.Kind != exits[first].Kind || other.Op != exits[first].Op)
                continue;
            e.Here(other.From);
            other.From = null;
        }
    }

    private int InterpretSite(int op, ExitKind kind)
        => engine.AddSite(new Site
        {
            Block = block,
            Rip = rip + Block.Ops(block)[op].BlockOffset,
            Op = (ushort)op,
            Kind = kind,
            Base = hulls[op].Base,
            Low = hulls[op].Low,
            Length = op < translated ? hulls[op].Length : 0,
        });

    private void LeaveTo(int site)
    {
        e.Near(false, 0xc7, 0, &s->NativeSite, 4);
        e.Int(site);
        e.JumpTo(engine.Leave);
    }

    /// <summary>Goes on at <paramref name="target"/>; <paramref name="rest"/> instructions of the block were not executed.</summary>
    private void Edge(ulong target, int rest)
    {
        AddToBudget(rest);
        if ((target ^ rip) >> 12 != 0)
        {
            FarEdge(target);
            return;
        }
        Translation* known = target == rip ? translation : engine.Known(block, target, rip);
        if (known != null)
            e.JumpTo(known->Entry);
        else
            exits[exitCount++] = new PendingExit { From = e.Jump(), Kind = ExitKind.Link, Target = target };
    }

    private void FarEdge(ulong target)
    {
        int entry = JumpCache.Index(target) * sizeof(ulong);
        e.Near(true, 0x8b, HostRegister.R14, &s->Jumps);
        if ((ulong)(int)target == target)
        {
            e.Memory(true, 0x81, 7, HostRegister.R14, HostRegister.None, 0, entry);
            e.Int((int)target);
        }
        else
        {
            e.MoveImmediate(HostRegister.R15, target);
            e.Memory(true, 0x39, HostRegister.R15, HostRegister.R14, HostRegister.None, 0, entry);
        }
        exits[exitCount++] = new PendingExit { From = e.JumpIf(Emitter.NotEqual), Kind = ExitKind.FarLink, Target = target };
        e.Memory(false, 0xff, 4, HostRegister.R14, HostRegister.None, 0, entry + JumpCache.Offset);
    }

    /// <summary>Looks up the target in R14: R15 addresses its entry of the jump cache.</summary>
    private void FindTarget(int op)
    {
        e.Move(HostRegister.R15, HostRegister.R14);
        e.ShiftRight(HostRegister.R15, 12);
        e.Registers(true, 0x33, HostRegister.R15, HostRegister.R14);
        e.Arithmetic(false, 4, HostRegister.R15, JumpCache.Count - 1);
        e.Registers(false, 0xc1, 4, HostRegister.R15);
        e.Byte(3);
        e.Near(true, 0x03, HostRegister.R15, &s->Jumps);
        e.Memory(true, 0x3b, HostRegister.R14, HostRegister.R15, HostRegister.None, 0, 0);
        Exit(e.JumpIf(Emitter.NotEqual), ExitKind.Indirect, op);
    }
}

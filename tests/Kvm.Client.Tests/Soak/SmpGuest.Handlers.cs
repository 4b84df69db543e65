using System.Buffers.Binary;
using Iced.Intel;
using Kvm.Abi;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Client.Tests.Soak;

/// <content>What interrupts enter.</content>
internal sealed unsafe partial class SmpGuest
{
    private static Label[] Handlers(Assembler c)
    {
        Label common = c.CreateLabel(), fault = c.CreateLabel(), nmi = c.CreateLabel();
        var stubs = new Label[256];
        for (int vector = 0; vector < 256; vector++)
        {
            stubs[vector] = c.CreateLabel();
            c.Label(ref stubs[vector]);
            if (vector == 2)
            {
                c.jmp(nmi);
                continue;
            }

            c.push(vector);
            c.jmp(vector < 32 ? fault : common);
        }

        c.Label(ref fault);
        {
            Label forever = c.CreateLabel();
            c.pop(rax);
            c.add(rax, 0x100);
            c.mov(rbx, __qword_ptr.gs[0]);
            c.mov(__qword_ptr[rbx + Error], rax);
            c.mov(rax, __qword_ptr[rsp]);
            c.mov(__qword_ptr[rbx + ErrorDetail], rax);
            c.Label(ref forever);
            c.hlt();
            c.jmp(forever);
        }

        c.Label(ref nmi);
        Save(c);
        c.inc(__qword_ptr[rbx + NmisIn]);
        c.mov(rdx, __qword_ptr[NmiOwner]);
        Send(c, NmiReply);
        Restore(c);
        c.iretq();

        c.Label(ref common);
        Save(c);
        c.mov(esi, __dword_ptr[rsp + 40]); // the vector, sign-extended: its low byte
        c.movzx(esi, sil);
        Interrupt(c);
        return stubs;
    }

    private static void Interrupt(Assembler c)
    {
        Label eoi = c.CreateLabel(), reply = c.CreateLabel(), others = c.CreateLabel();
        c.cmp(esi, ReplyVector);
        c.jae(reply);
        c.lea(rdx, __[rsi - RequestVector]);
        c.inc(__qword_ptr[rbx + rdx * 8 + RequestsFrom]);
        c.mov(rax, rbx);
        c.sub(rax, (int)PerCpu);
        c.shr(rax, 14);
        c.add(eax, 0x4000 | ReplyVector);
        c.mov(ecx, Icr);
        c.wrmsr();
        c.jmp(eoi);
        c.Label(ref reply);
        c.cmp(esi, BroadcastVector);
        c.jae(others);
        c.inc(__qword_ptr[rbx + rsi * 8 + (RepliesFrom - ReplyVector * 8)]);
        c.jmp(eoi);
        c.Label(ref others);
        Case(c, BroadcastReply, BroadcastReplies, eoi);
        Case(c, NmiReply, NmiReplies, eoi);
        Case(c, ClusterReply, ClusterReplies, eoi);
        Case(c, SelfVector, SelfIn, eoi);
        Gathered(c, BroadcastVector, BroadcastsIn, BroadcastCount, BroadcastExpect, BroadcastOwner, BroadcastReply, eoi);
        Gathered(c, ClusterVector, ClustersIn, ClusterCount, ClusterExpect, ClusterOwner, ClusterReply, eoi);
        Timer(c, eoi);
        c.Label(ref eoi);
        c.mov(ecx, Eoi);
        c.xor(eax, eax);
        c.xor(edx, edx);
        c.wrmsr();
        Restore(c);
        c.add(rsp, 8);
        c.iretq();
    }

    private static void Timer(Assembler c, Label eoi)
    {
        Label monotonic = c.CreateLabel(), spurious = c.CreateLabel();
        c.cmp(esi, TimerVector);
        c.jne(eoi);
        c.mov(rax, __qword_ptr[rbx + Ticks]);
        c.cmp(rax, __qword_ptr[rbx + Armed]);
        c.jae(spurious);
        c.inc(__qword_ptr[rbx + Ticks]);
        c.rdtsc();
        c.shl(rdx, 32);
        c.or(rax, rdx);
        c.cmp(rax, __qword_ptr[rbx + LastTsc]);
        c.jae(monotonic);
        c.mov(__qword_ptr[rbx + Error], 1);
        c.mov(__qword_ptr[rbx + ErrorDetail], rax);
        c.Label(ref monotonic);
        c.mov(__qword_ptr[rbx + LastTsc], rax);
        c.cmp(rax, __qword_ptr[rbx + Deadline]);
        c.jae(eoi);
        c.mov(__qword_ptr[rbx + Error], 2); // before its deadline
        c.sub(rax, __qword_ptr[rbx + Deadline]);
        c.mov(__qword_ptr[rbx + ErrorDetail], rax);
        c.jmp(eoi);
        c.Label(ref spurious);
        c.inc(__qword_ptr[rbx + SpuriousTicks]);
    }

    private static void Case(Assembler c, byte vector, int counter, Label eoi)
    {
        Label next = c.CreateLabel();
        c.cmp(esi, vector);
        c.jne(next);
        c.inc(__qword_ptr[rbx + counter]);
        c.jmp(eoi);
        c.Label(ref next);
    }

    /// <summary>One of several that get an interrupt; the last one tells the sender.</summary>
    private static void Gathered(Assembler c, byte vector, int counter, uint count, uint expect, uint owner, byte reply, Label eoi)
    {
        Label next = c.CreateLabel();
        c.cmp(esi, vector);
        c.jne(next);
        c.inc(__qword_ptr[rbx + counter]);
        c.mov(eax, 1);
        c.@lock.xadd(__qword_ptr[count], rax);
        c.inc(rax);
        c.cmp(rax, __qword_ptr[expect]);
        c.jne(eoi);
        c.mov(rdx, __qword_ptr[owner]);
        Send(c, reply);
        c.jmp(eoi);
        c.Label(ref next);
    }

    private static void Save(Assembler c)
    {
        c.push(rax);
        c.push(rcx);
        c.push(rdx);
        c.push(rbx);
        c.push(rsi);
        c.mov(rbx, __qword_ptr.gs[Self]);
    }

    private static void Restore(Assembler c)
    {
        c.pop(rsi);
        c.pop(rbx);
        c.pop(rdx);
        c.pop(rcx);
        c.pop(rax);
    }

    /// <summary>A fixed interrupt to the processor in EDX.</summary>
    private static void Send(Assembler c, byte vector)
    {
        c.mov(ecx, Icr);
        c.mov(eax, 0x4000 | vector);
        c.wrmsr();
    }

    private static void Wrmsr(Assembler c, uint msr, uint low)
    {
        c.mov(ecx, msr);
        c.mov(eax, low);
        c.xor(edx, edx);
        c.wrmsr();
    }
}

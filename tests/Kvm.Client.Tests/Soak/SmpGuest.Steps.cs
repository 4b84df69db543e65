using System.Buffers.Binary;
using Iced.Intel;
using Kvm.Abi;
using static Iced.Intel.AssemblerRegisters;

namespace Kvm.Client.Tests.Soak;

/// <content>What each processor does, one step chosen at random after the other.</content>
internal sealed unsafe partial class SmpGuest
{
    private static void Processor(Assembler c)
    {
        Label all = c.CreateLabel(), loop = c.CreateLabel(), wait = c.CreateLabel(), finish = c.CreateLabel(), asleep = c.CreateLabel();
        Wrmsr(c, Svr, 0x100 | SpuriousVector);
        Wrmsr(c, Divide, 0xb);
        c.mov(eax, 1);
        c.movq(xmm9, rax);
        c.pxor(xmm8, xmm8);
        c.lea(rax, __[r13 + (int)DebugPattern]);
        c.mov(dr1, rax);
        c.@lock.inc(__qword_ptr[Ready]);
        c.Label(ref all);
        c.pause();
        c.cmp(__qword_ptr[Ready], r14);
        c.jb(all);
        c.sti();
        c.jmp(loop);

        Wait(c, ref wait);
        c.Label(ref loop);
        c.mov(__qword_ptr[r12 + Phase], 0);
        c.cmp(__qword_ptr[Halt], 0);
        c.jne(finish);
        Compute(c);
        OneThing(c, loop, wait);

        c.Label(ref finish);
        c.mov(__qword_ptr[r12 + Phase], 100);
        c.@lock.inc(__qword_ptr[Done]);
        c.Label(ref asleep);
        c.sti();
        c.hlt();
        c.jmp(asleep);
    }

    /// <summary>RDI: where, RSI: for which value, EBX: why. Sleeps; interrupts are on afterwards.</summary>
    private static void Wait(Assembler c, ref Label wait)
    {
        Label again = c.CreateLabel(), over = c.CreateLabel();
        c.Label(ref wait);
        c.mov(__qword_ptr[r12 + WaitAddress], rdi);
        c.mov(__qword_ptr[r12 + WaitValue], rsi);
        c.mov(__qword_ptr[r12 + Phase], rbx);
        c.Label(ref again);
        c.cli();
        c.cmp(__qword_ptr[rdi], rsi);
        c.jae(over);
        c.inc(__qword_ptr[r12 + Halts]);
        c.sti(); // its shadow reaches over HLT: an interrupt after the comparison wakes it
        c.hlt();
        c.jmp(again);
        c.Label(ref over);
        c.sti();
        c.ret();
    }

    private static void Compute(Assembler c)
    {
        Label right = c.CreateLabel(), same = c.CreateLabel();
        c.inc(__qword_ptr[r12 + Rounds]);
        foreach ((int shift, bool left) in ((int, bool)[])[(13, true), (7, false), (17, true)])
        {
            c.mov(rax, r15);
            if (left) c.shl(rax, (byte)shift);
            else c.shr(rax, (byte)shift);
            c.xor(r15, rax);
        }

        c.@lock.inc(__qword_ptr[Shared]);
        c.inc(__qword_ptr[r12 + SharedOut]);
        c.mov(rax, r15);
        c.shr(rax, 20);
        c.and(eax, 1023);
        c.inc(__qword_ptr[r12 + rax * 8 + Work]);
        c.paddq(xmm8, xmm9);
        c.movq(rax, xmm8);
        c.cmp(rax, __qword_ptr[r12 + Rounds]);
        c.je(right);
        c.mov(__qword_ptr[r12 + Error], 3);
        c.mov(__qword_ptr[r12 + ErrorDetail], rax);
        c.Label(ref right);
        c.test(__byte_ptr[r12 + Rounds], 15);
        c.jne(same);
        c.mov(rax, dr1);
        c.sub(rax, r13);
        c.cmp(rax, (int)DebugPattern);
        c.je(same);
        c.mov(__qword_ptr[r12 + Error], 4);
        c.mov(__qword_ptr[r12 + ErrorDetail], rax);
        c.Label(ref same);
    }

    /// <summary>What the round does, by three random bits; 0 to 2 is a request.</summary>
    private static void OneThing(Assembler c, Label loop, Label wait)
    {
        Label oneShot = c.CreateLabel(), deadline = c.CreateLabel(), broadcast = c.CreateLabel(), cluster = c.CreateLabel(), self = c.CreateLabel(), nmi = c.CreateLabel();
        c.mov(eax, r15d);
        c.shr(eax, 8);
        c.and(eax, 7);
        c.cmp(eax, 3);
        c.je(oneShot);
        c.cmp(eax, 4);
        c.je(deadline);
        c.cmp(eax, 5);
        c.je(broadcast);
        c.cmp(eax, 6);
        c.je(cluster);
        c.cmp(eax, 7);
        c.je(self);
        Request(c, loop, wait);
        c.Label(ref oneShot);
        OneShot(c, loop, wait);
        c.Label(ref deadline);
        TscDeadlineTimer(c, loop, wait);
        c.Label(ref broadcast);
        Broadcast(c, loop, wait);
        c.Label(ref cluster);
        Cluster(c, loop, wait);
        c.Label(ref self);
        c.test(r15d, 0x800);
        c.jne(nmi);
        c.inc(__qword_ptr[r12 + SelfOut]);
        Wrmsr(c, SelfIpi, SelfVector);
        WaitUntil(c, SelfIn, SelfOut, phase: 6, wait);
        c.jmp(loop);
        c.Label(ref nmi);
        Nmi(c, loop, wait);
    }

    private static void WaitUntil(Assembler c, int counter, int value, int phase, Label wait)
    {
        c.lea(rdi, __[r12 + counter]);
        c.mov(rsi, __qword_ptr[r12 + value]);
        c.mov(ebx, phase);
        c.call(wait);
    }

    /// <summary>EDX: another processor, at random; on to the next round when there is none.</summary>
    private static void Other(Assembler c, Label loop)
    {
        Label found = c.CreateLabel();
        c.mov(rax, r15);
        c.shr(rax, 32);
        c.xor(edx, edx);
        c.div(r14);
        c.cmp(rdx, r13);
        c.jne(found);
        c.inc(rdx);
        c.cmp(rdx, r14);
        c.jb(found);
        c.xor(edx, edx);
        c.cmp(r14, 1);
        c.je(loop);
        c.Label(ref found);
    }

    private static void TryLock(Assembler c, uint word, Label busy)
    {
        c.mov(eax, 1);
        c.xchg(__qword_ptr[word], rax);
        c.test(rax, rax);
        c.jne(busy);
    }

    private static void Request(Assembler c, Label loop, Label wait)
    {
        Other(c, loop);
        c.inc(__qword_ptr[r12 + rdx * 8 + RequestsTo]);
        c.mov(rsi, __qword_ptr[r12 + rdx * 8 + RequestsTo]);
        c.lea(rdi, __[r12 + rdx * 8 + RepliesFrom]);
        c.lea(eax, __[r13 + (0x4000 | RequestVector)]);
        c.mov(ecx, Icr);
        c.wrmsr();
        c.mov(ebx, 1);
        c.call(wait);
        c.jmp(loop);
    }

    private static void OneShot(Assembler c, Label loop, Label wait)
    {
        c.mov(__qword_ptr[r12 + Deadline], 0);
        Wrmsr(c, LvtTimer, TimerVector);
        c.inc(__qword_ptr[r12 + Armed]);
        c.mov(rax, r15);
        c.shr(rax, 40);
        c.movzx(eax, ax);
        c.inc(eax);
        c.mov(ecx, InitialCount);
        c.xor(edx, edx);
        c.wrmsr();
        WaitUntil(c, Ticks, Armed, phase: 2, wait);
        c.jmp(loop);
    }

    private static void TscDeadlineTimer(Assembler c, Label loop, Label wait)
    {
        Label near = c.CreateLabel();
        Wrmsr(c, LvtTimer, 0x40000 | TimerVector);
        c.inc(__qword_ptr[r12 + Armed]);
        c.mov(rbx, r15);
        c.shr(rbx, 40);
        c.and(ebx, 0x3ffff);
        c.test(r15d, 0x7000);
        c.jne(near);
        c.shl(ebx, 4); // one in eight is far away
        c.Label(ref near);
        c.rdtsc();
        c.shl(rdx, 32);
        c.or(rax, rdx);
        c.add(rax, rbx);
        c.mov(__qword_ptr[r12 + Deadline], rax);
        c.mov(rdx, rax);
        c.shr(rdx, 32);
        c.mov(ecx, TscDeadline);
        c.wrmsr();
        WaitUntil(c, Ticks, Armed, phase: 3, wait);
        c.jmp(loop);
    }

    private static void Broadcast(Assembler c, Label loop, Label wait)
    {
        c.cmp(r14, 1);
        c.je(loop);
        TryLock(c, BroadcastLock, loop);
        c.mov(__qword_ptr[BroadcastCount], 0);
        c.mov(__qword_ptr[BroadcastOwner], r13);
        c.lea(rax, __[r14 - 1]);
        c.mov(__qword_ptr[BroadcastExpect], rax);
        c.inc(__qword_ptr[r12 + BroadcastsOut]);
        Wrmsr(c, Icr, 0xc4000 | BroadcastVector);
        WaitUntil(c, BroadcastReplies, BroadcastsOut, phase: 4, wait);
        c.mov(__qword_ptr[BroadcastLock], 0);
        c.jmp(loop);
    }

    private static void Cluster(Assembler c, Label loop, Label wait)
    {
        Label whole = c.CreateLabel(), some = c.CreateLabel();
        TryLock(c, ClusterLock, loop);
        c.lea(rbx, __[r14 + 15]);
        c.shr(rbx, 4);
        c.mov(rax, r15);
        c.shr(rax, 32);
        c.xor(edx, edx);
        c.div(rbx);
        c.mov(rbx, rdx); // the cluster
        c.shl(rdx, 4);
        c.mov(rcx, r14);
        c.sub(rcx, rdx);
        c.mov(rsi, r15);
        c.shr(rsi, 44);
        c.and(esi, 0xffff);
        c.cmp(rcx, 16);
        c.jae(whole);
        c.mov(eax, 1);
        c.shl(eax, cl);
        c.dec(eax);
        c.and(esi, eax);
        c.Label(ref whole);
        c.test(esi, esi);
        c.jne(some);
        c.mov(esi, 1);
        c.Label(ref some);
        c.popcnt(eax, esi);
        c.mov(__qword_ptr[ClusterCount], 0);
        c.mov(__qword_ptr[ClusterOwner], r13);
        c.mov(__qword_ptr[ClusterExpect], rax);
        c.add(__qword_ptr[r12 + ClusterTargets], rax);
        c.inc(__qword_ptr[r12 + ClustersOut]);
        c.mov(edx, ebx);
        c.shl(edx, 16);
        c.or(edx, esi);
        c.mov(ecx, Icr);
        c.mov(eax, 0x4800 | ClusterVector);
        c.wrmsr();
        WaitUntil(c, ClusterReplies, ClustersOut, phase: 5, wait);
        c.mov(__qword_ptr[ClusterLock], 0);
        c.jmp(loop);
    }

    private static void Nmi(Assembler c, Label loop, Label wait)
    {
        c.cmp(r14, 1);
        c.je(loop);
        TryLock(c, NmiLock, loop);
        c.mov(__qword_ptr[NmiOwner], r13);
        Other(c, loop);
        c.inc(__qword_ptr[r12 + NmisOut]);
        c.inc(__qword_ptr[r12 + rdx * 8 + NmisTo]);
        c.mov(ecx, Icr);
        c.mov(eax, 0x4400);
        c.wrmsr();
        WaitUntil(c, NmiReplies, NmisOut, phase: 7, wait);
        c.mov(__qword_ptr[NmiLock], 0);
        c.jmp(loop);
    }
}

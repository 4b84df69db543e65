namespace Kvm.Emulator.Engine;

/// <summary>What processors tell each other about code.</summary>
internal enum MessageKind : byte
{
    /// <summary>Bytes were written: drop blocks that overlap them.</summary>
    Written,
    /// <summary>A processor is about to decode code of the page: give up write tags.</summary>
    NewCodePage,
    /// <summary>The sender gave up write tags of the page and may have used them meanwhile: compare the bytes.</summary>
    Compare,
}

internal sealed unsafe partial class CodeCache
{
    private const int MailboxSize = 64;

    private readonly record struct Message(MessageKind Kind, ulong Address, int Size);

    private readonly Lock mailboxGate = new();
    private readonly Message[] mailbox = new Message[MailboxSize];
    private readonly Message[] received = new Message[MailboxSize];
    private int mailCount;
    private bool mailOverflow;

    /// <summary>Tells every other processor; they look at their next block head.</summary>
    private void Post(MessageKind kind, ulong address, int size)
    {
        foreach (Processor other in cpu.Machine.ProcessorSpan)
            if (other is not null && other != cpu && other.State != null)
                other.Code.Deliver(new Message(kind, address, size));
    }

    private void Deliver(Message message)
    {
        lock (mailboxGate)
        {
            if (mailCount < MailboxSize)
                mailbox[mailCount++] = message;
            else
                mailOverflow = true;
        }
        cpu.Request(ExitRequests.Code);
    }

    /// <summary>Acts on what other processors have told. Called at a block head.</summary>
    internal void TakeMail()
    {
        cpu.ClearRequest(ExitRequests.Code);
        int count;
        bool overflow;
        lock (mailboxGate)
        {
            count = mailCount;
            overflow = mailOverflow;
            Array.Copy(mailbox, received, count);
            mailCount = 0;
            mailOverflow = false;
        }
        if (overflow)
        {
            // Too much to remember: no write tag and no decoded code survives, and neither do those of the others that depend on our tags.
            cpu.Mmu.FlushAll();
            Flush();
        }
        for (int i = 0; i < count; i++)
        {
            ref readonly Message m = ref received[i];
            ulong page = m.Address & Operand.PageMask;
            switch (m.Kind)
            {
                case MessageKind.NewCodePage:
                    cpu.Mmu.RevokeWrites(page);
                    Post(MessageKind.Compare, page, 0);
                    break;
                case MessageKind.Compare:
                    VerifyCode(page);
                    break;
                default:
                    CodePage* p = FindPage(page);
                    if (p != null)
                        Invalidate(p, (int)(m.Address & 0xfff), m.Size);
                    break;
            }
        }
        if (overflow)
            Post(MessageKind.Compare, 0, 0);
    }
}

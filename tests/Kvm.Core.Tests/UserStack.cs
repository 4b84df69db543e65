using System.Runtime.InteropServices;

namespace Kvm.Core.Tests;

/// <summary>User pointers of every kind: the thread's own stack, other memory of the program, none.</summary>
public unsafe class copy_from_user_of_a_stack_
{
    [Fact]
    public void Memory_of_the_callers_stack_is_copied_both_ways()
    {
        ulong argument = 0x1122334455667788, kernel = 0;
        UserMemory.CopyFromUser(&kernel, (ulong)&argument, 8).Should().BeTrue();
        kernel.Should().Be(0x1122334455667788);
        kernel = 42;
        UserMemory.CopyToUser((ulong)&argument, &kernel, 8).Should().BeTrue();
        argument.Should().Be(42);
    }

    [Fact]
    public void It_is_so_on_any_thread()
    {
        bool ok = false;
        var thread = new Thread(() =>
        {
            ulong argument = 7, kernel = 0;
            ok = UserMemory.CopyFromUser(&kernel, (ulong)&argument, 8) && kernel == 7;
        });
        thread.Start();
        thread.Join();
        ok.Should().BeTrue();
    }

    [Fact]
    public void The_stack_of_another_thread_is_memory_of_the_program()
    {
        ulong argument = 7;
        ulong address = (ulong)&argument;
        bool ok = false;
        var thread = new Thread(() =>
        {
            ulong kernel = 0;
            ok = UserMemory.CopyFromUser(&kernel, address, 8) && kernel == 7;
        });
        thread.Start();
        thread.Join();
        ok.Should().BeTrue();
    }

    [Fact]
    public void A_range_that_begins_on_the_stack_and_leaves_the_address_space_faults()
    {
        byte begin = 0;
        byte* buffer = (byte*)NativeMemory.Alloc(16);
        UserMemory.CopyFromUser(buffer, (ulong)&begin, UserMemory.TaskSizeMax).Should().BeFalse();
        UserMemory.CopyFromUser(buffer, 0, 8).Should().BeFalse();
        UserMemory.CopyToUser(8, buffer, 8).Should().BeFalse();
        NativeMemory.Free(buffer);
    }

    [Fact]
    public void The_end_of_a_stack_is_where_its_mapping_ends()
    {
        bool inside = false, behind = true;
        var thread = new Thread(() =>
        {
            byte here = 0;
            ulong end = UserMemory.StackEnd((ulong)&here);
            ulong word;
            inside = end > (ulong)&here && UserMemory.CopyFromUser(&word, end - 8, 8);
            behind = UserMemory.OnStack(end - 8, 9) || UserMemory.OnStack(end, 1);
        });
        thread.Start();
        thread.Join();
        inside.Should().BeTrue();
        behind.Should().BeFalse();
    }
}

namespace Kvm.Tool;

/// <summary>Files that the user named.</summary>
internal static class Inputs
{
    public static byte[] ReadFile(FileInfo file, string what, string advice)
    {
        try
        {
            return File.ReadAllBytes(file.FullName);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            string reason = e is FileNotFoundException or DirectoryNotFoundException ? "no such file" : e.Message;
            throw new ToolException(ExitCode.BadFile, $"cannot read the {what} {file}: {reason}; {advice}");
        }
    }
}

namespace Kvm.Tool;

/// <summary>Files that the user named.</summary>
internal static class Inputs
{
    /// <exception cref="ToolException">The file can't be read; the message says why and ends with <paramref name="advice"/>.</exception>
    public static byte[] ReadFile(FileInfo file, string what, string advice)
    {
        try
        {
            return Directory.Exists(file.FullName) ? throw new IOException("it is a directory") : File.ReadAllBytes(file.FullName);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            string reason = e switch
            {
                FileNotFoundException or DirectoryNotFoundException => "no such file",
                UnauthorizedAccessException => "permission denied",
                _ => e.Message,
            };
            throw new ToolException(ExitCode.BadFile, $"cannot read the {what} {file}: {reason}; {advice}");
        }
    }

    /// <summary>A file to be written, replaced when it is there.</summary>
    /// <exception cref="ToolException">It can't be written.</exception>
    public static TextWriter CreateFile(FileInfo file, string what)
    {
        try
        {
            return new StreamWriter(file.Create(), bufferSize: 1 << 16);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new ToolException(ExitCode.BadFile, $"cannot write the {what} {file}: {(e is DirectoryNotFoundException ? "no such directory" : e.Message)}");
        }
    }
}

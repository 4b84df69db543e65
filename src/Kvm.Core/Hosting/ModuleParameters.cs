using System.Globalization;
using Kvm.Abi;

namespace Kvm.Core;

/// <summary>A module's parameters: typed values with the kernel's parsing and printing rules and permissions.</summary>
public sealed class ModuleParameters
{
    /// <summary>One parameter.</summary>
    public sealed class Parameter
    {
        internal Parameter(string name, Type type, int mode, Func<object> get, Action<object> set)
        {
            Name = name;
            Type = type;
            Mode = mode;
            Get = get;
            Set = set;
        }

        public string Name { get; }

        /// <summary>bool, int, uint, ulong or string.</summary>
        public Type Type { get; }

        /// <summary>Mode bits in sysfs: 0x124 = 0444 (only at load), 0x1a4 = 0644.</summary>
        public int Mode { get; }

        /// <summary>Asked before a write: an error refuses it.</summary>
        public Func<object, KvmResult>? Check { get; set; }

        /// <summary>module_param_unsafe: setting it is announced, as it taints the kernel.</summary>
        public bool Unsafe { get; set; }

        internal Func<object> Get { get; }
        internal Action<object> Set { get; }

        /// <summary>What /sys/module/…/parameters/… shows, without the newline: bools as Y/N.</summary>
        public string Text => Get() is bool b ? b ? "Y" : "N" : Convert.ToString(Get(), CultureInfo.InvariantCulture)!;
    }

    /// <summary>0444.</summary>
    public const int ReadOnly = 0x124;

    /// <summary>0644.</summary>
    public const int Writable = 0x1a4;

    private readonly Dictionary<string, Parameter> _byName = [];

    /// <summary>All parameters in order of definition.</summary>
    public IReadOnlyCollection<Parameter> All => _byName.Values;

    /// <summary>Defines a parameter whose value lives in the module (module_param_named).</summary>
    public Parameter Define<T>(string name, Func<T> get, Action<T> set, int mode = ReadOnly) where T : notnull
    {
        var p = new Parameter(name, typeof(T), mode, () => get(), v => set((T)v));
        _byName.Add(name, p);
        return p;
    }

    /// <summary>The parameter, or null.</summary>
    public Parameter? Find(string name) => _byName.GetValueOrDefault(name.Replace('-', '_'));

    /// <summary>The module's command line: "a=1 b=Y c". Unknown names are ignored with a message.</summary>
    public KvmResult Parse(string module, string commandLine, Printk log)
    {
        foreach (string word in commandLine.Split(' ', StringSplitOptions.RemoveEmptyEntries))
        {
            int eq = word.IndexOf('=');
            string name = eq < 0 ? word : word[..eq];
            string? value = eq < 0 ? null : word[(eq + 1)..];
            if (Find(name) is not { } p)
            {
                log.Warn($"{module}: unknown parameter '{name}' ignored");
                continue;
            }

            if (p.Unsafe) log.Notice($"Setting dangerous option {p.Name} - tainting kernel");
            KvmResult r = Assign(p, value);
            if (!r.IsError) continue;
            log.Err($"{module}: `{value}' invalid for parameter `{name}'");
            return r;
        }

        return 0;
    }

    /// <summary>A write to sysfs: -ENOENT, -EACCES when read-only, -EINVAL when it does not parse.</summary>
    public KvmResult Write(string name, string value)
    {
        if (Find(name) is not { } p) return Errno.ENOENT;
        return (p.Mode & 0x80) == 0 ? Errno.EACCES : Assign(p, value.TrimEnd('\n'));
    }

    private static KvmResult Assign(Parameter p, string? text)
    {
        object value;
        if (p.Type == typeof(bool))
        {
            // A bool without a value is true (param_set_bool).
            if (!TryParseBool(text ?? "1", out bool b)) return Errno.EINVAL;
            value = b;
        }
        else if (text is null)
        {
            return Errno.EINVAL;
        }
        else if (p.Type == typeof(string))
        {
            value = text;
        }
        else if (!TryParseInteger(text, out Int128 n))
        {
            return Errno.EINVAL;
        }
        else if (p.Type == typeof(int))
        {
            if (n < int.MinValue || n > int.MaxValue) return Errno.ERANGE;
            value = (int)n;
        }
        else if (p.Type == typeof(uint))
        {
            if (n < 0) return Errno.EINVAL;
            if (n > uint.MaxValue) return Errno.ERANGE;
            value = (uint)n;
        }
        else
        {
            if (n < 0) return Errno.EINVAL;
            if (n > ulong.MaxValue) return Errno.ERANGE;
            value = (ulong)n;
        }

        if (p.Check?.Invoke(value) is { IsError: true } refused) return refused;
        p.Set(value);
        return 0;
    }

    /// <summary>kstrtobool: y, t, 1, on / n, f, 0, off by their first letters.</summary>
    public static bool TryParseBool(string text, out bool value)
    {
        value = false;
        if (text.Length == 0) return false;
        switch (text[0])
        {
            case 'y' or 'Y' or 't' or 'T' or '1':
                value = true;
                return true;
            case 'n' or 'N' or 'f' or 'F' or '0':
                return true;
            case 'o' or 'O' when text.Length > 1 && text[1] is 'n' or 'N':
                value = true;
                return true;
            case 'o' or 'O' when text.Length > 1 && text[1] is 'f' or 'F':
                return true;
            default:
                return false;
        }
    }

    private static bool TryParseInteger(string text, out Int128 value)
    {
        bool negative = text.StartsWith('-');
        string t = negative || text.StartsWith('+') ? text[1..] : text;
        bool ok;
        if (t.StartsWith("0x", StringComparison.OrdinalIgnoreCase))
            ok = Int128.TryParse("0" + t[2..], NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out value) && t.Length > 2;
        else if (t.Length > 1 && t[0] == '0')
            ok = TryParseOctal(t, out value);
        else
            ok = Int128.TryParse(t, NumberStyles.None, CultureInfo.InvariantCulture, out value);
        if (negative) value = -value;
        return ok;
    }

    private static bool TryParseOctal(string text, out Int128 value)
    {
        value = 0;
        foreach (char c in text)
        {
            if (c is < '0' or > '7') return false;
            value = value * 8 + (c - '0');
        }

        return true;
    }
}

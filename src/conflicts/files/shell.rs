//! Finds writes of sysctls in a line of shell: `sysctl -w KEY=V`, `sysctl -p FILE`, `echo V >
//! /proc/sys/...` and `echo V | tee /proc/sys/...`. What depends on variables is
//! passed over: rather nothing is said than something false.

/// A write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Of a key, as it is spelled there, and the value.
    Value(String, String),
    /// Of what `sysctl -p` finds in this file.
    File(String),
}

/// What `sysctl -p` reads where no file is named.
const CONF: &str = "/etc/sysctl.conf";

/// The programs whose writes are known.
const PROGRAMS: [&str; 10] = [
    "sysctl", "echo", "printf", "tee", "sh", "bash", "dash", "ash", "ksh", "zsh",
];

/// How deep `sh -c` is looked into.
const DEEPEST: usize = 3;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// A word without its quotes; whether the shell would expand it.
    Word(String, bool),
    /// `;`, `|`, `&&`, `>` and the like.
    Operator(String),
}

/// The writes in a line of a script.
pub fn writes(line: &str) -> Vec<Write> {
    of_script(line, DEEPEST)
}

/// The writes of one command that no shell interprets, as systemd runs it.
pub fn of_command(line: &str) -> Vec<Write> {
    let words: Vec<Token> = tokens(line)
        .into_iter()
        .filter(|it| matches!(it, Token::Word(..)))
        .collect();
    of_words(&program(words), DEEPEST)
}

fn of_script(text: &str, depth: usize) -> Vec<Write> {
    let tokens = tokens(text);
    let is_end =
        |it: &Token| matches!(it, Token::Operator(it) if !matches!(&**it, "|" | ">" | ">>" | "<"));
    let commands = tokens.split(is_end);
    commands.flat_map(|it| of_pipeline(it, depth)).collect()
}

/// The writes of `COMMAND [| COMMAND...]`.
fn of_pipeline(tokens: &[Token], depth: usize) -> Vec<Write> {
    let is_pipe = |it: &Token| *it == Token::Operator("|".to_owned());
    let commands: Vec<&[Token]> = tokens.split(is_pipe).collect();
    let mut found = Vec::new();
    for (number, command) in commands.iter().enumerate() {
        let (words, target) = redirected(command);
        let printed = printed(&words);
        if let (Some(printed), Some(path)) = (&printed, target) {
            found.extend(key_of(&path).map(|key| Write::Value(key, printed.clone())));
        }
        let before = number.checked_sub(1).map(|it| redirected(commands[it]).0);
        if let (Some("tee"), Some(printed)) =
            (name(&words), before.and_then(|it| self::printed(&it)))
        {
            let paths = plain(arguments(&words)).filter(|it| !it.starts_with('-'));
            found.extend(
                paths.filter_map(|path| Some(Write::Value(key_of(path)?, printed.clone()))),
            );
        }
        found.extend(of_words(&words, depth));
    }
    found
}

/// The writes of a command by itself.
fn of_words(words: &[Token], depth: usize) -> Vec<Write> {
    match name(words) {
        Some("sysctl") => of_sysctl(arguments(words)),
        Some("sh" | "bash" | "dash" | "ash" | "ksh" | "zsh") if depth > 0 => {
            let mut arguments = arguments(words).iter();
            let is_script = |it: &Token| matches!(it, Token::Word(it, _) if it.starts_with('-') && !it.starts_with("--") && it.ends_with('c'));
            match arguments
                .find(|it| is_script(it))
                .and_then(|_| arguments.next())
            {
                Some(Token::Word(script, _)) => of_script(script, depth - 1),
                _ => Vec::new(),
            }
        }
        _ => Vec::new(),
    }
}

/// The writes of sysctl(8) with these arguments.
fn of_sysctl(arguments: &[Token]) -> Vec<Write> {
    let (mut found, mut files, mut loads) = (Vec::new(), Vec::new(), false);
    for argument in arguments {
        let Token::Word(word, expands) = argument else {
            continue;
        };
        let is_long = |name: &str| {
            word.strip_prefix("--")
                .is_some_and(|it| it.starts_with(name))
        };
        let options = word.strip_prefix('-').filter(|it| !it.starts_with('-'));
        if is_long("system") || is_long("all") || options.is_some_and(prints_all) {
            return Vec::new();
        }
        // `-p FILE`, `-pFILE` or `--load=FILE`.
        let attached = match options.and_then(|it| it.split_once(['p', 'f'])) {
            Some((_, rest)) => Some(rest),
            None if is_long("load") => Some(word.split_once('=').map_or("", |it| it.1)),
            None => None,
        };
        loads |= attached.is_some();
        let is_file = |it: &str| it.starts_with('/') && !expands;
        match attached {
            Some(file) if is_file(file) => files.push(Write::File(file.to_owned())),
            None if is_file(word) => files.push(Write::File(word.clone())),
            Some("") | None => {}
            // A name that is not known.
            Some(_) => return Vec::new(),
        }
        let assigned = word
            .split_once('=')
            .filter(|_| !expands && !word.starts_with('-'));
        let assigned = assigned.map(|(key, value)| (key.trim(), value.trim()));
        if let Some((key, value)) =
            assigned.filter(|(key, value)| !key.is_empty() && !value.is_empty())
        {
            found.push(Write::Value(key.to_owned(), value.to_owned()));
        }
    }
    let is_named = arguments
        .iter()
        .any(|it| matches!(it, Token::Word(it, _) if it == "-" || !it.starts_with('-')));
    match loads {
        true if files.is_empty() && !is_named => vec![Write::File(CONF.to_owned())],
        true => files,
        false => found,
    }
}

/// Whether these short options print all keys: before one that a file's name is attached to.
fn prints_all(options: &str) -> bool {
    let own = options.split(['p', 'f']).next().unwrap_or_default();
    own.contains(['a', 'A', 'X'])
}

/// The key of a file of sysctls.
fn key_of(path: &str) -> Option<String> {
    path.strip_prefix("/proc/sys/").map(str::to_owned)
}

/// The words of a command, and what its output goes to.
fn redirected(command: &[Token]) -> (Vec<Token>, Option<String>) {
    let (mut words, mut target) = (Vec::new(), None);
    let mut tokens = command.iter();
    while let Some(token) = tokens.next() {
        match token {
            Token::Word(..) => words.push(token.clone()),
            Token::Operator(it) => {
                let file = tokens.next();
                // `2>` and its like are of another stream.
                if let (">" | ">>", Some(Token::Word(path, false))) = (it.as_str(), file) {
                    target = Some(path.clone());
                }
            }
        }
    }
    (program(words), target)
}

/// A command from the name of its program on: without words of the shell's grammar,
/// variables that are set for it, and programs that run another one.
fn program(mut words: Vec<Token>) -> Vec<Token> {
    const GRAMMAR: [&str; 7] = ["then", "do", "else", "if", "!", "{", "("];
    const RUNNERS: [&str; 12] = [
        "exec", "command", "sudo", "nice", "ionice", "nohup", "env", "timeout", "chrt", "setsid",
        "time", "stdbuf",
    ];
    let (mut is_run, mut is_value) = (false, false);
    let leads = |it: &Token| {
        let Token::Word(word, _) = it else {
            return false;
        };
        let name = word.rsplit('/').next().unwrap_or(word);
        let is_option = is_run && word.starts_with('-');
        // `-n 5` or `-u root`, and what timeout(1) begins with.
        let is_argument = is_run && word.starts_with(|c: char| c.is_ascii_digit())
            || is_value && !PROGRAMS.contains(&name);
        is_run |= RUNNERS.contains(&name);
        is_value = is_option && word.len() == 2;
        let is_word = GRAMMAR.contains(&word.as_str()) || RUNNERS.contains(&name);
        is_word || is_option || is_argument || assignment(word).is_some()
    };
    let from = words.iter().map(leads).position(|leads| !leads);
    words.split_off(from.unwrap_or(words.len()))
}

/// The name and the value of `NAME=VALUE`.
fn assignment(word: &str) -> Option<(&str, &str)> {
    word.split_once('=').filter(|(name, _)| is_name(name))
}

/// A variable that a line sets.
#[derive(Debug, PartialEq, Eq)]
pub struct Assigned {
    pub name: String,
    pub value: String,
    /// Whether the line as it is does not show the value: it has an expansion, or a
    /// command that may decide whether the variable is set.
    pub is_computed: bool,
}

/// The name of a variable that may be any.
pub const ANY: &str = ".";

/// The variables that a line sets: [`ANY`] too, where it runs another file.
pub fn assignments(line: &str) -> Vec<Assigned> {
    let tokens = tokens(line);
    let is_plain = |it: &Token| match it {
        Token::Word(word, _) => word == "export" || assignment(word).is_some(),
        Token::Operator(it) => it == ";",
    };
    let is_certain = tokens.iter().all(is_plain);
    let mut commands = tokens.split(|it| matches!(it, Token::Operator(_)));
    let sets_any =
        commands.any(|it| matches!(name(&program(it.to_vec())), Some("." | "source" | "eval")));
    let any = sets_any.then(|| Assigned {
        name: ANY.to_owned(),
        value: String::new(),
        is_computed: true,
    });
    let words = tokens.iter().filter_map(|it| match it {
        Token::Word(word, expands) => Some((assignment(word)?, expands)),
        Token::Operator(_) => None,
    });
    let words = words.map(|((name, value), expands)| Assigned {
        name: name.to_owned(),
        value: value.to_owned(),
        is_computed: *expands || !is_certain,
    });
    any.into_iter().chain(words).collect()
}

/// How many compound commands a line begins more than it ends.
pub fn depth(line: &str) -> isize {
    let depth = |it: &Token| match it {
        Token::Word(word, _) => match word.as_str() {
            "if" | "case" | "for" | "while" | "until" | "select" | "{" => 1,
            "fi" | "esac" | "done" | "}" => -1,
            _ => 0,
        },
        Token::Operator(_) => 0,
    };
    tokens(line).iter().map(depth).sum()
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// What `echo` or `printf` prints.
fn printed(words: &[Token]) -> Option<String> {
    let options = match name(words)? {
        "echo" => ["-n", "-e", "-en", "-ne"].as_slice(),
        "printf" => &["--"],
        _ => return None,
    };
    let mut printed = Vec::new();
    for argument in arguments(words) {
        match argument {
            Token::Word(it, false) if options.contains(&it.as_str()) => {}
            Token::Word(it, false) => printed.push(it.as_str()),
            _ => return None,
        }
    }
    let text = printed.join(" ");
    let text = text.trim_end_matches("\\n").trim();
    (!text.is_empty() && !text.contains(['%', '\\'])).then(|| text.to_owned())
}

/// The name of a command's program, without its folder.
fn name(words: &[Token]) -> Option<&str> {
    match words.first()? {
        Token::Word(word, false) => word.rsplit('/').next(),
        _ => None,
    }
}

fn arguments(words: &[Token]) -> &[Token] {
    words.get(1..).unwrap_or_default()
}

/// The words that the shell leaves as they are.
fn plain(words: &[Token]) -> impl Iterator<Item = &str> {
    words.iter().filter_map(|it| match it {
        Token::Word(word, false) => Some(word.as_str()),
        _ => None,
    })
}

/// The words and operators of a line; a comment ends it.
fn tokens(line: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut word: Option<(String, bool)> = None;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '#' if word.is_none() => break,
            c if c.is_whitespace() => tokens.extend(word.take().map(|(it, x)| Token::Word(it, x))),
            '\'' => {
                let (text, _) = word.get_or_insert_default();
                text.extend(chars.by_ref().take_while(|c| *c != '\''));
            }
            '"' => {
                let (text, expands) = word.get_or_insert_default();
                while let Some(c) = chars.next().filter(|c| *c != '"') {
                    match c {
                        '\\' => text.extend(chars.next()),
                        c => {
                            *expands |= matches!(c, '$' | '`');
                            text.push(c);
                        }
                    }
                }
            }
            '\\' => word.get_or_insert_default().0.extend(chars.next()),
            ';' | '|' | '&' | '>' | '<' | '(' | ')' | '\n' => {
                // `2>` is no word before it.
                let stream = |(it, _): &(String, bool)| c != '>' || it != "1" && it != "2";
                let is_other = word.as_ref().is_some_and(|(it, _)| it == "2" && c == '>');
                tokens.extend(word.take().filter(stream).map(|(it, x)| Token::Word(it, x)));
                let mut operator = if is_other {
                    "2".to_owned()
                } else {
                    String::new()
                };
                operator.push(c);
                if chars.peek() == Some(&c) {
                    operator.extend(chars.next());
                }
                if c == '>' && chars.peek() == Some(&'&') {
                    operator.extend(chars.next());
                }
                // `>|` overwrites also where `set -o noclobber` is in force.
                if c == '>' && chars.peek() == Some(&'|') {
                    chars.next();
                }
                // A redirection of another stream ends no command.
                let operator = if operator.starts_with("2>") || operator == ">&" {
                    "<".to_owned()
                } else {
                    operator
                };
                tokens.push(Token::Operator(operator));
            }
            c => {
                let (text, expands) = word.get_or_insert_default();
                *expands |= matches!(c, '$' | '`' | '*' | '?' | '[');
                text.push(c);
            }
        }
    }
    tokens.extend(word.map(|(it, x)| Token::Word(it, x)));
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(writes: &[Write]) -> String {
        let writes = writes.iter().map(|write| match write {
            Write::Value(key, value) => format!("{key}={value}"),
            Write::File(path) => format!("<{path}"),
        });
        writes.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn writes_are_found_and_nothing_else() {
        for (line, expected) in [
            ("sysctl -w net.ipv4.ip_forward=0", "net.ipv4.ip_forward=0"),
            (
                "/sbin/sysctl -qw net.ipv4.ip_forward=0 a.b=1 >/dev/null 2>&1",
                "net.ipv4.ip_forward=0 a.b=1",
            ),
            (
                "if x; then sudo sysctl net.ipv4.ip_forward=\"0\"; fi",
                "net.ipv4.ip_forward=0",
            ),
            ("sysctl net.ipv4.ip_forward = 0", ""),
            (
                "sysctl -w 'net.ipv4.tcp_rmem=1 2 3'",
                "net.ipv4.tcp_rmem=1 2 3",
            ),
            ("sysctl -p x=1; sysctl --system", ""),
            ("sysctl -p", "</etc/sysctl.conf"),
            ("sysctl -qp", "</etc/sysctl.conf"),
            (
                "sysctl -e -p /etc/a.conf /etc/b.conf",
                "</etc/a.conf </etc/b.conf",
            ),
            (
                "sysctl --load=/etc/a.conf; sysctl -p/etc/Xa.conf",
                "</etc/a.conf </etc/Xa.conf",
            ),
            ("sysctl -p $file; sysctl -p -; sysctl -p /etc/*.conf", ""),
            ("sysctl -n net.ipv4.ip_forward", ""),
            ("sysctl -w net.ipv4.conf.$IFACE.forwarding=0", ""),
            ("sysctl -w net.ipv4.ip_forward=$on", ""),
            ("# sysctl -w net.ipv4.ip_forward=0", ""),
            ("true # sysctl -w net.ipv4.ip_forward=0", ""),
            ("echo sysctl -w net.ipv4.ip_forward=0", ""),
            (
                "echo 0 > /proc/sys/net/ipv4/ip_forward",
                "net/ipv4/ip_forward=0",
            ),
            (
                "[ -e x ] && echo -n \"0\" >/proc/sys/net/ipv4/ip_forward || true",
                "net/ipv4/ip_forward=0",
            ),
            (
                "printf '0\\n' >>/proc/sys/net/ipv4/ip_forward",
                "net/ipv4/ip_forward=0",
            ),
            ("echo 0 2> /proc/sys/net/ipv4/ip_forward", ""),
            ("echo 0 > /tmp/x; cat /proc/sys/net/ipv4/ip_forward", ""),
            ("echo $x > /proc/sys/net/ipv4/ip_forward", ""),
            ("cat x > /proc/sys/net/ipv4/ip_forward", ""),
            (
                "echo 0 | sudo tee -a /proc/sys/net/ipv4/ip_forward >/dev/null",
                "net/ipv4/ip_forward=0",
            ),
            ("cat y | tee /proc/sys/net/ipv4/ip_forward", ""),
            (
                "echo -n 0 >| /proc/sys/net/ipv4/ip_forward",
                "net/ipv4/ip_forward=0",
            ),
            ("nice -n 5 sysctl -w a.b=1", "a.b=1"),
            (
                "sudo -u root env LANG=C timeout 5s /sbin/sysctl -w a.b=1",
                "a.b=1",
            ),
            ("nice -n5 logger sysctl -w a.b=1", ""),
            (
                "ionice -c 3 sh -c 'echo 0 > /proc/sys/net/ipv4/ip_forward'",
                "net/ipv4/ip_forward=0",
            ),
            (
                "bash -ec 'echo 0 > /proc/sys/net/ipv4/ip_forward'",
                "net/ipv4/ip_forward=0",
            ),
            ("LANG=C sysctl -w a.b=1 & sysctl -w c.d=2", "a.b=1 c.d=2"),
        ] {
            assert_eq!(shown(&writes(line)), expected, "{line}");
        }
        for (line, expected) in [
            (
                "/sbin/sysctl -w net.ipv4.ip_forward=0",
                "net.ipv4.ip_forward=0",
            ),
            ("/bin/echo 0 > /proc/sys/net/ipv4/ip_forward", ""),
            ("/usr/bin/nice -n 5 /sbin/sysctl -w a.b=1", "a.b=1"),
            (
                "/bin/sh -c \"echo 0 > /proc/sys/net/ipv4/ip_forward\"",
                "net/ipv4/ip_forward=0",
            ),
        ] {
            assert_eq!(shown(&of_command(line)), expected, "{line}");
        }
    }

    #[test]
    fn assignments_are_read_as_the_shell_reads_them() {
        for (line, expected) in [
            ("MTU=1400", "MTU=1400"),
            (" export MTU=1400 A=b # more", "MTU=1400 A=b"),
            ("DEVICE=eth0; MTU='1400'", "DEVICE=eth0 MTU=1400"),
            ("MTU=14\"00\"", "MTU=1400"),
            ("MTU=$X", "MTU=$X?"),
            ("MTU='$X'", "MTU=$X"),
            ("MTU=\"`cat x`\"", "MTU=`cat x`?"),
            ("[ -e x ] && MTU=1400", "MTU=1400?"),
            ("# MTU=1400", ""),
            ("MTU = 1400", ""),
            ("MTU=", "MTU="),
            (". ./mtu; A=b", ".=? A=b?"),
        ] {
            let read = assignments(line);
            let read = read.iter().map(|it| {
                let mark = if it.is_computed { "?" } else { "" };
                format!("{}={}{mark}", it.name, it.value)
            });
            assert_eq!(read.collect::<Vec<_>>().join(" "), expected, "{line}");
        }
    }
}

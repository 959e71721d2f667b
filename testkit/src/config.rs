//! What a server is started with, and the configuration file that says so.

use std::ffi::OsString;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::binaries::{absolute, module_path};

/// Directives that every server gets unless its test sets them. The first group
/// makes servers quick and private; the second lets tests look inside.
const DEFAULTS: &[(&str, &str)] = &[
    ("bind", "127.0.0.1"),
    ("protected-mode", "no"),
    ("daemonize", "no"),
    ("save", ""),
    ("appendonly", "no"),
    // A master waits this many seconds for more replicas before it sends its
    // data to the first one; the servers' default is 5.
    ("repl-diskless-sync-delay", "0"),
    ("loglevel", "notice"),
    ("enable-debug-command", "yes"),
    ("enable-module-command", "yes"),
];

/// Directives that have a builder method instead.
const MANAGED: &[&str] = &["dir", "port", "unixsocket", "logfile"];

#[derive(Clone, Debug, Default)]
pub(crate) enum Module {
    /// Whatever [`module_path()`] says when the server is started.
    #[default]
    Default,
    None,
    Path(PathBuf),
}

/// Everything about a server but its directory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// `None` for the one that all tests use.
    pub program: Option<PathBuf>,
    pub module: Module,
    pub module_args: Vec<String>,
    /// Name and arguments, in the order of the file.
    pub directives: Vec<(String, Vec<String>)>,
    /// `None` until a port has been chosen.
    pub port: Option<u16>,
    pub env: Vec<(OsString, OsString)>,
    /// A program, with its arguments, that runs the server.
    pub under: Vec<OsString>,
    /// Whether the server is up only once it has the data of its master.
    pub await_master: bool,
}

impl Settings {
    pub fn add(&mut self, name: String, args: Vec<String>) {
        let name = name.to_ascii_lowercase();
        assert!(
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && b != b'"'),
            "{name:?} is no directive"
        );
        assert!(
            !MANAGED.contains(&name.as_str()),
            "{name} is not set with config(): the test kit relies on it"
        );
        self.directives.push((name, args));
    }

    /// The text of the configuration file.
    pub fn render(&self, dir: &Path, socket: &Path, port: u16) -> String {
        let mut file = String::new();
        // First, because relative paths in later lines are relative to it.
        line(&mut file, "dir", [utf8(dir)]);
        line(&mut file, "unixsocket", [utf8(socket)]);
        line(&mut file, "port", [port.to_string().as_str()]);
        for (name, value) in DEFAULTS {
            // Left out rather than overridden: a second `save` adds to the
            // first one, and CONFIG REWRITE prefers one line for each.
            if !self.directives.iter().any(|(set, _)| set == name) {
                line(&mut file, name, split(value).iter().map(String::as_str));
            }
        }
        for (name, args) in &self.directives {
            line(&mut file, name, args.iter().map(String::as_str));
        }
        let module = match &self.module {
            Module::Default => Some(module_path()),
            Module::None => None,
            Module::Path(path) => Some(absolute(path.clone())),
        };
        if let Some(module) = module {
            let args = self.module_args.iter().map(String::as_str);
            line(&mut file, "loadmodule", std::iter::once(utf8(&module)).chain(args));
        }
        file
    }
}

/// The arguments in the text of a directive. An empty text is one empty
/// argument, as in `save ""`.
pub(crate) fn split(value: &str) -> Vec<String> {
    if value.is_empty() {
        return vec![String::new()];
    }
    value.split_ascii_whitespace().map(String::from).collect()
}

fn line<'a>(file: &mut String, name: &str, args: impl IntoIterator<Item = &'a str>) {
    file.push_str(name);
    for arg in args {
        file.push(' ');
        quote(file, arg);
    }
    file.push('\n');
}

/// Writes an argument so that the server reads it as this very one.
fn quote(file: &mut String, arg: &str) {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:,+".contains(&b);
    if !arg.is_empty() && arg.bytes().all(plain) {
        file.push_str(arg);
        return;
    }
    file.push('"');
    for b in arg.bytes() {
        match b {
            b'"' | b'\\' => file.extend(['\\', b.into()]),
            b' '..=b'~' => file.push(b.into()),
            // The file is split into lines before quotes are looked at, so a
            // line break must not be written as it is.
            _ => write!(file, "\\x{b:02x}").expect("writing to a string succeeds"),
        }
    }
    file.push('"');
}

fn utf8(path: &Path) -> &str {
    path.to_str().unwrap_or_else(|| panic!("{} is not UTF-8", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(settings: &Settings) -> String {
        settings.render("/d".as_ref(), "/d/s".as_ref(), 7)
    }

    fn without_module() -> Settings {
        Settings { module: Module::None, ..Settings::default() }
    }

    #[test]
    fn what_is_set_replaces_its_default() {
        let mut settings = without_module();
        settings.add("save".into(), split("900 1"));
        settings.add("Save".into(), split("60 1000"));
        let file = render(&settings);
        assert!(file.starts_with("dir /d\nunixsocket /d/s\nport 7\n"));
        assert!(file.contains("\nappendonly no\n"));
        assert!(file.ends_with("\nsave 900 1\nsave 60 1000\n"));
        assert!(!file.contains("save \"\""));
        assert!(render(&without_module()).contains("\nsave \"\"\n"));
    }

    #[test]
    fn arguments_are_quoted() {
        let mut settings = without_module();
        settings.add("x".into(), vec!["a b\n\"\\é".into(), "".into()]);
        assert!(render(&settings).ends_with("x \"a b\\x0a\\\"\\\\\\xc3\\xa9\" \"\"\n"));
    }

    #[test]
    fn the_module_comes_with_its_arguments() {
        let settings = Settings {
            module: Module::Path("/m.so".into()),
            module_args: vec!["max-tokens".into(), "50".into()],
            ..Settings::default()
        };
        assert!(render(&settings).ends_with("\nloadmodule /m.so max-tokens 50\n"));
    }

    #[test]
    #[should_panic(expected = "port is not set with config()")]
    fn managed_directives_are_refused() {
        without_module().add("port".into(), split("1"));
    }
}

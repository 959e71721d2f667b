//! The invariants of docs/architecture.md: which crate may depend on which, what
//! the pure crate may not touch, where unsafe code is, and that modules do not
//! depend on each other in circles. Sources are read, and cargo is asked; no server
//! is needed.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The crates of the workspace, each with those of them that it may depend on,
/// apart from tests.
const MEMBERS: &[(&str, &[&str])] = &[
    ("redis-claw", &["claw-core", "claw-sync"]),
    ("claw-core", &[]),
    ("claw-adapt", &["claw-core"]),
    ("claw-train", &["claw-adapt", "claw-core"]),
    ("claw-sync", &["claw-core"]),
    ("claw-sim", &["claw-core"]),
    ("claw-bench", &["claw-testkit"]),
    ("claw-edge", &["claw-adapt", "claw-core"]),
    ("claw-testkit", &[]),
];

/// All that the pure crate is linked with: text, numbers and MessagePack. Nothing
/// here has a clock, a socket or a thread, and jiff has none without `std`.
const PURE: &[&str] = &[
    "claw-core",
    "jiff",
    "jiff-core",
    "num-traits",
    "rmp",
    "rmp-serde",
    "rmpv",
    "serde",
    "serde_bytes",
    "serde_core",
];

/// What the pure crate does not use, whether it is imported or named in full.
const IMPURE: &[&str] = &[
    "std::time",
    "std::thread",
    "std::net",
    "std::fs",
    "std::io",
    "std::env",
    "std::process",
    "SystemTime",
    "Instant",
    "f32",
    "f64",
];

/// Where that is used all the same, and why.
const EXCEPTIONS: &[(&str, &str)] = &[
    // A reader of bytes in memory, which tells how far it has got.
    ("core/src/codec/blob.rs", "std::io::Cursor"),
];

/// Where unsafe code may be, of the crates that run in somebody's server or decide
/// for one.
const UNSAFE: &[(&str, &[&str])] = &[
    ("core/src", &[]),
    ("adapt/src", &[]),
    ("train/src", &[]),
    ("sim/src", &[]),
    ("sync/src", &[]),
    ("edge/src", &[]),
    // The module API.
    ("src", &["src/host", "src/entry"]),
];

/// Steps of receiving another region's state. Whoever simulates regions calls what
/// puts them together, as the module does.
const STEPS_OF_RECEIVING: &[&str] =
    &["adopt", "as_shared_mut", "begin_as", "believes", "has_room_for", "settle_in", "yields_to"];

#[test]
fn crates_depend_on_none_but_those_below_them() {
    let edges = ["--workspace", "--depth", "1", "--prefix", "depth", "--edges", "normal,build"];
    let known: BTreeSet<&str> = MEMBERS.iter().map(|(name, _)| *name).collect();
    let mut members = BTreeSet::new();
    let mut of = String::new();
    for (line, _) in cargo_tree(&edges) {
        let (depth, name) = line.split_at(1);
        if depth == "0" {
            of = name.to_owned();
            members.insert(of.clone());
        } else if known.contains(name) {
            let allowed = MEMBERS.iter().find(|(member, _)| *member == of).map(|member| member.1);
            assert!(allowed.is_some_and(|below| below.contains(&name)), "{of} depends on {name}");
        }
    }
    let known: BTreeSet<String> = known.into_iter().map(str::to_owned).collect();
    assert_eq!(members, known, "the crates of the workspace");
}

#[test]
fn the_pure_crate_is_linked_with_nothing_that_has_a_clock_or_a_socket() {
    let edges = ["--package", "claw-core", "--edges", "normal,no-proc-macro", "--prefix", "none"];
    let linked: BTreeMap<String, String> = cargo_tree(&edges).into_iter().collect();
    assert_eq!(linked.keys().collect::<Vec<_>>(), PURE);
    let features: Vec<&str> = linked["jiff"].split(',').collect();
    assert!(!features.contains(&"std"), "with the standard library jiff reads the clock");
}

#[test]
fn the_pure_crate_reads_no_clock_and_does_no_io() {
    let mut seen = BTreeSet::new();
    for file in sources("core/src") {
        let paths = paths(&file.tokens);
        for path in &paths {
            let text = path.join("::");
            if let Some(exception) =
                EXCEPTIONS.iter().find(|(name, what)| *name == file.name && mentions(path, what))
            {
                seen.insert(exception);
                continue;
            }
            for impure in IMPURE {
                assert!(!mentions(path, impure), "{}: {text}", file.name);
            }
        }
        let float = file.tokens.iter().find(|token| is_float(token));
        assert_eq!(float, None, "{}: all amounts are integers", file.name);
    }
    assert_eq!(seen.len(), EXCEPTIONS.len(), "an exception that nothing needs");
}

#[test]
fn adapt_is_linked_with_core_and_exact_functions_alone() {
    let edges = ["--package", "claw-adapt", "--edges", "normal,no-proc-macro", "--prefix", "none"];
    let linked: BTreeSet<String> = cargo_tree(&edges).into_iter().map(|(name, _)| name).collect();
    let pure: BTreeSet<String> =
        PURE.iter().chain(&["claw-adapt", "libm"]).map(|name| (*name).to_owned()).collect();
    assert_eq!(linked, pure);
}

/// Time is an argument of `adapt` as it is of core; and what differs from machine to machine, or from
/// compiler to compiler, is not used.
#[test]
fn adapt_reads_no_clock_and_computes_the_same_everywhere() {
    let inexact = ["exp", "ln", "ln_1p", "log10", "log2", "powf", "sin", "cos", "tanh", "mul_add"];
    let floats = ["f32", "f64"];
    for file in sources("adapt/src") {
        for path in paths(&file.tokens) {
            for impure in IMPURE.iter().filter(|impure| !floats.contains(impure)) {
                assert!(!mentions(&path, impure), "{}: {}", file.name, path.join("::"));
            }
        }
        for called in file.tokens.windows(2).filter(|pair| pair[0] == ".") {
            assert!(!inexact.contains(&called[1].as_str()), "{}: {}", file.name, called[1]);
        }
    }
}

#[test]
fn unsafe_code_has_its_places() {
    for (folder, allowed) in UNSAFE {
        let mut found = BTreeSet::new();
        for file in sources(folder) {
            if file.tokens.iter().any(|token| token == "unsafe") {
                let place = allowed.iter().find(|place| Path::new(&file.name).starts_with(place));
                found.insert(*place.unwrap_or_else(|| panic!("{} has unsafe code", file.name)));
            }
        }
        let expected: BTreeSet<&str> = allowed.iter().copied().collect();
        assert_eq!(found, expected, "where {folder} has unsafe code");
    }
}

#[test]
fn the_simulator_receives_as_the_module_does() {
    let core: Vec<Source> = sources("core/src");
    for step in STEPS_OF_RECEIVING {
        let is_step = |file: &Source| file.tokens.iter().any(|token| token == step);
        assert!(core.iter().any(is_step), "core knows no {step}: correct the table");
        for file in sources("sim/src") {
            assert!(!is_step(&file), "{} does by itself what core does: {step}", file.name);
        }
    }
}

#[test]
fn invariants_name_tests_that_there_are() {
    let page = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let tests: Vec<String> = ["tests", "core/tests", "adapt/tests", "sim/tests", "edge/tests"]
        .iter()
        .flat_map(|folder| sources(folder))
        .map(|file| fs::read_to_string(root().join(file.name)).unwrap())
        .collect();
    let invariants: Vec<&str> =
        page.split("\n\n").filter(|part| part.starts_with("*Invariant:*")).collect();
    assert!(invariants.len() > 10, "{invariants:?}");
    for invariant in invariants {
        let mut named = 0;
        for code in invariant.split('`').skip(1).step_by(2) {
            let is_word = |c: char| c == '_' || c.is_ascii_lowercase();
            if code.starts_with(|c: char| c.is_ascii_lowercase()) && code.ends_with(".rs") {
                assert!(root().join(code).is_file(), "{code}: no such file\n{invariant}");
            } else if code.contains('_') && code.chars().all(is_word) {
                let test = format!("fn {code}(");
                assert!(tests.iter().any(|text| text.contains(&test)), "no {test}\n{invariant}");
                named += 1;
            }
        }
        assert!(named > 0, "no test is named\n{invariant}");
    }
}

#[test]
fn core_has_no_circle_of_modules() {
    no_circles("core/src");
}

#[test]
fn adapt_has_no_circle_of_modules() {
    no_circles("adapt/src");
}

#[test]
fn train_has_no_circle_of_modules() {
    no_circles("train/src");
}

#[test]
fn the_module_has_no_circle_of_modules() {
    no_circles("src");
}

#[test]
fn sync_has_no_circle_of_modules() {
    no_circles("sync/src");
}

#[test]
fn edge_has_no_circle_of_modules() {
    no_circles("edge/src");
}

#[test]
fn bench_has_no_circle_of_modules() {
    no_circles("bench/src");
}

#[test]
fn sim_has_no_circle_of_modules() {
    no_circles("sim/src");
}

/// The only arrow that goes back: whatever the server calls is handed the module's state, which
/// is made of everything below.
const BACK: (&str, &str, &str) = ("src", "host", "module");

fn no_circles(folder: &str) {
    let mut graph = graph(folder, &sources(folder));
    if folder == BACK.0 {
        assert!(graph.get_mut(BACK.1).unwrap().remove(BACK.2), "nothing goes back any more");
    }
    assert!(graph.len() > 3, "{folder} has modules: {graph:?}");
    assert!(graph.values().any(|uses| !uses.is_empty()), "{folder}: none uses another one");
    let told: Vec<String> = circles(&graph).iter().map(|circle| arrows(&graph, circle)).collect();
    assert!(told.is_empty(), "modules of {folder} that use each other:\n{}", told.join("\n\n"));
}

/// Who uses whom of some modules.
fn arrows(graph: &Graph, modules: &[String]) -> String {
    let line = |module: &String| {
        let used: Vec<&str> = graph[module]
            .iter()
            .filter(|used| modules.contains(used))
            .map(String::as_str)
            .collect();
        format!("{module} -> {}", used.join(", "))
    };
    modules.iter().map(line).collect::<Vec<_>>().join("\n")
}

// What the tests above can see, and what they overlook.

#[test]
fn circles_are_found() {
    let source = |name: &str, text: &str| Source { name: name.into(), tokens: tokens(text) };
    type Row<'a> = (&'a [(&'a str, &'a str)], &'a [&'a [&'a str]]);
    #[rustfmt::skip]
    let table: [Row<'_>; 7] = [
        (&[("a.rs", "use crate::b;"), ("b.rs", "use crate::c::X;"), ("c.rs", "")], &[]),
        (&[("a.rs", "use crate::b::X;"), ("b.rs", "fn f() { crate::a::g() }")], &[&["a", "b"]]),
        (&[("a.rs", "use crate::{c, b::X};"), ("b/mod.rs", ""), ("b/d.rs", "use crate::a::{X, Y};"),
            ("c.rs", "")], &[&["a", "b"]]),
        (&[("a.rs", "use super::b;"), ("b.rs", "mod d;"), ("b/d.rs", "use super::super::c; use super::a;"),
            ("c.rs", "use crate::a;")], &[&["a", "b", "c"]]),
        (&[("a.rs", "use crate::b;"), ("b.rs", "// crate::a\nconst A: &str = \"crate::a\";")], &[]),
        (&[("a.rs", "use crate::b;"), ("b.rs", "#[cfg(test)]\nmod tests { use crate::a; }")], &[]),
        (&[("lib.rs", "pub mod a; pub mod b; pub use a::X;"), ("a.rs", "use crate::b;"), ("b.rs", "")], &[]),
    ];
    for (files, expected) in table {
        let files: Vec<Source> = files.iter().map(|(name, text)| source(name, text)).collect();
        assert_eq!(circles(&graph("", &files)), expected, "{files:?}");
    }
}

#[test]
fn code_is_told_from_what_is_none() {
    #[rustfmt::skip]
    let table: [(&str, &[&str]); 10] = [
        ("a // b\n/* c /* d */ */ e", &["a", "e"]),
        (r####"a "b\"c" d r#"e"f"# b'"' g"####, &["a", "d", "g"]),
        ("f<'a>(x: &'a str, '\\'', '\"', 'é')", &["f", "<", "a", ">", "(", "x", ":", "&", "a", "str", ",", ",", ",", ")"]),
        ("a::b c . d 0..5 x.0.1", &["a", "::", "b", "c", ".", "d", "0", ".", ".", "5", "x", ".", "0", ".", "1"]),
        ("1.5 2_000.25 0xe5 1e9", &["1.5", "2_000.25", "0xe5", "1e9"]),
        ("a #[cfg(test)] #[allow(x)] mod t { b { c } } d", &["a", "d"]),
        ("a #[cfg(test)] use b::{c}; d", &["a", "d"]),
        ("a #[cfg(test)] mod t { use b; fn c() {} } d; e", &["a", "d", ";", "e"]),
        ("a #[cfg(test)] pub fn f(x: [u8; 2]) { b } d", &["a", "d"]),
        ("#[cfg(not(test))] a", &["#", "[", "cfg", "(", "not", "(", "test", ")", ")", "]", "a"]),
    ];
    for (text, expected) in table {
        assert_eq!(tokens(text), expected, "{text}");
    }
    let floats: Vec<String> = tokens("1.5 2_000.25 1e9 7f64 0xe5 0b1 5 5usize 1u64 x.0.1 0..5");
    let floats: Vec<&String> = floats.iter().filter(|token| is_float(token)).collect();
    assert_eq!(floats, ["1.5", "2_000.25", "1e9", "7f64"]);
    let found =
        paths(&tokens("use std::{fmt, time::{self, Duration as D}}; std::io::Cursor::new(a)"));
    let found: Vec<String> = found.iter().map(|path| path.join("::")).collect();
    assert_eq!(
        found,
        [
            "use",
            "std::fmt",
            "std::time::self",
            "std::time::Duration",
            "as",
            "D",
            "std::io::Cursor::new",
            "a"
        ]
    );
    let named = |path: &str, what: &str| {
        mentions(&path.split("::").map(str::to_owned).collect::<Vec<_>>(), what)
    };
    assert!(named("std::time::Duration", "std::time") && named("a::Instant::now", "Instant"));
    assert!(!named("guard::Instants", "Instant") && !named("std::timer", "std::time"));
}

/// What cargo tells of dependencies: a name and the features of it in each line.
fn cargo_tree(args: &[&str]) -> Vec<(String, String)> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "--no-dedupe", "--format", "{p}|{f}"])
        .args(args)
        .current_dir(root())
        .output()
        .expect("cargo can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().filter_map(|line| line.split_once('|'));
    let lines = lines.map(|(package, features)| {
        (package.split(' ').next().unwrap().to_owned(), features.to_owned())
    });
    let lines: Vec<_> = lines.collect();
    assert!(!lines.is_empty(), "cargo tree tells nothing");
    lines
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of Rust without tests; its name is relative to the repository.
#[derive(Debug)]
struct Source {
    name: String,
    tokens: Vec<String>,
}

fn sources(folder: &str) -> Vec<Source> {
    let mut found = Vec::new();
    below(&root().join(folder), &mut found);
    found.sort();
    assert!(!found.is_empty(), "{folder} has no sources");
    let source = |path: PathBuf| Source {
        name: path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned(),
        tokens: tokens(&fs::read_to_string(path).unwrap()),
    };
    found.into_iter().map(source).collect()
}

fn below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Words, numbers, `::` and single signs; no comments, no texts, and nothing that is
/// compiled for tests alone.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let chars: Vec<char> = text.chars().collect();
    let at = |place: usize| chars.get(place).copied().unwrap_or('\0');
    let is_word = |c: char| c == '_' || c.is_alphanumeric();
    let mut here = 0;
    while here < chars.len() {
        let c = at(here);
        if c == '/' && at(here + 1) == '/' {
            while here < chars.len() && at(here) != '\n' {
                here += 1;
            }
        } else if c == '/' && at(here + 1) == '*' {
            let mut depth = 0;
            while here < chars.len() {
                match (at(here), at(here + 1)) {
                    ('/', '*') => (depth, here) = (depth + 1, here + 2),
                    ('*', '/') => (depth, here) = (depth - 1, here + 2),
                    _ => here += 1,
                }
                if depth == 0 {
                    break;
                }
            }
        } else if c == '"' {
            here = end_of_text(&chars, here);
        } else if c == '\'' && (at(here + 1) == '\\' || at(here + 2) == '\'') {
            here += if at(here + 1) == '\\' { 3 } else { 2 };
            while at(here) != '\'' {
                here += 1;
            }
            here += 1;
        } else if is_word(c) {
            let begin = here;
            let number = c.is_ascii_digit();
            while is_word(at(here)) {
                here += 1;
            }
            // `1.5`, but neither `0..5` nor `x.0.1`.
            let part = at(here) == '.' && at(here + 1).is_ascii_digit();
            if number && part && tokens.last().is_none_or(|before| before != ".") {
                here += 1;
                while is_word(at(here)) {
                    here += 1;
                }
            }
            let word: String = chars[begin..here].iter().collect();
            let hashes = (here..).take_while(|place| at(*place) == '#').count();
            match word.as_str() {
                "r" | "br" | "cr" if at(here + hashes) == '"' => {
                    here = end_of_raw_text(&chars, here + hashes, hashes);
                }
                "b" | "c" if matches!(at(here), '"' | '\'') => {}
                _ => tokens.push(word),
            }
        } else if c == ':' && at(here + 1) == ':' {
            tokens.push("::".into());
            here += 2;
        } else {
            if !c.is_whitespace() && c != '\'' {
                tokens.push(c.into());
            }
            here += 1;
        }
    }
    without_tests(&tokens)
}

/// Behind the text that begins here.
fn end_of_text(chars: &[char], begin: usize) -> usize {
    let mut here = begin + 1;
    while chars[here] != '"' {
        here += if chars[here] == '\\' { 2 } else { 1 };
    }
    here + 1
}

fn end_of_raw_text(chars: &[char], begin: usize, hashes: usize) -> usize {
    let ends = |place: &usize| {
        chars[*place] == '"' && chars[place + 1..].iter().take(hashes).all(|c| *c == '#')
    };
    (begin + 1..chars.len()).find(ends).expect("the text ends") + 1 + hashes
}

/// Leaves out every item behind `#[cfg(test)]`.
fn without_tests(tokens: &[String]) -> Vec<String> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut here = 0;
    while here < tokens.len() {
        if !tokens[here..].iter().take(MARK.len()).eq(MARK) {
            kept.push(tokens[here].clone());
            here += 1;
            continue;
        }
        here += MARK.len();
        while tokens.get(here).is_some_and(|token| token == "#") {
            here = behind(tokens, here, "]");
        }
        here = behind(tokens, here, "");
    }
    kept
}

/// Behind the first `end` outside of all brackets that open from here on; behind the
/// first item where no `end` is named.
fn behind(tokens: &[String], begin: usize, end: &str) -> usize {
    let first = tokens[begin..].iter().find(|token| ["use", "{"].contains(&token.as_str()));
    let mut depth = 0;
    for (place, token) in tokens.iter().enumerate().skip(begin) {
        match token.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        let ends = match token.as_str() {
            // An import has braces too, and goes on to its semicolon.
            "}" if end.is_empty() => first.is_none_or(|token| token != "use"),
            ";" => end.is_empty(),
            token => token == end,
        };
        if depth == 0 && ends {
            return place + 1;
        }
    }
    tokens.len()
}

/// `1.5`, `1e9` and `7f64`.
fn is_float(token: &str) -> bool {
    let decimal = token.starts_with(|c: char| c.is_ascii_digit())
        && !["0x", "0b", "0o"].iter().any(|prefix| token.starts_with(prefix));
    let digits =
        |text: &str| !text.is_empty() && text.chars().all(|c| c == '_' || c.is_ascii_digit());
    let power = token.split_once(['e', 'E']);
    decimal
        && (token.contains('.')
            || token.ends_with("f32")
            || token.ends_with("f64")
            || power.is_some_and(|(number, power)| digits(number) && digits(power)))
}

/// All paths, those in braces in full: `a::{b, c::d}` is `a::b` and `a::c::d`. A
/// word alone is a path too.
fn paths(tokens: &[String]) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut here = 0;
    while here < tokens.len() {
        let before = found.len();
        here = path(tokens, here, &[], &mut found);
        // Signs are no paths.
        if found.len() == before {
            here += 1;
        }
    }
    found
}

/// Reads the path that begins here, if one does, and returns where it ends.
fn path(tokens: &[String], begin: usize, prefix: &[String], found: &mut Vec<Vec<String>>) -> usize {
    let is_word = |token: &String| token.starts_with(|c: char| c == '_' || c.is_alphabetic());
    let mut path = prefix.to_vec();
    let mut here = begin;
    while let Some(word) = tokens.get(here).filter(|token| is_word(token)) {
        path.push(word.clone());
        here += 1;
        if tokens.get(here).is_none_or(|token| token != "::") {
            found.push(path);
            return here;
        }
        here += 1;
        if tokens.get(here).is_some_and(|token| token == "{") {
            here += 1;
            while tokens.get(here).is_some_and(|token| token != "}") {
                here = self::path(tokens, here, &path, found);
                // Behind it there may be another name for it.
                while tokens.get(here).is_some_and(|token| token != "," && token != "}") {
                    here = match is_word(&tokens[here]) {
                        true => self::path(tokens, here, &[], found),
                        false => here + 1,
                    };
                }
                here += usize::from(tokens.get(here).is_some_and(|token| token == ","));
            }
            return here + 1;
        }
    }
    // `a::*` and `a::<T>` name `a`.
    if path.len() > prefix.len() {
        found.push(path);
    }
    here
}

/// Whether a path has this one in it: `std::time` from its beginning, a word alone
/// anywhere.
fn mentions(path: &[String], what: &str) -> bool {
    let words: Vec<&str> = what.split("::").collect();
    match words.as_slice() {
        [word] => path.iter().any(|part| part == word),
        words => path.iter().take(words.len()).eq(words),
    }
}

type Graph = BTreeMap<String, BTreeSet<String>>;

/// The modules at the top of a crate, and which others each uses. The root itself,
/// which names them all, is none of them.
fn graph(folder: &str, files: &[Source]) -> Graph {
    let place = |file: &Source| -> Vec<String> {
        let path = Path::new(&file.name).strip_prefix(folder).unwrap().with_extension("");
        let parts = path.iter().map(|part| part.to_str().unwrap().to_owned());
        parts.filter(|part| !["mod", "lib", "main"].contains(&part.as_str())).collect()
    };
    let mut graph = Graph::new();
    for module in files.iter().filter_map(|file| place(file).into_iter().next()) {
        graph.entry(module).or_default();
    }
    for file in files {
        let place = place(file);
        let Some(module) = place.first() else { continue };
        for path in paths(&file.tokens) {
            // As many steps up as there are above the root.
            let up = path.iter().take_while(|part| *part == "super").count();
            let used = match path.first().map(String::as_str) {
                Some("crate") => path.get(1),
                Some("super") if up == place.len() => path.get(up),
                _ => None,
            };
            if let Some(used) = used.filter(|used| graph.contains_key(*used) && *used != module) {
                graph.get_mut(module).unwrap().insert(used.clone());
            }
        }
    }
    graph
}

/// Groups of modules of which each uses all others, be it through others.
fn circles(graph: &Graph) -> Vec<Vec<String>> {
    let reached = |from: &String| {
        let mut reached = BTreeSet::new();
        let mut next: Vec<&String> = graph[from].iter().collect();
        while let Some(module) = next.pop() {
            if reached.insert(module.clone()) {
                next.extend(&graph[module]);
            }
        }
        reached
    };
    let reach: BTreeMap<&String, BTreeSet<String>> =
        graph.keys().map(|module| (module, reached(module))).collect();
    let groups: BTreeSet<Vec<String>> = graph
        .keys()
        .filter(|module| reach[module].contains(*module))
        .map(|module| {
            let both =
                |other: &&String| reach[module].contains(*other) && reach[other].contains(module);
            graph.keys().filter(both).cloned().collect()
        })
        .collect();
    groups.into_iter().collect()
}

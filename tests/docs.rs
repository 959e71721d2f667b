//! The documentation, held to what is really so: every transcript is replayed
//! with redis-cli, every list of commands, parameters and fields is compared
//! with the server's, every link is followed.
//!
//! # Transcripts
//!
//! A block marked `console` holds lines `redis> COMMAND`, each followed by what
//! redis-cli prints for it on a terminal. The blocks of a page are replayed in
//! order on a fresh server with the module; each block is one connection. One
//! marked `console cluster` has a server of its own, in cluster mode and with all
//! slots.
//!
//! Lines must be the same, except for what depends on the moment, see [`Sort`].
#![allow(clippy::arithmetic_side_effects, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::panic, clippy::string_slice, clippy::unwrap_used)]

use claw_testkit::{Server, cli_binary, cmd, eventually, info_field};
use redis::{Connection, Value};
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How often a page is replayed: what is told of waits and tokens is no longer
/// right when the machine stands still between two commands.
const ATTEMPTS: usize = 3;
/// By how much a wait may differ: in milliseconds, or one part in this many.
const WAIT_MS: i64 = 300;
const WAIT_PART: i64 = 50;
/// By how much the `tokens` field may differ: what a minute's token gains in 3 s.
const TOKENS: f64 = 0.05;

#[test]
fn transcripts_are_what_the_server_prints() {
    let mut replayed = 0;
    let mut wrong = Vec::new();
    for page in pages() {
        let fences = page.fences("console");
        replayed += fences.len();
        let mut told = Ok(());
        for _ in 0..ATTEMPTS {
            told = replay(&fences);
            if told.is_ok() {
                break;
            }
        }
        wrong.extend(told.err().map(|why| format!("{}:{why}", page.name)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(replayed > 0, "no transcript was found");
}

#[test]
fn what_may_differ_in_a_transcript() {
    const SAME: bool = true;
    const OTHER: bool = false;
    #[rustfmt::skip]
    let table = [
        // what was told, and before it        printed, and before it             is
        ("CL.TAKE k", "", "1) (integer) 1",    "1) (integer) 1",                  SAME),
        ("CL.TAKE k", "", "1) (integer) 1",    "1) (integer) 0",                  OTHER),
        ("CL.TAKE k", "", "3) (integer) 99",   "3) (integer) 98",                 OTHER),
        ("CL.TAKE k", "", "4) (integer) 60000", "4) (integer) 59000",             SAME),
        ("cl.take k", "", "5) (integer) 60000", "5) (integer) 58000",             OTHER),
        ("CL.TAKE k", "", "4) (integer) 200",  "4) (integer) 0",                  OTHER),
        ("CL.TAKE k", "", "4) (integer) 0",    "4) (integer) 1",                  OTHER),
        ("CL.TAKE k", "", "4) (integer) -1",   "4) (integer) 1",                  OTHER),
        ("CL.TAKE k", "", "(error) ERR a",     "(error) ERR b",                   OTHER),
        ("CL.TAKEALL 1 k", "", "   5) (integer) 400", "   5) (integer) 390",      SAME),
        ("CL.TAKEALL 1 k", "", "   5) (integer) 400", "5) (integer) 390",         OTHER),
        ("CL.TAKEALL 1 k", "", "3) 1) 1) (integer) 1", "3) 1) 1) (integer) 2",    OTHER),
        ("CL.THROTTLE k", "", "5) (integer) 4", "5) (integer) 3",                 SAME),
        ("CL.THROTTLE k", "", "5) (integer) 4", "5) (integer) 2",                 OTHER),
        ("CL.THROTTLE k", "", "3) (integer) 4", "3) (integer) 3",                 OTHER),
        ("PTTL k", "", "(integer) 60000",      "(integer) 59990",                 SAME),
        ("PTTL k", "", "(integer) -1",         "(integer) 10",                    OTHER),
        ("TTL k",  "", "(integer) 60",         "(integer) 59",                    SAME),
        ("HGETALL k", r#"1) "tokens""#, r#"2) "9.001""#, r#"2) "9.002""#,         SAME),
        ("HGETALL k", r#"1) "tokens""#, r#"2) "9.001""#, r#"2) "8.9""#,           OTHER),
        ("HGETALL k", r#"1) "timestamp""#, r#"2) "1795226123884000""#, r#"2) "1695226123884000""#, SAME),
        ("HGETALL k", r#"1) "timestamp""#, r#"2) "1795226123884000""#, r#"2) "1695226123""#, OTHER),
        ("HGETALL k", r#"1) "policy""#, r#"2) "5 1/1000""#, r#"2) "5 2/1000""#,   OTHER),
        ("HGET k remainder", "", r#""40000000""#, r#""0""#,                       SAME),
        ("HGET k userWeight", "", r#""2""#,    r#""3""#,                          OTHER),
        ("INFO claw", "", "claw_taken:6",      "claw_taken:7",                    OTHER),
        ("INFO claw", "", "claw_cmdstat_cl.take:calls=6,usec=19", "claw_cmdstat_cl.take:calls=6,usec=7", SAME),
        ("INFO claw", "", "claw_cmdstat_cl.take:calls=6,usec=19", "claw_cmdstat_cl.take:calls=7,usec=7", OTHER),
        ("GET k", "", r#""1795226123884000""#, r#""1795226123884001""#,           OTHER),
    ];
    for (command, before, told, printed, same) in table {
        assert_eq!(matches(command, before, told, printed), same, "{command}: {told} / {printed}");
    }
}

#[test]
fn every_command_is_in_the_readme_and_has_its_page() {
    let server = Server::start();
    let mut conn = server.connection();
    let registered: BTreeSet<String> = command_names(&mut conn);
    assert!(registered.contains("CL.TAKE"));

    let table = page("README.md").first_cells("Commands");
    assert_eq!(table, registered, "README.md, section Commands");
    let files: BTreeSet<String> = fs::read_dir(root().join("docs/commands"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_uppercase())
        .collect();
    assert_eq!(files, registered, "docs/commands");

    for name in &registered {
        let page = page(&format!("docs/commands/{}.md", name.to_lowercase()));
        assert!(!page.fences("console").is_empty(), "{}: no transcript", page.name);
        assert!(page.text.starts_with(&format!("# {name}\n")), "{}: title", page.name);
        let docs = cmd(&mut conn, &format!("COMMAND DOCS {name}")).unwrap();
        let docs = value_of(&docs, &name.to_lowercase());
        let summary = text_of(&value_of(&docs, "summary"));
        assert!(page.text.contains(&summary), "{}: no {summary:?}", page.name);
        let complexity = text_of(&value_of(&docs, "complexity"));
        assert_eq!(page.row("Complexity"), complexity, "{}", page.name);
        assert_eq!(page.row("Flags"), flags(&mut conn, name), "{}", page.name);
    }
}

#[test]
fn the_tables_of_parameters_are_complete() {
    let server = Server::start();
    let mut conn = server.connection();
    let Value::Array(found) = cmd(&mut conn, "CONFIG GET claw.*").unwrap() else {
        panic!("CONFIG GET answers with an array");
    };
    let real: BTreeSet<(String, String)> =
        found.chunks(2).map(|pair| (text_of(&pair[0]), text_of(&pair[1]))).collect();
    assert!(!real.is_empty());
    for name in ["README.md", "docs/configuration.md"] {
        let told: BTreeSet<(String, String)> = page(name)
            .rows("Parameters")
            .iter()
            .map(|cells| (code(&cells[0]), code(&cells[1])))
            .collect();
        assert_eq!(told, real, "{name}, section Parameters: names and defaults");
    }
}

#[test]
fn the_table_of_info_fields_is_complete() {
    let server = Server::start();
    let mut conn = server.connection();
    let names = command_names(&mut conn);
    for name in &names {
        // Even refused for its arguments, a command is counted.
        let _ = cmd(&mut conn, &format!("{name} k"));
    }
    assert_eq!(info_field(&mut conn, "claw", "claw_version").unwrap(), env!("CARGO_PKG_VERSION"));
    let info: String = redis::cmd("INFO").arg("claw").query(&mut conn).unwrap();
    let real: BTreeSet<String> = info
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(field, _)| {
            let command = names.iter().find(|name| field.ends_with(&name.to_lowercase()));
            command
                .map_or(field.to_owned(), |name| field.replace(&name.to_lowercase(), "<command>"))
        })
        .collect();
    assert!(real.len() > 3, "{info}");
    assert_eq!(page("docs/configuration.md").first_cells("INFO claw"), real);
}

#[test]
fn snippets_are_in_the_examples_word_for_word() {
    let readme = page("README.md");
    for (language, file) in [
        ("python", "python/take.py"),
        ("javascript", "node/take.mjs"),
        ("go", "go/main.go"),
        ("java", "java/Take.java"),
        ("rust", "rust/take.rs"),
    ] {
        let path = format!("examples/clients/{file}");
        let example = fs::read_to_string(root().join(&path)).unwrap();
        let snippets = readme.fences(language);
        assert!(!snippets.is_empty(), "README.md has no {language}");
        assert!(readme.text.contains(&format!("({path})")), "README.md has no link to {path}");
        for snippet in snippets {
            let text = snippet.lines.join("\n");
            assert!(example.contains(&text), "README.md:{}: not in {path}", snippet.line);
        }
    }
}

#[test]
fn links_lead_somewhere() {
    let mut followed = 0;
    for page in pages() {
        for (line, target) in page.links() {
            if target.contains("://") {
                continue;
            }
            let place = format!("{}:{line}: {target}", page.name);
            let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let mut path = root().join(&page.name);
            if !file.is_empty() {
                path.pop();
                path.push(file);
            }
            assert!(path.exists(), "{place}: no such file");
            if !anchor.is_empty() {
                let text = fs::read_to_string(&path).unwrap();
                let anchors: Vec<String> =
                    headings(&text).map(|(_, _, title)| slug(title)).collect();
                assert!(anchors.iter().any(|a| a == anchor), "{place}: only {anchors:?}");
            }
            followed += 1;
        }
    }
    assert!(followed > 0, "no link was found");
}

#[test]
fn make_knows_the_targets_that_are_named() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let mut named = 0;
    for page in pages() {
        for target in page.make_targets() {
            let rule = format!("{target}:");
            assert!(
                makefile.lines().any(|line| line.starts_with(&rule)),
                "{}: make {target}",
                page.name
            );
            named += 1;
        }
    }
    assert!(named > 0, "no target was found");
}

// Transcripts.

/// What of a command's output depends on the moment. Everything else is exact.
#[derive(Clone, Copy, PartialEq)]
enum Sort {
    Exact,
    /// The five numbers of a take: the fourth and fifth are milliseconds.
    Answer,
    /// The five numbers of redis-cell: the fourth and fifth are seconds.
    Throttle,
    /// A number of milliseconds.
    Milliseconds,
    /// A number of seconds.
    Seconds,
    /// Fields of a bucket.
    Fields,
    /// Lines of INFO.
    Info,
}

impl Sort {
    fn of(command: &str) -> Sort {
        let name = command.split_ascii_whitespace().next().unwrap_or_default();
        match name.to_ascii_lowercase().as_str() {
            "cl.take" | "cl.peek" | "cl.give" | "cl.takeall" => Sort::Answer,
            "cl.throttle" => Sort::Throttle,
            "pttl" => Sort::Milliseconds,
            "ttl" => Sort::Seconds,
            "hget" | "hgetall" => Sort::Fields,
            "info" => Sort::Info,
            _ => Sort::Exact,
        }
    }
}

/// Whether `printed` is what `told` says. `before` is the line printed before.
fn matches(command: &str, before: &str, told: &str, printed: &str) -> bool {
    if told == printed {
        return true;
    }
    let near = |tolerance: fn(i64) -> i64| match (Number::parse(told), Number::parse(printed)) {
        // Whether there is a wait at all never depends on the moment.
        (Some(a), Some(b)) if a.before == b.before && a.value > 0 && b.value > 0 => {
            (a.value - b.value).abs() <= tolerance(a.value)
        }
        _ => false,
    };
    let milliseconds = |told: i64| WAIT_MS.max(told / WAIT_PART);
    let is_wait = || {
        let label = Number::parse(told).map(|number| number.before.trim());
        label.is_some_and(|label| matches!(label, "4)" | "5)"))
    };
    match Sort::of(command) {
        Sort::Exact => false,
        Sort::Answer => is_wait() && near(milliseconds),
        Sort::Throttle => is_wait() && near(|_| 1),
        Sort::Milliseconds => near(milliseconds),
        Sort::Seconds => near(|_| 1),
        Sort::Fields => same_field(command, before, told, printed),
        Sort::Info => {
            let telling = |line: &str| -> Option<String> {
                let (name, values) = line.split_once(':')?;
                let timed = name.starts_with("claw_cmdstat_") || name.starts_with("claw_latency_");
                timed.then(|| format!("{name}:{}", untimed(values)))
            };
            telling(told).is_some_and(|told| telling(printed) == Some(told))
        }
    }
}

fn same_field(command: &str, before: &str, told: &str, printed: &str) -> bool {
    let words: Vec<&str> = command.split_ascii_whitespace().collect();
    let field = match words.as_slice() {
        [_, _, field] => *field,
        _ => quoted(before).map_or("", |(_, field)| field),
    };
    let (Some((label, told)), Some((other, printed))) = (quoted(told), quoted(printed)) else {
        return false;
    };
    let integers = || Some((told.parse::<u64>().ok()?, printed.parse::<u64>().ok()?));
    label == other
        && match field {
            "tokens" => match (told.parse::<f64>(), printed.parse::<f64>()) {
                (Ok(a), Ok(b)) => (a - b).abs() <= TOKENS,
                _ => false,
            },
            "timestamp" => integers().is_some_and(|(a, b)| a.min(b) >= 1_000_000_000_000_000),
            "remainder" => integers().is_some(),
            _ => false,
        }
}

/// `label "text"` as label and text.
fn quoted(line: &str) -> Option<(&str, &str)> {
    line.strip_suffix('"')?.split_once('"')
}

/// Values of INFO without those that were measured: `calls=6,usec=19` is
/// `calls=6,usec=`.
fn untimed(values: &str) -> String {
    values
        .split(',')
        .map(|pair| match pair.split_once('=') {
            Some((name, _)) if name.starts_with("usec") || name.starts_with('p') => name,
            _ => pair,
        })
        .collect::<Vec<_>>()
        .join(",")
}

/// A line that ends with `(integer) N`.
struct Number<'a> {
    before: &'a str,
    value: i64,
}

impl<'a> Number<'a> {
    fn parse(line: &'a str) -> Option<Number<'a>> {
        let (before, value) = line.rsplit_once("(integer) ")?;
        Some(Number { before, value: value.parse().ok()? })
    }
}

/// Replays the blocks of one page; the error begins with the number of a line.
fn replay(fences: &[Fence]) -> Result<(), String> {
    let mut server = None;
    for fence in fences {
        if fence.info == "console cluster" {
            replay_block(&cluster_server(), fence)?;
        } else {
            replay_block(server.get_or_insert_with(Server::start), fence)?;
        }
    }
    Ok(())
}

/// A cluster of one.
fn cluster_server() -> Server {
    let server = Server::builder().config("cluster-enabled", "yes").start();
    let mut conn = server.connection();
    cmd(&mut conn, "CLUSTER ADDSLOTSRANGE 0 16383").unwrap();
    eventually(Duration::from_secs(30), Duration::from_millis(20), "the cluster to be up", || {
        text_of(&cmd(&mut conn, "CLUSTER INFO").unwrap()).contains("cluster_state:ok")
    });
    server
}

fn replay_block(server: &Server, fence: &Fence) -> Result<(), String> {
    const PROMPT: &str = "redis> ";
    let mut input = String::new();
    for command in fence.lines.iter().filter_map(|line| line.strip_prefix(PROMPT)) {
        input.push_str(command);
        input.push('\n');
    }
    let output = redis_cli(server, &input);
    let mut printed = output.lines().map(str::trim_end);

    let (mut command, mut before) = ("", "");
    for (at, told) in fence.lines.iter().enumerate() {
        if let Some(next) = told.strip_prefix(PROMPT) {
            (command, before) = (next, "");
            continue;
        }
        let line = printed.next().unwrap_or("(nothing)");
        if command.is_empty() || !matches(command, before, told, line) {
            let place = fence.line + at;
            return Err(format!("{place}: `{command}` printed\n{line}\nand not\n{told}"));
        }
        before = line;
    }
    let rest: Vec<&str> = printed.filter(|line| !line.is_empty()).collect();
    match rest.is_empty() {
        true => Ok(()),
        false => Err(format!("{}: not told of: {rest:#?}", fence.line + fence.lines.len())),
    }
}

fn redis_cli(server: &Server, input: &str) -> String {
    let mut child = Command::new(cli_binary())
        .arg("--no-raw")
        .arg("-s")
        .arg(server.socket_path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("redis-cli can be started");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "redis-cli ended with {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

// Pages.

/// A Markdown file; its name is relative to the repository.
struct Page {
    name: String,
    text: String,
}

/// A fenced block.
struct Fence {
    /// What stands behind the opening fence.
    info: String,
    /// The number of its first line.
    line: usize,
    lines: Vec<String>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page(name: &str) -> Page {
    let text = fs::read_to_string(root().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    Page { name: name.to_owned(), text }
}

fn pages() -> Vec<Page> {
    let mut files = vec![root().join("README.md"), root().join("CHANGELOG.md")];
    for dir in ["docs", "examples", "demo"] {
        markdown_below(&root().join(dir), &mut files);
    }
    files.sort();
    files.iter().map(|file| page(file.strip_prefix(root()).unwrap().to_str().unwrap())).collect()
}

fn markdown_below(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("node_modules") {
            markdown_below(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            files.push(path);
        }
    }
}

impl Page {
    /// The blocks whose first word is `kind`.
    fn fences(&self, kind: &str) -> Vec<Fence> {
        let mut fences = Vec::new();
        let mut open: Option<Fence> = None;
        for (number, line) in (1..).zip(self.text.lines()) {
            match (line.strip_prefix("```"), &mut open) {
                (Some(info), None) => {
                    open = Some(Fence { info: info.into(), line: number + 1, lines: Vec::new() });
                }
                (Some(_), Some(_)) => fences.extend(open.take()),
                (None, Some(fence)) => fence.lines.push(line.to_owned()),
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{}: a block is not closed", self.name);
        fences.retain(|fence| fence.info.split(' ').next() == Some(kind));
        fences
    }

    /// The rows of the tables in the section under a heading, without the heads.
    fn rows(&self, heading: &str) -> Vec<Vec<String>> {
        let (start, level, _) = headings(&self.text)
            .find(|(_, _, title)| *title == heading)
            .unwrap_or_else(|| panic!("{}: no heading {heading:?}", self.name));
        let end = headings(&self.text)
            .find(|(line, other, _)| *line > start && *other <= level)
            .map_or(usize::MAX, |(line, _, _)| line);
        let section = self.text.lines().enumerate().filter(|(at, _)| (start..end).contains(at));
        let mut rows: Vec<Vec<String>> = Vec::new();
        for (_, line) in section.filter(|(_, line)| line.starts_with('|')) {
            if line.starts_with("|--") {
                rows.pop();
                continue;
            }
            let cells = line.trim_matches('|').split(" | ");
            rows.push(cells.map(|cell| cell.trim().to_owned()).collect());
        }
        rows
    }

    /// The first cells of those rows, as far as they are code.
    fn first_cells(&self, heading: &str) -> BTreeSet<String> {
        self.rows(heading).iter().map(|cells| code(&cells[0])).collect()
    }

    /// The value in a table of two columns, without its marks.
    fn row(&self, name: &str) -> String {
        let line = self.text.lines().find(|line| line.starts_with(&format!("| {name} |")));
        let line = line.unwrap_or_else(|| panic!("{}: no row {name:?}", self.name));
        line.split('|').nth(2).unwrap().trim().replace('`', "")
    }

    /// Targets of links, with the number of the line.
    fn links(&self) -> Vec<(usize, String)> {
        let mut links = Vec::new();
        let mut in_fence = false;
        for (number, line) in (1..).zip(self.text.lines()) {
            if line.starts_with("```") {
                in_fence = !in_fence;
            }
            if in_fence {
                continue;
            }
            for part in line.split("](").skip(1) {
                let target = part.split(')').next().unwrap();
                links.push((number, target.to_owned()));
            }
        }
        links
    }

    /// What follows `make` in code.
    fn make_targets(&self) -> Vec<String> {
        let starts = self.text.split("`make ").skip(1).chain(self.text.split("\nmake ").skip(1));
        starts
            .map(|rest| rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect())
            .collect()
    }
}

/// Line (from 0), level and title of each heading.
fn headings(text: &str) -> impl Iterator<Item = (usize, usize, &str)> {
    let mut in_fence = false;
    text.lines().enumerate().filter_map(move |(at, line)| {
        if line.starts_with("```") {
            in_fence = !in_fence;
        }
        let title = line.trim_start_matches('#');
        let level = line.len() - title.len();
        (!in_fence && level > 0).then(|| (at, level, title.trim()))
    })
}

/// The anchor of a heading.
fn slug(title: &str) -> String {
    let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// The first word of the first code span in a cell: of ``[`CL.TAKE key`](..)``,
/// `CL.TAKE`.
fn code(cell: &str) -> String {
    let code = cell.split('`').nth(1).unwrap_or_else(|| panic!("no code in {cell:?}"));
    code.split(' ').next().unwrap().trim_matches('"').to_owned()
}

// The server's answers.

/// The module's commands, in capitals.
/// Subcommands are on the page of their container.
fn command_names(conn: &mut Connection) -> BTreeSet<String> {
    let Value::Array(names) = cmd(conn, "COMMAND LIST FILTERBY MODULE claw").unwrap() else {
        panic!("COMMAND LIST answers with an array");
    };
    let names = names.iter().map(|name| text_of(name).to_uppercase());
    names.filter(|name| !name.contains('|')).collect()
}

/// The flags that every server shows, in its order.
fn flags(conn: &mut Connection, name: &str) -> String {
    let Value::Array(commands) = cmd(conn, &format!("COMMAND INFO {name}")).unwrap() else {
        panic!("COMMAND INFO answers with an array");
    };
    let Value::Array(info) = &commands[0] else {
        panic!("{name} is no command");
    };
    let (Value::Array(flags) | Value::Set(flags)) = &info[2] else {
        panic!("the third element is the flags");
    };
    let flags = flags.iter().map(text_of);
    flags
        .filter(|f| !["module", "movablekeys"].contains(&f.as_str()))
        .collect::<Vec<_>>()
        .join(", ")
}

/// The value of a name in a map, which is a flat array in RESP2.
fn value_of(map: &Value, name: &str) -> Value {
    let Value::Array(items) = map else {
        panic!("{map:?} is no map");
    };
    let pair = items.chunks(2).find(|pair| text_of(&pair[0]) == name);
    pair.unwrap_or_else(|| panic!("no {name:?} in {map:?}"))[1].clone()
}

fn text_of(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).unwrap(),
        Value::SimpleString(text) => text.clone(),
        Value::VerbatimString { text, .. } => text.clone(),
        Value::Okay => "OK".to_owned(),
        value => panic!("{value:?} is no text"),
    }
}

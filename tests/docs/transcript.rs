//! What is in a transcript, replayed, and what may differ from one run to the next.

use crate::page::{Fence, pages};
use claw_testkit::{Server, cli_binary, serve_all_slots};
use std::io::Write;
use std::process::{Command, Stdio};

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
        ("CL.TAKEALL k", "", "   5) (integer) 400", "   5) (integer) 390",      SAME),
        ("CL.TAKEALL k", "", "   5) (integer) 400", "5) (integer) 390",         OTHER),
        ("CL.TAKEALL k", "", "4) 1) 1) (integer) 1", "4) 1) 1) (integer) 2",    OTHER),
        ("CL.TAKEALL k", "", "3) (integer) 400", "3) (integer) 390",              SAME),
        ("CL.TAKEALL k", "", "2) (integer) 1", "2) (integer) 2",                  OTHER),
        ("CL.TAKEALL k", "", "      3) (integer) 400", "      3) (integer) 390",  OTHER),
        ("CL.SETTLE k", "", "5) (integer) 400", "5) (integer) 390",               SAME),
        ("CL.SETTLE k", "", "3) (integer) -4", "3) (integer) -3",                 OTHER),
        ("EXEC", "", "   5) (integer) 400", "   5) (integer) 390",                SAME),
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

/// What of a command's output depends on the moment. Everything else is exact.
#[derive(Clone, Copy, PartialEq)]
enum Sort {
    Exact,
    /// The five numbers of a take: the fourth and fifth are milliseconds.
    Answer,
    /// Several of them, and before them the longest wait as the third number.
    Answers,
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
            // What EXEC and EVAL answer is what calls answered.
            "cl.take" | "cl.peek" | "cl.give" | "cl.settle" | "exec" | "eval" => Sort::Answer,
            "cl.takeall" => Sort::Answers,
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
        Sort::Answers => (is_wait() || told.starts_with("3) ")) && near(milliseconds),
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
    serve_all_slots(&mut server.connection());
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
    let mut printed = output.lines().map(str::trim_end).filter(|line| !is_duration(line));

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

/// What redis-cli adds to an answer that took half a second or more: `(0.54s)`.
fn is_duration(line: &str) -> bool {
    let seconds = line.strip_prefix('(').and_then(|line| line.strip_suffix("s)"));
    seconds.is_some_and(|seconds| seconds.parse::<f64>().is_ok())
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

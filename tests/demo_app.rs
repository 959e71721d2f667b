//! The services in demo/, under load and without Redis.
//!
//! What they need is installed below Cargo's target directory. Where a language or
//! its package registry is missing, the test says `SKIPPED` and passes; with `CI`
//! set in the environment it fails.
#![allow(clippy::arithmetic_side_effects, clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use claw_testkit::{Server, eventually, free_port, info_field, skipped, spawn};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(50);
/// What the load may be granted, in a bucket that never refills: less than it asks.
const CAPACITY: u64 = 300;

#[test]
fn fifty_users_get_as_many_200s_as_there_are_tokens() {
    let Some(kinds) = installed() else { return };
    for kind in &kinds {
        let server = Server::start();
        let service = Service::start(kind, &server.url(), &[("LIMIT_REFILL", "0")]);
        load(&server, &[&service]);
        service.stop();
    }
    // Both at once, in front of one server: the limit is shared.
    let server = Server::start();
    let services: Vec<Service> = kinds
        .iter()
        .map(|kind| Service::start(kind, &server.url(), &[("LIMIT_REFILL", "0")]))
        .collect();
    load(&server, &services.iter().collect::<Vec<_>>());
    services.into_iter().for_each(Service::stop);
}

#[test]
fn the_script_for_k6_can_be_read() {
    if installed().is_some() {
        run(Command::new("node").arg("--check").arg(demo("load.js"))).unwrap();
    }
}

/// Ramps to 50 users with demo/load.py, and compares what they saw with what the
/// server counted.
fn load(server: &Server, services: &[&Service]) {
    let mut conn = server.connection();
    let mut count =
        |field| -> u64 { info_field(&mut conn, "claw", field).unwrap().parse().unwrap() };
    let before = count("claw_taken");
    let output = Command::new("python3")
        .arg(demo("load.py"))
        .args(["--users", "50", "--seconds", "4", "--every", "2"])
        .args(services.iter().map(|service| service.url()))
        .output()
        .expect("python3 can be started");
    let seen = String::from_utf8(output.stdout).unwrap();
    // It fails at any other answer than 200 and 429.
    assert!(output.status.success(), "{seen}{}", String::from_utf8_lossy(&output.stderr));
    let (granted, refused) = (count("claw_taken") - before, count("claw_refused"));
    let (sums, seen) = seen.trim().rsplit_once('\n').expect(&seen);
    assert_eq!(seen, format!(r#"{{"200": {granted}, "429": {refused}}}"#));
    for service in services.iter().filter(|_| services.len() > 1) {
        // Of the same host, so told apart by their ports.
        assert!(sums.contains(&format!(" 127.0.0.1:{} ", service.port)), "{sums}");
    }
    assert_eq!(granted, CAPACITY);
    assert!(refused > 0);
}

#[test]
fn answers_say_what_is_left_and_when_to_come_back() {
    let Some(kinds) = installed() else { return };
    let server = Server::start();
    for kind in &kinds {
        // One request in an hour, so that it does not matter how long this takes.
        let policy =
            [("LIMIT_CAPACITY", "2"), ("LIMIT_REFILL", "1"), ("LIMIT_INTERVAL_MS", "3600000")];
        let service = Service::start(kind, &server.url(), &policy);
        let key = format!("X-Api-Key: {}", kind.name);
        #[rustfmt::skip]
        let table = [
            // path,     header,  status, remaining,  reset about, retry about
            ("/",        &key,    200,    Some("1"),  Some(3600),  None),
            ("/",        &key,    200,    Some("0"),  Some(7200),  None),
            ("/",        &key,    429,    Some("0"),  Some(7200),  Some(3600)),
            ("/health",  &key,    200,    None,       None,        None),
            ("/nothing", &key,    404,    None,       None,        None),
            ("/",        &format!("X-Api-Key: {}", "k".repeat(129)), 400, None, None, None),
            ("/",        &format!("X-Api-Key: {}-2", kind.name), 200, Some("1"), Some(3600), None),
        ];
        for (path, header, status, remaining, reset, retry) in table {
            let (answered, fields) = service.get(path, header).unwrap();
            let place = format!("{}: {path} {header}: {fields:?}", kind.name);
            let field = |name: &str| fields.get(name).map(String::as_str);
            assert_eq!(answered, status, "{place}");
            assert_eq!(field("ratelimit-limit"), remaining.map(|_| "2"), "{place}");
            assert_eq!(field("ratelimit-remaining"), remaining, "{place}");
            for (name, about) in [("ratelimit-reset", reset), ("retry-after", retry)] {
                let seconds = field(name).map(|text| text.parse::<u64>().unwrap());
                let near = |seconds: u64| about.is_some_and(|a| (a - 60..=a).contains(&seconds));
                assert_eq!(seconds.is_some(), about.is_some(), "{name}: {place}");
                assert!(seconds.is_none_or(near), "{name}: {place}");
            }
        }
        for method in ["POST", "HEAD", "DELETE"] {
            let (answered, fields) = service.ask(method, "/", &key).unwrap();
            let place = format!("{}: {method}: {fields:?}", kind.name);
            assert_eq!(answered, 405, "{place}");
            assert_eq!(fields.get("allow").map(String::as_str), Some("GET"), "{place}");
            let kind = fields.get("content-type").map(String::as_str);
            assert_eq!(kind, Some("application/json"), "{place}");
        }
        service.stop();
    }
}

#[test]
fn without_redis_they_fail_as_told_and_recover() {
    let Some(kinds) = installed() else { return };
    for kind in &kinds {
        for (fail, status, retry) in [("open", 200, None), ("closed", 503, Some("1"))] {
            let mut server = Server::start();
            let service = Service::start(kind, &server.url(), &[("FAIL", fail)]);
            server.crash();
            let place = format!("{} {fail}", kind.name);
            for _ in 0..3 {
                let (answered, fields) = service.get("/", "X-Api-Key: a").unwrap();
                assert_eq!(answered, status, "{place}");
                assert_eq!(fields.get("retry-after").map(String::as_str), retry, "{place}");
                assert_eq!(fields.get("ratelimit-limit"), None, "{place}");
            }
            assert_eq!(service.get("/health", "").unwrap().0, 200, "{place}");

            let _server = server.restart();
            eventually(PATIENCE, TICK, "takes to be made again", || {
                let (answered, fields) = service.get("/", "X-Api-Key: a").unwrap();
                answered == 200 && fields.contains_key("ratelimit-limit")
            });
            service.stop();
        }
    }
}

#[test]
fn what_was_asked_while_redis_hung_is_not_charged_afterwards() {
    const HUNG: u64 = 6;
    let Some(kinds) = installed() else { return };
    for kind in &kinds {
        let server = Server::start();
        let service = Service::start(kind, &server.url(), &[("REDIS_TIMEOUT_MS", "1000")]);
        let taken = || -> u64 {
            info_field(&mut server.connection(), "claw", "claw_taken").unwrap().parse().unwrap()
        };
        let get = || service.get("/", "X-Api-Key: a").unwrap();
        let before = taken();
        signal(server.pid(), "STOP");
        for _ in 0..HUNG {
            let (answered, fields) = get();
            assert_eq!((answered, fields.get("ratelimit-limit")), (200, None), "{}", kind.name);
        }
        signal(server.pid(), "CONT");
        eventually(PATIENCE, TICK, "takes to be made again", || {
            get().1.contains_key("ratelimit-limit")
        });
        // That one, and what had been sent before the first of them was given up.
        let charged = taken() - before;
        assert!((1..HUNG).contains(&charged), "{}: {charged}", kind.name);
        service.stop();
    }
}

fn signal(process: u32, name: &str) {
    let sent = Command::new("kill").args(["-s", name, &process.to_string()]).status();
    assert!(sent.is_ok_and(|status| status.success()), "kill -s {name} {process}");
}

/// One of the services, installed.
struct Kind {
    name: &'static str,
    program: PathBuf,
    script: PathBuf,
}

/// A running service, which is killed when this is dropped.
struct Service {
    process: Child,
    port: u16,
}

impl Service {
    fn start(kind: &Kind, redis: &str, variables: &[(&str, &str)]) -> Service {
        let port = free_port();
        let mut command = Command::new(&kind.program);
        command
            .arg(&kind.script)
            .env("REDIS_URL", redis)
            .env("PORT", port.to_string())
            .env("LIMIT_CAPACITY", CAPACITY.to_string())
            // A busy machine is not an outage.
            .env("REDIS_TIMEOUT_MS", "20000")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let service = Service { process: spawn(command), port };
        eventually(PATIENCE, TICK, "the service to be up and to have its Redis", || {
            service
                .get("/", "X-Api-Key: probe")
                .is_some_and(|(_, fields)| fields.contains_key("ratelimit-limit"))
        });
        service
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    fn get(&self, path: &str, header: &str) -> Option<(u16, BTreeMap<String, String>)> {
        self.ask("GET", path, header)
    }

    /// Status and fields of an answer; `None` when there is none.
    fn ask(
        &self,
        method: &str,
        path: &str,
        header: &str,
    ) -> Option<(u16, BTreeMap<String, String>)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let header = if header.is_empty() { "Accept: */*" } else { header };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: demo\r\n{header}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).ok()?;
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let fields = lines
            .take_while(|line| !line.is_empty())
            .filter_map(|line| {
                let (name, value) = line.split_once(": ")?;
                Some((name.to_lowercase(), value.to_owned()))
            })
            .collect();
        Some((status, fields))
    }

    /// Stops it as an orchestrator would.
    fn stop(mut self) {
        signal(self.process.id(), "TERM");
        let mut status = None;
        eventually(PATIENCE, TICK, "the service to stop when told", || {
            status = self.process.try_wait().unwrap();
            status.is_some()
        });
        assert!(status.is_some_and(|status| status.success()), "it ended with {status:?}");
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Of one that has been stopped nothing is left to kill.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn demo(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("demo").join(file)
}

/// Installs what the services need, unless it is there; `None` when it cannot be
/// done here.
fn installed() -> Option<Vec<Kind>> {
    // Tests run at the same time, and install once.
    static INSTALLED: std::sync::OnceLock<Result<(), String>> = std::sync::OnceLock::new();
    let [python, node] = ["python", "node"]
        .map(|name| Path::new(env!("CARGO_TARGET_TMPDIR")).join("demo").join(name));
    let lock = fs::read_to_string(demo("package-lock.json")).unwrap();
    assert!(!lock.contains("://"), "package-lock.json names a registry");
    let done = INSTALLED.get_or_init(|| {
        install(&python, &["requirements.txt"], |place| {
            run(Command::new("python3").args(["-m", "venv"]).arg(place))?;
            let pip = ["install", "--quiet", "--disable-pip-version-check", "--requirement"];
            run(Command::new(place.join("bin/pip")).args(pip).arg(place.join("requirements.txt")))
        })?;
        install(&node, &["package.json", "package-lock.json"], |place| {
            run(Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(place))
        })?;
        // Beside what it imports.
        fs::copy(demo("app.mjs"), node.join("app.mjs")).map(drop).map_err(|e| e.to_string())
    });
    match done {
        Ok(()) => Some(vec![
            Kind { name: "python", program: python.join("bin/python"), script: demo("app.py") },
            Kind { name: "node", program: "node".into(), script: node.join("app.mjs") },
        ]),
        Err(why) => {
            skipped("the demo services", why);
            None
        }
    }
}

/// Installs what files of demo/ name, unless the same is in the place already.
fn install(
    place: &Path,
    pins: &[&str],
    install: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<(), String> {
    let text: String = pins.iter().map(|file| fs::read_to_string(demo(file)).unwrap()).collect();
    let stamp = place.join("installed");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == text) {
        return Ok(());
    }
    let _ = fs::remove_dir_all(place);
    fs::create_dir_all(place).unwrap();
    for file in pins {
        fs::copy(demo(file), place.join(file)).unwrap();
    }
    install(place)?;
    fs::write(stamp, text).map_err(|e| e.to_string())
}

fn run(command: &mut Command) -> Result<(), String> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("{command:?}: {e}"))?;
    let mut complaint = String::new();
    child.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
    match child.wait().unwrap() {
        status if status.success() => Ok(()),
        status => Err(format!("{command:?} ended with {status}: {complaint}")),
    }
}

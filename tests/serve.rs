//! Servers as `make run` and the image start them, by `scripts/serve.sh`: what
//! `CONFIG REWRITE` writes outlives a restart.
#![allow(clippy::arithmetic_side_effects, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::panic, clippy::unwrap_used)]

use claw_testkit::{ask, eventually, free_port, module_path, run, server_binary, spawn};
use redis::Connection;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(20);

/// Where a server has its file and its data.
struct Place {
    dir: PathBuf,
    template: PathBuf,
    module: PathBuf,
    port: u16,
}

impl Place {
    fn new() -> Place {
        let port = free_port();
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("serve-{port}"));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        let template = dir.join("template.conf");
        fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/redis.conf"), &template).unwrap();
        Place { dir, template, module: module_path(), port }
    }

    fn serve(&self) -> Child {
        let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/serve.sh"));
        command.arg(server_binary()).args([&self.template, &self.dir, &self.module]);
        // A directive, as the arguments of `docker run`.
        command.args(["--port", &self.port.to_string()]);
        let log = fs::File::options().create(true).append(true).open(self.dir.join("log"));
        let log = log.unwrap();
        spawn({
            command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
            command
        })
    }

    /// Starts the server, has something done, and stops it in good order.
    fn run<T>(&self, work: impl FnOnce(&mut Connection) -> T) -> T {
        let mut server = self.serve();
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).unwrap();
        let mut conn = None;
        eventually(PATIENCE, TICK, "the server to answer", || {
            assert!(server.try_wait().unwrap().is_none(), "{}", self.read("log"));
            conn = client.get_connection().ok();
            conn.as_mut().is_some_and(|conn| redis::cmd("PING").exec(conn).is_ok())
        });
        let conn = &mut conn.unwrap();
        let result = work(conn);
        let _ = redis::cmd("SHUTDOWN").arg("SAVE").exec(conn);
        assert!(server.wait().unwrap().success(), "{}", self.read("log"));
        result
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.dir.join(file)).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn value(conn: &mut Connection, name: &str) -> String {
    ask::<Vec<String>>(conn, &format!("CONFIG GET {name}"))[1].clone()
}

#[test]
fn what_is_rewritten_outlives_a_restart() {
    let place = Place::new();
    let template = fs::read_to_string(&place.template).unwrap();
    place.run(|conn| {
        assert_eq!(value(conn, "claw.max-tokens"), "1000", "as the template says");
        run(conn, &["CONFIG SET claw.max-tokens 77 claw.refill-rate-per-sec 0", "CL.TAKE k 7"]);
        run(conn, &["CONFIG REWRITE"]);
    });
    for round in 0..2 {
        place.run(|conn| {
            assert_eq!(value(conn, "claw.max-tokens"), "77", "{round}");
            assert_eq!(ask::<Vec<i64>>(conn, "CL.PEEK k 0")[..3], [0, 77, 70], "{round}");
            run(conn, &["CONFIG SET claw.replica-id eu", "CONFIG REWRITE"]);
        });
        let loads =
            place.read("redis.conf").lines().filter(|l| l.starts_with("loadmodule")).count();
        assert_eq!(loads, 1);
    }
    assert_eq!(place.run(|conn| value(conn, "claw.replica-id")), "eu");
    assert_eq!(fs::read_to_string(&place.template).unwrap(), template, "a template stays");
    assert!(!place.read("log").contains("has changed"));

    // A later template is for servers that begin anew.
    fs::write(&place.template, format!("{template}\nclaw.max-tokens 5\n")).unwrap();
    assert_eq!(place.run(|conn| value(conn, "claw.max-tokens")), "77");
    assert!(place.read("log").contains("has changed; "), "{}", place.read("log"));
}

#[test]
fn another_module_than_the_file_loads_is_refused() {
    let mut place = Place::new();
    place.run(|conn| run(conn, &["CONFIG REWRITE"]));
    place.module = place.dir.join("other.so");
    fs::copy(module_path(), &place.module).unwrap();
    assert!(!place.serve().wait().unwrap().success());
    let log = place.read("log");
    let line = format!("does not say 'loadmodule {}'", place.module.display());
    assert!(log.contains(&line), "{log}");
    // As it says.
    let config = place.read("redis.conf");
    let changed = config.replace(module_path().to_str().unwrap(), place.module.to_str().unwrap());
    fs::write(place.dir.join("redis.conf"), changed).unwrap();
    place.run(|conn| assert_eq!(value(conn, "claw.max-tokens"), "1000"));
}

/// `make run` and the image start their servers so; the image's own test is among those
/// that need Docker.
#[test]
fn make_run_serves_from_a_file_of_its_own() {
    let make = Command::new("make")
        .args(["--dry-run", "--no-print-directory", "run"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let steps = String::from_utf8(make.stdout).unwrap();
    let last = steps.lines().last().unwrap();
    assert!(last.starts_with("scripts/serve.sh ") && last.contains("/target/run"), "{steps}");
}

//! What is left when a test run ends without dropping anything.

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use claw_testkit::{Server, eventually};

const ROLE: &str = "CLAW_TEST_ABORT";

#[test]
fn no_server_outlives_an_aborted_process() {
    if env::var_os(ROLE).is_some() {
        // This is the process that aborts.
        let dir = tempfile::tempdir().unwrap();
        let server = Server::builder().without_module().dir(dir.path()).start();
        println!("pid={}", server.pid());
        drop(dir);
        std::process::abort();
    }
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "no_server_outlives_an_aborted_process", "--nocapture"])
        .env(ROLE, "1")
        .stderr(Stdio::null())
        .output()
        .unwrap();
    assert!(!output.status.success());
    let output = String::from_utf8(output.stdout).unwrap();
    let pid = output.split("pid=").nth(1).expect("the server was started");
    let pid = pid.lines().next().unwrap();
    let stat = format!("/proc/{pid}/stat");
    eventually(
        Duration::from_secs(10),
        Duration::from_millis(10),
        "the server to be killed",
        || {
            !Path::new(&stat).exists()
                || std::fs::read_to_string(&stat).is_ok_and(|s| s.contains(") Z "))
        },
    );
}

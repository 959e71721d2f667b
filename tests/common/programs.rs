//! Programs that tests run the way their readers run them.

use claw_testkit::skipped;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

/// Far more than an installation or a program takes.
pub const INSTALL: Duration = Duration::from_secs(600);
pub const RUN: Duration = Duration::from_secs(120);

/// Installs what `pins` names, unless the same is there already, and returns the
/// place below Cargo's target directory; `None` when it cannot be done here.
pub fn install(
    name: &str,
    pins: &str,
    install: impl FnOnce(&Path) -> Result<String, String>,
) -> Option<PathBuf> {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let stamp = place.join("installed");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == pins) {
        return Some(place);
    }
    let _ = fs::remove_dir_all(&place);
    match install(&place) {
        Ok(_) => {
            fs::write(stamp, pins).unwrap();
            Some(place)
        }
        Err(why) => {
            skipped(name, &why);
            None
        }
    }
}

/// Runs a program to its end and returns what it printed.
pub fn run(command: &mut Command, timeout: Duration) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let args: Vec<&OsStr> = command.get_args().collect();
    let shown = format!("{name} {}", args.join(OsStr::new(" ")).to_string_lossy());
    // Files rather than pipes, which would fill while we wait.
    let [out, err] = ["stdout", "stderr"].map(output_file);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(fs::File::create(&out).unwrap())
        .stderr(fs::File::create(&err).unwrap())
        .spawn()
        .map_err(|error| format!("{shown}: {error}"))?;
    let deadline = Instant::now() + timeout;
    let status = loop {
        match child.try_wait().expect("a child can be waited for") {
            Some(status) => break status,
            None if Instant::now() < deadline => thread::sleep(Duration::from_millis(10)),
            None => {
                child.kill().expect("a child can be killed");
                break child.wait().expect("a child can be waited for");
            }
        }
    };
    let printed = fs::read_to_string(out).unwrap();
    if status.success() {
        return Ok(printed);
    }
    let complaint = fs::read_to_string(err).unwrap();
    Err(format!("{shown} ended with {status}:\n{printed}{complaint}"))
}

/// A file of this test's own: the thread is named after the test.
fn output_file(stream: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("programs");
    fs::create_dir_all(&dir).unwrap();
    let thread = thread::current();
    dir.join(format!("{}.{stream}", thread.name().unwrap_or("main")))
}

//! Child processes that never outlive this one.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use crate::log;
use crate::wait::poll;

/// A running child process, its process group and its log. Dropping it kills
/// the group and reaps the child.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// Set once the child is reaped: from then on its process id may belong to
    /// somebody else and must not be signalled.
    status: Option<ExitStatus>,
    log: PathBuf,
    /// Where in the log this process begins.
    log_start: u64,
}

impl Process {
    /// Starts a command with no input, and with its output appended to a log
    /// file.
    pub fn spawn(mut command: Command, log: &Path) -> io::Result<Process> {
        let output = OpenOptions::new().create(true).append(true).open(log)?;
        let log_start = output.metadata()?.len();
        // A group of its own, so that a background save, which is a child of
        // the server, can be killed together with the server.
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).process_group(0);
        die_with_parent(&mut command);
        Ok(Process {
            child: spawner_spawn(command)?,
            status: None,
            log: log.to_path_buf(),
            log_start,
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything logged since this process was started.
    pub fn log(&self) -> String {
        log::read_from(&self.log, self.log_start)
    }

    /// Whether the process has ended. Does not reap it.
    pub fn exited(&self) -> bool {
        if self.status.is_some() {
            return true;
        }
        // SAFETY: siginfo_t is plain data, for which all zeros is valid.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        // SAFETY: the child is not reaped yet, so the id is still its own, and
        // `info` outlives the call.
        let result = unsafe { libc::waitid(libc::P_PID, self.pid(), &mut info, options) };
        assert_eq!(result, 0, "waitid: {}", io::Error::last_os_error());
        // SAFETY: waitid filled `info`, or left it zero if nothing has ended.
        unsafe { info.si_pid() != 0 }
    }

    /// Sends a signal to the process alone, not to its group.
    pub fn signal(&self, signal: libc::c_int) {
        if self.status.is_none() {
            // SAFETY: the child is not reaped yet, so the id is still its own.
            unsafe { libc::kill(self.pid() as libc::pid_t, signal) };
        }
    }

    /// Waits until the process ends by itself; `None` if it does not in time.
    pub fn wait(&mut self, timeout: Duration) -> Option<ExitStatus> {
        poll(timeout, Duration::from_millis(5), || self.exited()).then(|| self.kill())
    }

    /// Kills the group with SIGKILL and reaps the process. Of a process that
    /// has ended already, returns how it ended.
    pub fn kill(&mut self) -> ExitStatus {
        if let Some(status) = self.status {
            return status;
        }
        // The group goes first: as long as its leader is not reaped, the
        // number of the group cannot be given to another one.
        // SAFETY: the child is not reaped yet, so the group is still its own.
        unsafe { libc::kill(-(self.pid() as libc::pid_t), libc::SIGKILL) };
        let status = self.child.wait().expect("a child can be waited for");
        self.status = Some(status);
        status
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A server that crashed makes its test fail with a mere "connection
        // reset", and its log is about to be removed.
        if thread::panicking() && self.status.is_none() && self.exited() {
            eprintln!("process {} has died by itself:\n{}", self.pid(), log::tail(&self.log()));
        }
        self.kill();
    }
}

/// Starts a helper of a test, which the kernel kills when this process ends, in
/// whatever way.
///
/// # Panics
/// When it cannot be started.
pub fn spawn(mut command: Command) -> Child {
    die_with_parent(&mut command);
    let what = command.get_program().to_string_lossy().into_owned();
    spawner_spawn(command).unwrap_or_else(|e| panic!("cannot start {what}: {e}"))
}

/// Has the kernel kill the child when this process ends, in whatever way.
fn die_with_parent(command: &mut Command) {
    let parent = std::process::id();
    let prepare = move || {
        // SAFETY: both calls are safe between fork and exec, and neither takes
        // a pointer.
        let (result, current) =
            unsafe { (libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL), libc::getppid()) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        // The parent may have ended before the request, which then never fires.
        if current as u32 != parent {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(())
    };
    // SAFETY: the closure makes only async-signal-safe calls and allocates
    // nothing.
    unsafe { command.pre_exec(prepare) };
}

type Job = (Command, mpsc::Sender<io::Result<Child>>);

/// Spawns a command from a thread that lives as long as the process does. What
/// the kernel calls the death of the parent is the end of the *thread* that
/// forked: a server in a static, started by the first test that needs it,
/// would be killed when the thread of that test ends.
fn spawner_spawn(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Mutex<mpsc::Sender<Job>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        thread::Builder::new()
            .name("claw-spawner".into())
            .spawn(move || {
                for (mut command, reply) in jobs {
                    let _ = reply.send(command.spawn());
                }
            })
            .expect("a thread can be started");
        Mutex::new(sender)
    });
    let (reply, result) = mpsc::channel();
    spawner
        .lock()
        .unwrap_or_else(|e| e.into_inner())
        .send((command, reply))
        .expect("the spawner thread never ends");
    result.recv().expect("the spawner thread answers every job")
}

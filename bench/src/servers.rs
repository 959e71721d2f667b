//! The servers that are measured, and what is in them.

use crate::error::{Error, Result};
use crate::options::Options;
use crate::workload::{FUNCTION, KEYS, LUA, RULES, Workload};
use claw_testkit::{Builder, Server, server_binary};
use redis::{Cmd, Connection, Pipeline};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Commands sent at a time when keys are made or removed.
const BATCH: usize = 500;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Lines of a server's log in an error message.
const LOG_LINES: usize = 20;

/// A server with a connection for everything that is not measured.
pub struct Instance {
    server: Server,
    /// Speaks RESP2.
    pub conn: Connection,
}

/// All servers of a run.
pub struct Servers {
    /// Where everything runs but [`Servers::ours`].
    pub main: Instance,
    /// In the main server CL.THROTTLE is redis-cell's when that is loaded. This
    /// one has our module alone, for our CL.THROTTLE.
    pub ours: Option<Instance>,
    /// The SHA1 of the Lua script.
    pub script: String,
}

impl Servers {
    /// Starts what the workloads need, with a build of our module, and makes the
    /// keys that stay.
    pub fn start(options: &Options, module: &Path) -> Result<Servers> {
        let mut main = Server::builder();
        if let Some(cell) = &options.redis_cell {
            let path = cell.to_str().ok_or_else(|| Error::new("REDIS_CELL is not UTF-8"))?;
            main = main.config_args("loadmodule", [path]);
        }
        let mut main = Instance::start(main, module)?;
        let script = main.prepare(KEYS)?;
        if options.workloads.contains(&Workload::Rule) {
            main.set_rules()?;
        }
        let both = options.redis_cell.is_some() && options.workloads.contains(&Workload::Throttle);
        let ours = match both {
            false => None,
            true => {
                let mut ours = Instance::start(Server::builder(), module)?;
                ours.prepare(KEYS)?;
                Some(ours)
            }
        };
        Ok(Servers { main, ours, script })
    }

    /// The server that a workload runs in.
    pub fn of(&mut self, workload: Workload) -> &mut Instance {
        match (workload, &mut self.ours) {
            (Workload::Throttle, Some(ours)) => ours,
            _ => &mut self.main,
        }
    }
}

impl Instance {
    /// Starts a server with a build of our module.
    pub fn start(builder: Builder, module: &Path) -> Result<Instance> {
        let program = server_binary();
        let version = Command::new(&program).arg("--version").output();
        version.map_err(|e| Error::new(format!("cannot run {}: {e}", program.display())))?;
        let server = builder.module(module).try_start().map_err(|log| {
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines.split_at(lines.len().saturating_sub(LOG_LINES)).1.join("\n");
            Error::new(format!("the server did not come up:\n{tail}"))
        })?;
        let conn = connect(&server)?;
        Ok(Instance { server, conn })
    }

    /// Another connection, for another thread.
    pub fn connect(&self) -> Result<Connection> {
        connect(&self.server)
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// The socket that is measured.
    pub fn socket(&self) -> PathBuf {
        self.server.socket_path()
    }

    /// The fields of a section of INFO.
    pub fn info(&mut self, section: &str) -> Result<BTreeMap<String, String>> {
        let text: String = redis::cmd("INFO").arg(section).query(&mut self.conn)?;
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        Ok(fields.map(|(name, value)| (name.into(), value.into())).collect())
    }

    /// Ends it, when it has written what it has to write.
    pub fn stop(self) {
        self.server.stop();
    }

    /// Sets the [rules](RULES), whose look-up other keys pay for, too.
    pub fn set_rules(&mut self) -> Result<()> {
        redis::cmd("CONFIG")
            .arg("SET")
            .arg("claw.policies")
            .arg(RULES)
            .query::<()>(&mut self.conn)?;
        Ok(())
    }

    /// Loads script and function, whose SHA1 is handed back, and makes the keys that stay for
    /// the whole run, so many of each kind. All servers get all of them,
    /// so that their key spaces are alike: thanks to these keys neither the
    /// table of keys nor that of expiries shrinks to nothing and grows again
    /// from one measurement to the next.
    pub fn prepare(&mut self, keys: u64) -> Result<String> {
        let script = redis::cmd("SCRIPT").arg("LOAD").arg(LUA).query(&mut self.conn)?;
        redis::cmd("FUNCTION").arg("LOAD").arg(FUNCTION).query::<()>(&mut self.conn)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_err(|_| Error::new("the clock is before 1970"))?;
        let later = now.saturating_add(Duration::from_secs(3_600));
        // Ahead of the clock: nothing is credited until then.
        self.fill(Workload::Refused, keys, |key| {
            let mut cmd = redis::cmd("HSET");
            let timestamp = u64::try_from(later.as_micros()).unwrap_or(u64::MAX);
            cmd.arg(key).arg("tokens").arg(0).arg("timestamp").arg(timestamp);
            cmd
        })?;
        // As buckets have it that were not made by hand.
        self.fill(Workload::Refused, keys, |key| {
            let mut cmd = redis::cmd("PEXPIREAT");
            cmd.arg(key).arg(u64::try_from(later.as_millis()).unwrap_or(u64::MAX));
            cmd
        })?;
        self.fill(Workload::MergeFunction, keys, |key| {
            let mut cmd = redis::cmd("HSET");
            let timestamp = u64::try_from(later.as_micros()).unwrap_or(u64::MAX);
            cmd.arg(key).arg("tokens").arg(500).arg("timestamp").arg(timestamp);
            cmd
        })?;
        self.fill(Workload::Pinned, keys, |key| {
            let mut cmd = redis::cmd("CL.POLICY");
            cmd.arg(key).arg("CAPACITY").arg(1_000_000).arg("REFILL").arg(100_000);
            cmd.arg("INTERVAL").arg(60_000);
            cmd
        })?;
        Ok(script)
    }

    /// Sends a command for each of the first `keys` keys of a workload.
    fn fill(&mut self, workload: Workload, keys: u64, command: impl Fn(&str) -> Cmd) -> Result<()> {
        self.send((0..keys).map(|number| command(&workload.key(number))))
    }

    /// Sends commands, many at a time, and forgets their answers unless they
    /// are errors.
    pub fn send(&mut self, commands: impl Iterator<Item = Cmd>) -> Result<()> {
        let mut commands = commands.peekable();
        while commands.peek().is_some() {
            let mut pipe = Pipeline::with_capacity(BATCH);
            for cmd in commands.by_ref().take(BATCH) {
                pipe.add_command(cmd).ignore();
            }
            pipe.query::<()>(&mut self.conn)?;
        }
        Ok(())
    }

    /// Removes all keys of a workload.
    pub fn clear(&mut self, workload: Workload) -> Result<()> {
        let mut keys = (0..KEYS).map(|number| workload.key(number)).peekable();
        while keys.peek().is_some() {
            let mut cmd = redis::cmd("DEL");
            for key in keys.by_ref().take(BATCH) {
                cmd.arg(key);
            }
            cmd.query::<u64>(&mut self.conn)?;
        }
        Ok(())
    }
}

fn connect(server: &Server) -> Result<Connection> {
    let conn = server.client().get_connection_with_timeout(PATIENCE)?;
    conn.set_read_timeout(Some(PATIENCE))?;
    conn.set_write_timeout(Some(PATIENCE))?;
    Ok(conn)
}

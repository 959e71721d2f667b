//! Single servers.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use redis::io::tcp::TcpSettings;
use redis::{Client, Connection, IntoConnectionInfo, ProtocolVersion};

use crate::binaries::server_binary;
use crate::config::{Module, Settings, split};
use crate::data::{DataDir, NO_SETTINGS};
use crate::log;
use crate::ports::free_port;
use crate::process::Process;
use crate::wait::link_is_up;

/// How long a server may take to answer PING, and, if it has data to load, to
/// load it.
const START: Duration = Duration::from_secs(10);
const LOAD: Duration = Duration::from_secs(60);
/// How long a replica may take to get the data of its master.
const SYNC: Duration = Duration::from_secs(30);
/// How long a server may take to end. More than the 10 s it waits for replicas
/// that lag behind.
const STOP: Duration = Duration::from_secs(30);
const TICK: Duration = Duration::from_millis(5);
/// How long a connection waits for an answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How many ports to try if somebody takes them first.
const PORT_ATTEMPTS: usize = 5;

const CONFIG: &str = "redis.conf";
const LOG: &str = "server.log";
const SOCKET: &str = "redis.sock";
/// The longest path of a Unix socket on Linux, without the final zero.
const SOCKET_LIMIT: usize = 107;

/// How to start a server. Made by [`Server::builder`] and
/// [`Server::replica_of`].
///
/// Unless told otherwise, the server loads the module [`module_path()`], listens
/// on a free port of 127.0.0.1 and on a Unix socket, saves nothing to disk, and
/// allows `DEBUG` and `MODULE`.
///
/// [`module_path()`]: crate::module_path()
#[derive(Debug)]
pub struct Builder {
    settings: Settings,
    dir: Option<DataDir>,
}

impl Builder {
    pub(crate) fn from_parts(settings: Settings, dir: Option<DataDir>) -> Builder {
        Builder { settings, dir }
    }

    /// Runs this program instead of [`server_binary()`](crate::server_binary): for tests that
    /// need several servers at once.
    pub fn program(mut self, path: impl Into<PathBuf>) -> Builder {
        self.settings.program = Some(path.into());
        self
    }

    /// Loads another module instead. More than one can be loaded with
    /// `config("loadmodule", "/absolute/path.so arguments")`.
    pub fn module(mut self, path: impl Into<PathBuf>) -> Builder {
        self.settings.module = Module::Path(path.into());
        self
    }

    /// Loads no module.
    pub fn without_module(mut self) -> Builder {
        self.settings.module = Module::None;
        self
    }

    /// The arguments of the module, in place of any set before.
    pub fn module_args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Builder {
        self.settings.module_args = args.into_iter().map(Into::into).collect();
        self
    }

    /// Adds a directive of `redis.conf`. The value is split at white space into
    /// arguments, as in `config("save", "900 1")`, and there is no quoting: see
    /// [`config_args`](Builder::config_args). An empty value is one empty
    /// argument.
    ///
    /// Setting a directive drops the test kit's default for it; setting it
    /// twice writes two lines.
    ///
    /// # Panics
    ///
    /// If the directive is one that the builder itself has to know: `port`,
    /// `dir`, `unixsocket` or `logfile`.
    pub fn config(mut self, name: impl Into<String>, value: impl AsRef<str>) -> Builder {
        self.settings.add(name.into(), split(value.as_ref()));
        self
    }

    /// Like [`config`](Builder::config) with the arguments given one by one.
    /// Each arrives as it is, whatever bytes it has.
    ///
    /// # Panics
    ///
    /// As [`config`](Builder::config).
    pub fn config_args<S: Into<String>>(
        mut self,
        name: impl Into<String>,
        args: impl IntoIterator<Item = S>,
    ) -> Builder {
        let args = args.into_iter().map(Into::into).collect();
        self.settings.add(name.into(), args);
        self
    }

    /// Runs the server in an existing directory: that of a stopped server, or a
    /// path. A path is not removed in the end; of a [`DataDir`] the server
    /// becomes the owner. Only the data is reused: the configuration file is
    /// overwritten. See [`DataDir::start`] to reuse that too.
    pub fn dir(mut self, dir: impl Into<DataDir>) -> Builder {
        self.dir = Some(dir.into());
        self
    }

    /// Listens on this port instead of a free one.
    pub fn port(mut self, port: u16) -> Builder {
        self.settings.port = Some(port);
        self
    }

    /// Adds a variable to the environment of the server.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Builder {
        self.settings.env.push((name.into(), value.into()));
        self
    }

    /// Has another program run the server, whose command line is added to `command`: a
    /// profiler, which makes the server slow, so that it may take as long to come up as
    /// one that loads data.
    pub fn under(mut self, command: impl IntoIterator<Item = impl Into<OsString>>) -> Builder {
        self.settings.under = command.into_iter().map(Into::into).collect();
        self
    }

    /// Starts the server and waits until it answers PING, at most 10 seconds,
    /// or 60 seconds if it says that it is loading data. A replica made by
    /// [`Server::replica_of`] has also got the data of its master, for which it
    /// has another 30 seconds.
    ///
    /// A port that somebody else takes at the last moment is replaced by
    /// another one, unless it was chosen with [`port`](Builder::port).
    ///
    /// # Panics
    ///
    /// If the server does not come up, with the end of its log, or if there is
    /// no module to load, see [`module_path`](crate::module_path()).
    pub fn start(self) -> Server {
        self.try_start().unwrap_or_else(|log| panic!("{}", failure(&log)))
    }

    /// Like [`start`](Builder::start), but hands back the log: for servers that
    /// are meant to refuse to start. A temporary directory is then removed.
    ///
    /// # Errors
    ///
    /// Everything the server printed or logged, if it does not come up.
    ///
    /// # Panics
    ///
    /// If there is no module to load, no server program, or no directory.
    pub fn try_start(self) -> Result<Server, String> {
        let Builder { mut settings, dir } = self;
        let mut data = dir.unwrap_or_else(DataDir::new);
        let attempts = match settings.port {
            Some(_) => 1,
            None => PORT_ATTEMPTS,
        };
        let mut attempt = 1;
        loop {
            let port = *settings.port.get_or_insert_with(free_port);
            let file = settings.render(data.path(), &socket(&data), port);
            let path = data.path().join(CONFIG);
            fs::write(&path, file)
                .unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
            match launch(&data, &settings) {
                Ok(process) => {
                    data.settings = Some(settings);
                    let server = Server { process, port, data };
                    return server.with_data_of_master();
                }
                Err(log) if attempt < attempts && lost_port(&log) => {
                    settings.port = None;
                    attempt += 1;
                }
                Err(log) => return Err(log),
            }
        }
    }
}

/// A running server. Dropping it kills the process and removes its directory,
/// see [`DataDir`].
///
/// The process never outlives the test process. A server in a static is
/// killed at the end, but its directory stays.
#[derive(Debug)]
pub struct Server {
    // Fields are dropped in this order: the process must end before its
    // directory is removed, or it could go on writing to it.
    process: Process,
    port: u16,
    data: DataDir,
}

impl Server {
    /// A server that is still to be set up and started.
    pub fn builder() -> Builder {
        Builder::from_parts(Settings::default(), None)
    }

    /// A server with all defaults, see [`Builder`].
    ///
    /// # Panics
    ///
    /// As [`Builder::start`].
    pub fn start() -> Server {
        Server::builder().start()
    }

    /// A replica of a running server, with the same module and module
    /// arguments but no other setting. It panics if it cannot apply a command
    /// of its master, rather than drifting apart in silence.
    ///
    /// [`Builder::start`] waits for the data of the master; a later
    /// [`restart`](Server::restart) does not, so that it works without a master
    /// too: see [`wait_for_offset`](crate::wait_for_offset).
    pub fn replica_of(master: &Server) -> Builder {
        let theirs = master.settings();
        let settings = Settings {
            module: theirs.module.clone(),
            module_args: theirs.module_args.clone(),
            await_master: true,
            ..Settings::default()
        };
        Builder::from_parts(settings, None)
            .config("replicaof", format!("127.0.0.1 {}", master.port))
            .config("propagation-error-behavior", "panic")
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The Unix socket.
    pub fn socket_path(&self) -> PathBuf {
        socket(&self.data)
    }

    /// The address as `redis://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The directory: `redis.conf`, `server.log`, and whatever is saved.
    pub fn dir(&self) -> &Path {
        self.data.path()
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// A client for the TCP port that speaks RESP2.
    ///
    /// It sends nothing of its own: the library would otherwise announce itself
    /// with `CLIENT SETINFO`, which Redis 7.0 refuses and counts as an error.
    pub fn client(&self) -> Client {
        self.client_with(ProtocolVersion::RESP2)
    }

    /// A new connection that speaks RESP2 and waits 10 seconds for an answer.
    ///
    /// # Panics
    ///
    /// If the server cannot be reached.
    pub fn connection(&self) -> Connection {
        self.connect(self.client())
    }

    /// Like [`connection`](Server::connection), with RESP3.
    ///
    /// # Panics
    ///
    /// If the server cannot be reached.
    pub fn connection_resp3(&self) -> Connection {
        self.connect(self.client_with(ProtocolVersion::RESP3))
    }

    /// All that the process has logged or printed. What earlier servers logged
    /// in the same directory is in the file `server.log`, but not here.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The lines of the [`log`](Server::log) at the level of warnings (`#`),
    /// without those known to be harmless: the steps of starting and stopping,
    /// complaints about the machine, and the making of clusters.
    ///
    /// Failovers and broken replication links are reported, since a test that
    /// causes none should see none.
    pub fn warnings(&self) -> Vec<String> {
        log::warnings(&self.log())
    }

    /// Whether the process is still running.
    pub fn is_alive(&self) -> bool {
        !self.process.exited()
    }

    /// Kills the process with SIGKILL, as a crash would, together with a save
    /// it does in the background, and leaves the data.
    pub fn kill_9(mut self) -> DataDir {
        self.crash();
        self.data
    }

    /// Like [`kill_9`](Server::kill_9), but keeps the dead server, to read its
    /// log or to [`restart`](Server::restart) it.
    pub fn crash(&mut self) {
        self.process.kill();
    }

    /// Sends SIGTERM and does not wait: see [`wait_exit`](Server::wait_exit).
    pub fn sigterm(&self) {
        self.process.signal(libc::SIGTERM);
    }

    /// Waits until the process ends by itself, and says whether it did. Does
    /// not end it.
    pub fn wait_exit(&mut self, timeout: Duration) -> bool {
        self.process.wait(timeout).is_some()
    }

    /// Stops the server with `SHUTDOWN NOSAVE`. Data in an append only file
    /// stays.
    ///
    /// # Panics
    ///
    /// If the server refuses, does not end within 30 seconds, or does not end
    /// in good order.
    pub fn stop(self) -> DataDir {
        self.shutdown("NOSAVE")
    }

    /// Stops the server with `SHUTDOWN SAVE`, which writes an RDB file.
    ///
    /// # Panics
    ///
    /// As [`stop`](Server::stop).
    pub fn stop_saving(self) -> DataDir {
        self.shutdown("SAVE")
    }

    /// Stops the server as an operator would, with SIGTERM, unless it is dead
    /// already, and starts it again as [`DataDir::start`] does.
    ///
    /// Unless a test has configured otherwise nothing is saved, and the server
    /// comes back empty: for an RDB file use `stop_saving().start()`.
    ///
    /// # Panics
    ///
    /// If the server does not stop in good order or does not come up again.
    pub fn restart(mut self) -> Server {
        if self.is_alive() {
            self.sigterm();
            self.await_end();
        }
        // Reaps it, if it was dead.
        self.process.kill();
        self.data.start()
    }

    /// Starts a server with the configuration file that is there.
    pub(crate) fn resume(data: DataDir) -> Result<Server, String> {
        let settings = data.settings.as_ref().expect(NO_SETTINGS);
        let port = settings.port.expect("a started server has a port");
        let process = launch(&data, settings)?;
        Ok(Server { process, port, data })
    }

    /// Waits for the data of the master, if that was asked for.
    fn with_data_of_master(self) -> Result<Server, String> {
        let deadline = Instant::now() + SYNC;
        while self.settings().await_master && !link_is_up(&self) {
            if !self.is_alive() {
                return Err(self.log());
            }
            if Instant::now() > deadline {
                let log = self.log();
                return Err(format!("{log}\nno data from the master within {SYNC:?}"));
            }
            thread::sleep(TICK);
        }
        Ok(self)
    }

    fn settings(&self) -> &Settings {
        let settings = self.data.settings.as_ref();
        settings.expect("a server keeps its settings")
    }

    fn client_with(&self, protocol: ProtocolVersion) -> Client {
        let info = self.url().into_connection_info();
        let info = info.expect("the address is valid");
        let redis = info.redis_settings().clone().set_protocol(protocol).set_skip_set_lib_name();
        let info = info
            .set_redis_settings(redis)
            .set_tcp_settings(TcpSettings::default().set_nodelay(true));
        Client::open(info).expect("the address is valid")
    }

    fn connect(&self, client: Client) -> Connection {
        let connect = || {
            let conn = client.get_connection_with_timeout(ANSWER)?;
            conn.set_read_timeout(Some(ANSWER))?;
            conn.set_write_timeout(Some(ANSWER))?;
            Ok(conn)
        };
        connect().unwrap_or_else(|e: redis::RedisError| {
            let log = self.log();
            panic!("cannot connect to {}: {e}\n{}", self.url(), log::tail(&log))
        })
    }

    fn shutdown(mut self, how: &str) -> DataDir {
        let mut conn = self.connection();
        let answer = redis::cmd("SHUTDOWN").arg(how).query::<()>(&mut conn);
        // It does not answer when it obeys.
        if let Err(e) = answer
            && let Some(text) = crate::wire_error(&e)
        {
            panic!("SHUTDOWN {how}: {text}\n{}", log::tail(&self.log()));
        }
        self.await_end();
        self.data
    }

    fn await_end(&mut self) {
        match self.process.wait(STOP) {
            Some(status) if status.success() => {}
            Some(status) => panic!("the server ended with {status}:\n{}", log::tail(&self.log())),
            None => panic!("the server did not end within {STOP:?}:\n{}", log::tail(&self.log())),
        }
    }
}

/// The message of a panic about a server that did not come up.
pub(crate) fn failure(log: &str) -> String {
    format!("the server did not come up:\n{}", log::tail(log))
}

/// Starts the process and waits until it answers; hands back the log if it
/// does not.
fn launch(data: &DataDir, settings: &Settings) -> Result<Process, String> {
    let program = settings.program.clone().unwrap_or_else(server_binary);
    let mut words = settings.under.iter().map(OsString::as_os_str).chain([program.as_os_str()]);
    let mut command = Command::new(words.next().expect("the server is one of them"));
    command
        .args(words)
        .arg(data.path().join(CONFIG))
        .envs(settings.env.iter().map(|(name, value)| (name, value)));
    let process = Process::spawn(command, &data.path().join(LOG)).unwrap_or_else(|e| {
        panic!("cannot start {} in {}: {e}", program.display(), data.path().display())
    });
    let socket = socket(data);
    let started = Instant::now();
    let mut patience = if settings.under.is_empty() { START } else { LOAD };
    loop {
        if process.exited() {
            return Err(process.log());
        }
        match ping(&socket) {
            Answer::Up => return Ok(process),
            Answer::Loading => patience = LOAD,
            Answer::None => {}
        }
        if started.elapsed() > patience {
            return Err(format!("{}\nno answer within {patience:?}", process.log()));
        }
        thread::sleep(TICK);
    }
}

enum Answer {
    Up,
    Loading,
    None,
}

/// Asks through the Unix socket, which is in the server's own directory: on the
/// TCP port somebody else might answer.
fn ping(socket: &Path) -> Answer {
    let ask = || {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"PING\r\n")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        std::io::Result::Ok(line)
    };
    match ask() {
        Ok(line) if line.starts_with("-LOADING") => Answer::Loading,
        // Also an error: a server that wants a password is up.
        Ok(line) if line.ends_with('\n') => Answer::Up,
        _ => Answer::None,
    }
}

/// Whether a server did not start because its port was taken.
fn lost_port(log: &str) -> bool {
    log.contains("Address already in use")
}

fn socket(data: &DataDir) -> PathBuf {
    let path = data.path().join(SOCKET);
    assert!(
        path.as_os_str().len() <= SOCKET_LIMIT,
        "{} is too long for a Unix socket: set TMPDIR to a shorter directory",
        path.display()
    );
    path
}

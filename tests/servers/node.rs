//! Servers in containers.

use crate::engine;
use claw_testkit::{eventually, info_field};
use redis::io::tcp::TcpSettings;
use redis::{Client, Connection, IntoConnectionInfo, ProtocolVersion};
use std::env;
use std::io::Read;
use std::process;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use testcontainers::core::{ExecCommand, IntoContainerPort, WaitFor};
use testcontainers::runners::SyncRunner;
use testcontainers::{Container, ContainerRequest, GenericImage, ImageExt};

/// For what takes a second on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(120);
pub const TICK: Duration = Duration::from_millis(50);
const ANSWER: Duration = Duration::from_secs(30);
const PORT: u16 = 6379;

/// A server in a container, which is removed when this is dropped.
pub struct Node {
    container: Container<GenericImage>,
}

impl Node {
    /// Starts the image of a server with more directives, such as
    /// `["--io-threads", "4"]`.
    pub fn start(server: &str, directives: &[&str]) -> Node {
        Node::run(image(server), directives, |request| request)
    }

    /// Starts any image, whose output says when it is ready.
    pub fn run(
        image: GenericImage,
        command: &[&str],
        setup: impl FnOnce(ContainerRequest<GenericImage>) -> ContainerRequest<GenericImage>,
    ) -> Node {
        engine::prepare();
        let request = image
            .with_exposed_port(PORT.tcp())
            .with_wait_for(WaitFor::message_on_stdout("Ready to accept connections"))
            .with_startup_timeout(PATIENCE)
            .with_cmd(command.iter().copied());
        let container = setup(request).start().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        Node { container }
    }

    pub fn container(&self) -> &Container<GenericImage> {
        &self.container
    }

    /// Kills the server as a crash would, and starts it again with its data.
    pub fn crash_and_restart(&self) {
        self.container.stop_with_timeout(Some(0)).unwrap();
        self.container.start().unwrap();
        eventually(PATIENCE, TICK, "the server to be back", || {
            self.try_connect(ProtocolVersion::RESP2).is_some_and(|mut conn| {
                redis::cmd("PING").query::<String>(&mut conn).is_ok_and(|pong| pong == "PONG")
            })
        });
    }

    pub fn connection(&self) -> Connection {
        self.try_connect(ProtocolVersion::RESP2).unwrap_or_else(|| panic!("{}", self.log()))
    }

    pub fn connection_resp3(&self) -> Connection {
        self.try_connect(ProtocolVersion::RESP3).unwrap_or_else(|| panic!("{}", self.log()))
    }

    fn try_connect(&self, protocol: ProtocolVersion) -> Option<Connection> {
        // Asked each time: the engine chooses another port when a container is
        // started again.
        let host = self.container.get_host().unwrap().to_string();
        // By IPv6 the same port may lead to another container.
        let host = if host == "localhost" { "127.0.0.1" } else { &host };
        let port = self.container.get_host_port_ipv4(PORT).unwrap();
        let info = format!("redis://{host}:{port}").into_connection_info().unwrap();
        // Redis 7.0 does not know what the library says of itself.
        let redis = info.redis_settings().clone().set_protocol(protocol).set_skip_set_lib_name();
        let info = info
            .set_redis_settings(redis)
            .set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let conn = Client::open(info).unwrap().get_connection_with_timeout(ANSWER).ok()?;
        conn.set_read_timeout(Some(ANSWER)).unwrap();
        conn.set_write_timeout(Some(ANSWER)).unwrap();
        Some(conn)
    }

    /// Runs a program in the container and returns what it printed.
    pub fn exec(&self, command: &[&str]) -> String {
        let mut run = self.container.exec(ExecCommand::new(command.iter().copied())).unwrap();
        String::from_utf8(run.stdout_to_vec().unwrap()).unwrap().trim().to_owned()
    }

    pub fn log(&self) -> String {
        let mut log = String::new();
        self.container.stdout(false).read_to_string(&mut log).unwrap();
        log
    }
}

/// The image of a server: `redis-claw:redis-7`, or what `CLAW_IMAGE_REDIS_7` says.
pub fn image(server: &str) -> GenericImage {
    named("CLAW_IMAGE", server, &format!("redis-claw:{server}"))
}

/// What the image of a server is built on: `redis:7`, or what `BASE_REDIS_7` says.
pub fn base(server: &str) -> GenericImage {
    let (name, version) = server.split_once('-').expect("name and version");
    let default = if name == "valkey" { "valkey/valkey" } else { name };
    named("BASE", server, &format!("{default}:{version}"))
}

fn named(prefix: &str, server: &str, default: &str) -> GenericImage {
    let variable = format!("{prefix}_{}", server.replace('-', "_").to_uppercase());
    let image = env::var(variable).unwrap_or_else(|_| default.to_owned());
    let (name, tag) = image.rsplit_once(':').unwrap_or((&image, "latest"));
    GenericImage::new(name, tag)
}

/// A name that no other test uses, for a network or a container.
pub fn unique(name: &str) -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    format!("claw-{name}-{}-{}", process::id(), COUNT.fetch_add(1, Relaxed))
}

/// What a server is.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub enum Version {
    Redis([u32; 3]),
    Valkey([u32; 3]),
}

impl Version {
    pub fn of(conn: &mut Connection) -> Version {
        let parse = |text: String| {
            let mut parts = text.split('.').map(|part| part.parse().unwrap());
            [(); 3].map(|()| parts.next().unwrap())
        };
        match info_field(conn, "server", "valkey_version").map(parse) {
            Some(version) => Version::Valkey(version),
            None => Version::Redis(parse(info_field(conn, "server", "redis_version").unwrap())),
        }
    }
}

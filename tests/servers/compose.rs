//! compose.yaml: two regions under load, with the link between them cut and healed.

use crate::engine;
use crate::node::{PATIENCE, TICK, unique};
use claw_testkit::eventually;
use std::path::Path;
use std::process::{Command, Output};

const REGIONS: [&str; 2] = ["eu", "us"];
/// The limit in compose.yaml, which is that of both regions together.
const CAPACITY: f64 = 20.0;
const REFILL: f64 = 50.0;
/// Seconds until a take in one region is known in the other: far less, unless the
/// machine is busy.
const LAG: f64 = 3.0;
const SECONDS: &str = "10";

pub fn regions_share_a_limit_also_when_they_are_cut_apart() {
    let compose = Compose::new("compose.yaml", "compose");
    // The servers are the images that the other tests are of.
    compose.run(&["build", "app-eu", "app-us", "load"]);
    compose.run(&["up", "--detach", "--no-build"]);
    let load = compose.container("load");
    assert_eq!(docker(&["wait", &load]).trim(), "0", "{}", compose.run(&["logs"]));
    within_the_bound(&Load::read(&docker(&["logs", &load])));

    // Of a bucket that gains nothing, to see what each region knows.
    compose.take("eu", 20);
    compose
        .eventually_everywhere("the first take to be known", |region| compose.left(region) == 80);

    compose.cut();
    compose.eventually_everywhere("silence", |region| compose.field(region, "peers_silent") == 1);
    let shares = REGIONS.map(|region| compose.field(region, "share_permille"));
    // Each goes by what it had last heard of the other.
    assert!(shares.iter().sum::<i64>() <= 1100, "{shares:?}");
    let load = compose.load();
    for (n, region) in REGIONS.into_iter().enumerate() {
        // Its bucket may have been full; a second more, for the measuring.
        let most = CAPACITY + shares[n] as f64 / 1000.0 * REFILL * (load.seconds + 1.0);
        let granted = load.granted[n];
        assert!(granted > 0.0 && granted <= most, "{region}: {most} {shares:?} {load:?}");
        compose.take(region, 5);
        assert_eq!(compose.left(region), 75, "{region} knows only of its own");
    }

    compose.heal();
    compose.eventually_everywhere("both to know all takes", |region| {
        compose.left(region) == 70
            && compose.field(region, "peers_silent") == 0
            && compose.field(region, "share_permille") == 1000
    });
    within_the_bound(&compose.load());
}

/// The bound of docs/regions.md, for two regions; and that they do not grant much
/// less than the limit allows.
fn within_the_bound(load: &Load) {
    let one = CAPACITY + REFILL * load.seconds;
    let most = one + CAPACITY + 2.0 * REFILL * LAG;
    let together: f64 = load.granted.iter().sum();
    assert!((one * 0.7..=most).contains(&together), "{one} {most} {load:?}");
    assert!(load.granted.iter().all(|granted| *granted > 0.0), "{load:?}");
}

/// What demo/load.py has seen.
#[derive(Debug)]
struct Load {
    seconds: f64,
    granted: [f64; 2],
}

impl Load {
    /// Its last line of this kind:
    /// `10.0 s: app-eu 300 granted, 9 refused; app-us 219 granted, 8 refused; together ..`
    fn read(output: &str) -> Load {
        let line = output.lines().rfind(|line| line.contains("; together "));
        let line = line.unwrap_or_else(|| panic!("no sum in {output:?}"));
        let words: Vec<&str> = line.split_whitespace().collect();
        let after = |name: &str| {
            let at = words.iter().position(|word| *word == name).expect(line);
            words[at + 1].parse().expect(line)
        };
        Load {
            seconds: words[0].parse().expect(line),
            granted: REGIONS.map(|region| after(&format!("app-{region}"))),
        }
    }
}

/// What a file of Compose brings up, which is taken down when this is dropped. Its servers are
/// `redis-eu` and `redis-us`, and they alone are on its network `link`.
pub struct Compose {
    file: &'static str,
    project: String,
}

impl Compose {
    /// `file` below the root of the repository, under a name of its own.
    pub fn new(file: &'static str, name: &str) -> Compose {
        Compose { file, project: unique(name) }
    }

    pub fn run(&self, arguments: &[&str]) -> String {
        succeed(&mut self.command(arguments))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = plain_docker();
        command
            .args(["compose", "--project-name", &self.project, "--file"])
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(self.file))
            .args(arguments)
            .env("SECONDS_OF_LOAD", SECONDS);
        for port in ["EDGE_PORT", "NGINX_PORT", "ENVOY_PORT", "PROMETHEUS_PORT"] {
            // Any that is free.
            command.env(port, "0");
        }
        // With the builder that has made the other images, and has them cached.
        if !output(plain_docker().args(["buildx", "version"])).status.success() {
            command.env("DOCKER_BUILDKIT", "0");
        }
        command
    }

    fn container(&self, service: &str) -> String {
        format!("{}-{service}-1", self.project)
    }

    /// Takes the servers out of the network between the regions.
    pub fn cut(&self) {
        for region in REGIONS {
            let server = self.container(&format!("redis-{region}"));
            docker(&["network", "disconnect", &self.link(), &server]);
        }
    }

    /// Puts them back.
    pub fn heal(&self) {
        for region in REGIONS {
            // By the name that compose gave it; the address may be another one.
            let service = format!("redis-{region}");
            let server = self.container(&service);
            docker(&["network", "connect", "--alias", &service, &self.link(), &server]);
        }
    }

    fn link(&self) -> String {
        format!("{}_link", self.project)
    }

    fn load(&self) -> Load {
        Load::read(&self.run(&["run", "--rm", "--no-deps", "-T", "load", "--seconds", SECONDS]))
    }

    /// A command to a server.
    pub fn cli(&self, service: &str, line: &str) -> String {
        let script = "exec \"$(command -v valkey-cli || command -v redis-cli)\" \"$@\"";
        let server = self.container(service);
        let mut command = vec!["exec", &server, "sh", "-c", script, "cli"];
        command.extend(line.split(' '));
        docker(&command)
    }

    fn take(&self, region: &str, tokens: i64) {
        let answer = self.cli(
            &format!("redis-{region}"),
            &format!("CL.TAKE steady {tokens} CAPACITY 100 REFILL 0"),
        );
        assert_eq!(answer.lines().next(), Some(tokens.to_string().as_str()), "{answer}");
    }

    fn left(&self, region: &str) -> i64 {
        let tokens = self.cli(&format!("redis-{region}"), "HGET steady tokens");
        tokens.trim().parse().unwrap_or(-1)
    }

    /// A field `claw_sync_..` of `INFO claw`.
    fn field(&self, region: &str, name: &str) -> i64 {
        let info = self.cli(&format!("redis-{region}"), "INFO claw");
        let start = format!("claw_sync_{name}:");
        let value = info.lines().find_map(|line| line.strip_prefix(&start)).expect("the field");
        value.trim().parse().unwrap()
    }

    fn eventually_everywhere(&self, what: &str, condition: impl Fn(&str) -> bool) {
        eventually(PATIENCE, TICK, what, || REGIONS.into_iter().all(&condition));
    }
}

impl Drop for Compose {
    fn drop(&mut self) {
        let down = ["down", "--volumes", "--remove-orphans", "--timeout", "5"];
        let _ = self.command(&down).output();
    }
}

pub fn docker(arguments: &[&str]) -> String {
    succeed(plain_docker().args(arguments))
}

/// The engine itself, not by way of the library's socket.
fn plain_docker() -> Command {
    let mut command = Command::new("docker");
    match engine::prepare() {
        Some(host) => command.env("DOCKER_HOST", host),
        None => command.env_remove("DOCKER_HOST"),
    };
    command
}

fn output(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"))
}

fn succeed(command: &mut Command) -> String {
    let output = output(command);
    let [out, err] = [output.stdout, output.stderr].map(|b| String::from_utf8(b).unwrap());
    assert!(output.status.success(), "{command:?}: {out}{err}");
    out
}

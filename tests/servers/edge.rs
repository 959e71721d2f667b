//! claw-edge in containers: its image, and the two regions of deploy/compose.

use crate::compose::{Compose, docker};
use crate::node::{PATIENCE, TICK, unique};
use claw_testkit::eventually;
use std::io::{Read, Write};
use std::net::TcpStream;

const REGIONS: [&str; 2] = ["eu", "us"];
/// What a user may take in deploy/compose, of both regions together: nothing comes back.
const CAPACITY: i64 = 100;
/// What Envoy lets a user send.
const BY_ENVOY: usize = 5;
/// How much larger the image may be than its base, in bytes.
const LARGEST: u64 = 30_000_000;

/// Small, and with as few rights as a container can have.
pub fn image_is_small_and_runs_with_few_rights() {
    let image = "redis-claw:edge";
    let size = |image: &str| -> u64 {
        docker(&["image", "inspect", "--format", "{{.Size}}", image]).trim().parse().unwrap()
    };
    let base = std::env::var("BASE_EDGE").unwrap_or_else(|_| "debian:bookworm-slim".to_owned());
    let more = size(image) - size(&base);
    assert!(more <= LARGEST, "{more} bytes more than {base}");

    let name = unique("edge");
    let _removed = Removed(&name);
    let few = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"];
    let run = [&["run", "--detach", "--name", &name][..], &few, &[image]].concat();
    docker(&run);
    eventually(PATIENCE, TICK, "it is healthy", || {
        let format = "{{.State.Health.Status}}";
        docker(&["inspect", "--format", format, &name]).trim() == "healthy"
    });
    assert_eq!(docker(&["exec", &name, "id", "-u"]).trim(), "65532");
    assert_eq!(docker(&["exec", &name, "cat", "/proc/1/comm"]).trim(), "claw-edge");
    docker(&["stop", &name]);
    let code = docker(&["inspect", "--format", "{{.State.ExitCode}}", &name]);
    assert_eq!(code.trim(), "0", "{}", docker(&["logs", &name]));
}

struct Removed<'a>(&'a str);

impl Drop for Removed<'_> {
    fn drop(&mut self) {
        docker(&["rm", "--force", "--volumes", self.0]);
    }
}

pub fn regions_are_cut_apart_and_the_books_balance() {
    let compose = Compose::new("deploy/compose/compose.yaml", "edge");
    compose.run(&["up", "--detach", "--no-build"]);
    let ports = ["nginx:8000", "edge-us:8080", "envoy:10000", "prometheus:9090"].map(|service| {
        let (service, port) = service.split_once(':').unwrap();
        let address = compose.run(&["port", service, port]);
        address.trim().rsplit_once(':').unwrap().1.parse().unwrap()
    });
    let [nginx, edge, envoy, prometheus] = ports;
    // Of each region: nginx in eu, the service itself in us.
    let doors = [(nginx, "/"), (edge, "/auth")];
    // How many of `count` takes a region grants. No other answer is one of a limit.
    let take = |region: usize, count: i64| -> i64 {
        let (port, path) = doors[region];
        let granted = |n: i64| {
            let response = get(port, path, "ann");
            let status = status(&response);
            let is_decided = matches!(status, Some(200 | 429));
            assert!(is_decided, "{n} of {count} in {region}: {response}");
            i64::from(status == Some(200))
        };
        (0..count).map(granted).sum()
    };
    for (port, path) in doors {
        eventually(PATIENCE, TICK, "it lets somebody pass", || {
            status(&get(port, path, "first")) == Some(200)
        });
    }

    // A rating that is given in a region, and whether one region has it, by user.
    let rate = |region: usize, user: &str| {
        let body = format!(r#"{{"user_id":"{user}","item_id":"tea","rating":4}}"#);
        let response = send(doors[region].0, "POST", "/rating", user, &body);
        assert_eq!(status(&response), Some(200), "{user} in {region}: {response}");
    };
    let has = |region: usize, user: &str| {
        let response = get(doors[region].0, &format!("/rating/{user}/tea"), user);
        let status = status(&response);
        assert!(matches!(status, Some(200 | 404)), "{user} in {region}: {response}");
        status == Some(200)
    };
    let raters = ["eve", "fay", "gil", "hal"];
    let everywhere = |what: &str, users: &[&str]| {
        eventually(PATIENCE, TICK, what, || users.iter().all(|user| has(0, user) && has(1, user)));
    };
    rate(0, raters[0]);
    rate(1, raters[1]);
    everywhere("both to have both ratings", &raters[..2]);

    assert_eq!((take(0, 15), take(1, 15)), (15, 15));
    let both_know = |what: &str, left: i64| {
        eventually(PATIENCE, TICK, what, || {
            REGIONS.iter().all(|region| {
                let server = format!("redis-{region}");
                compose.cli(&server, "HGET token_bucket:ann tokens").trim() == left.to_string()
            })
        });
    };
    both_know("both to know the first takes", CAPACITY - 30);

    compose.cut();
    let silent = |expected: &str, what: &str| {
        let query = "sum(claw_sync_region_silent)";
        eventually(PATIENCE, TICK, what, || answer(prometheus, query).as_deref() == Some(expected));
    };
    silent("2", "Prometheus to see that both are silent");
    eventually(PATIENCE, TICK, "an alert that waits", || {
        let query = r#"count(ALERTS{alertname="EdgePeerSilent"})"#;
        answer(prometheus, query).is_some()
    });
    // Cut apart, each admits its share of what is left: how much that is depends on who took before,
    // and of late.
    let apart = take(0, 10) + take(1, 10);
    assert!(apart > 0, "nothing was granted while they were cut apart");
    rate(0, raters[2]);
    rate(1, raters[3]);
    assert_eq!([0, 1].map(|region| has(region, raters[2])), [true, false]);
    assert_eq!([0, 1].map(|region| has(region, raters[3])), [false, true]);
    compose.heal();
    let left = CAPACITY - 30 - apart;
    both_know("both to know all takes", left);
    silent("0", "Prometheus to see that both are heard");
    everywhere("both to have all ratings", &raters);
    for (port, _) in doors {
        let item = get(port, "/items/tea", "");
        assert!(item.ends_with(r#"{"item_id":"tea","count":4,"mean":4}"#), "{item}");
    }

    // Not one token more than there were, whichever region is asked.
    assert_eq!(take(0, left), left);
    both_know("both to know that nothing is left", 0);
    for (port, path) in doors {
        assert_eq!(status(&get(port, path, "ann")), Some(429));
    }
    let statuses: Vec<Option<u16>> =
        (0..=BY_ENVOY).map(|_| status(&get(envoy, "/", "bob"))).collect();
    let (passed, refused) = statuses.split_at(BY_ENVOY);
    assert!(passed.iter().all(|status| *status == Some(200)), "{statuses:?}");
    assert_eq!(refused, [Some(429)]);
    eventually(PATIENCE, TICK, "Prometheus to have counted refusals", || {
        let refused = r#"count(operator_requests_total{result="limited"} > 0)"#;
        // By /auth in both regions, and by Envoy in one.
        answer(prometheus, refused).as_deref() == Some("3")
    });
}

fn get(port: u16, path: &str, user: &str) -> String {
    send(port, "GET", path, user, "")
}

fn send(port: u16, method: &str, path: &str, user: &str, body: &str) -> String {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return String::new() };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nx-user: {user}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut response = Vec::new();
    // Nobody may listen yet behind the port.
    let _ = stream.write_all(request.as_bytes());
    let _ = stream.read_to_end(&mut response);
    String::from_utf8_lossy(&response).into_owned()
}

fn status(response: &str) -> Option<u16> {
    response.split(' ').nth(1)?.parse().ok()
}

/// What Prometheus answers to a query that has one series at most.
fn answer(port: u16, query: &str) -> Option<String> {
    let encoded: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let page = get(port, &format!("/api/v1/query?query={encoded}"), "");
    let (_, value) = page.split_once("\"value\":[")?;
    Some(value.split('"').nth(1)?.to_owned())
}

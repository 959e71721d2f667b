//! Limits that change while requests are decided: no request is dropped, and a bad file changes
//! nothing.

#![allow(clippy::arithmetic_side_effects, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::panic, clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Instant;

use claw_testkit::Server;
use common::rls::Client;
use common::{Edge, PATIENCE, TICK};

/// One limit, of so many requests a day.
fn limit(requests: u32) -> String {
    format!(
        "domain: d\ndescriptors:\n- key: k\n  rate_limit: {{unit: day, requests_per_unit: {requests}}}\n"
    )
}

/// A service whose limits are what `folder` has.
fn start(redis: &Server, folder: &Path) -> Edge {
    Edge::builder(&redis.url()).env("DECISION_TIMEOUT", "5s").env("RLS_CONFIG", folder).start()
}

/// Waits until a look is answered so.
async fn wait_for(client: &Client, expected: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let line = client.line("d: k=new +0").await;
        if line == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{line}, not {expected}");
        tokio::time::sleep(TICK).await;
    }
}

const HUP: i32 = 1;

/// How often limits were read again, with this result.
fn reloads(edge: &Edge, result: &str) -> u64 {
    edge.metric("operator_config_reloads_total", result)
}

#[tokio::test]
async fn no_request_is_dropped_while_limits_change() {
    let (redis, dir) = (Server::start(), tempfile::tempdir().unwrap());
    let file = dir.path().join("d.yaml");
    fs::write(&file, limit(1_000_000)).unwrap();
    let edge = start(&redis, dir.path());
    let client = Client::new(edge.grpc);
    let (is_over, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let load: Vec<_> = (0..8)
        .map(|_| {
            let (client, is_over, asked) =
                (Client::new(edge.grpc), Arc::clone(&is_over), Arc::clone(&asked));
            tokio::spawn(async move {
                while !is_over.load(SeqCst) {
                    let line = client.line("d: k=load").await;
                    assert!(line.starts_with("OK: ok ") && line.ends_with("/day"), "{line}");
                    asked.fetch_add(1, SeqCst);
                }
            })
        })
        .collect();
    for requests in [2_000_000, 3_000_000] {
        let before = asked.load(SeqCst);
        fs::write(&file, limit(requests)).unwrap();
        wait_for(&client, &format!("OK: ok {requests} of {requests}/day")).await;
        assert!(asked.load(SeqCst) > before, "requests were asked meanwhile");
    }
    is_over.store(true, SeqCst);
    for task in load {
        task.await.unwrap();
    }
    assert_eq!(reloads(&edge, "applied"), 2);
}

#[tokio::test]
async fn a_bad_file_changes_nothing() {
    let (redis, dir) = (Server::start(), tempfile::tempdir().unwrap());
    let file = dir.path().join("d.yaml");
    fs::write(&file, limit(5)).unwrap();
    let edge = start(&redis, dir.path());
    let client = Client::new(edge.grpc);
    fs::write(&file, limit(7).replace("unit: day", "unit: dya")).unwrap();
    claw_testkit::eventually(PATIENCE, TICK, "it is refused", || reloads(&edge, "refused") == 1);
    let told = format!("{}:4: 'dya' is no unit of a rate limit", file.display());
    assert!(edge.log().contains(&told), "{told}");
    wait_for(&client, "OK: ok 5 of 5/day").await;
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    fs::write(file.join("e.yaml"), limit(9)).unwrap();
    wait_for(&client, "OK: ok 9 of 9/day").await;
    assert_eq!((reloads(&edge, "applied"), reloads(&edge, "refused")), (1, 1));
    // A signal reads them at once, changed or not.
    edge.signal(HUP);
    claw_testkit::eventually(PATIENCE, TICK, "it is read", || reloads(&edge, "applied") == 2);
}

#[test]
fn a_service_does_not_start_with_a_bad_file() {
    let (redis, dir) = (Server::start(), tempfile::tempdir().unwrap());
    let file = dir.path().join("d.yaml");
    fs::write(&file, limit(7).replace("unit: day", "unit: dya")).unwrap();
    let mut edge = Edge::builder(&redis.url()).env("RLS_CONFIG", dir.path()).launch();
    assert_eq!(edge.wait().code(), Some(1));
    let told = format!("{}:4: 'dya' is no unit of a rate limit", file.display());
    assert!(edge.log().contains(&told), "{}", edge.log());
}

#[tokio::test]
async fn a_config_map_that_kubernetes_turns_is_read() {
    let (redis, dir) = (Server::start(), tempfile::tempdir().unwrap());
    let at = |name: &str| dir.path().join(name);
    for (version, requests) in [("..1", 5), ("..2", 7)] {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("d.yaml"), limit(requests)).unwrap();
    }
    symlink("..1", at("..data")).unwrap();
    symlink("..data/d.yaml", at("d.yaml")).unwrap();
    let edge = start(&redis, dir.path());
    let client = Client::new(edge.grpc);
    wait_for(&client, "OK: ok 5 of 5/day").await;
    symlink("..2", at("..data_tmp")).unwrap();
    fs::rename(at("..data_tmp"), at("..data")).unwrap();
    wait_for(&client, "OK: ok 7 of 7/day").await;
}

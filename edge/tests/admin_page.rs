//! The page for operators in a browser: what is changed there is seen in the server and in the next
//! refusal, with a script and without, with a mouse and without.

#![allow(clippy::arithmetic_side_effects, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::panic, clippy::unwrap_used)]

mod common;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use claw_testkit::{Server, eventually, free_port, skipped};
use common::api::{post, start};
use common::{Edge, PATIENCE, TICK};
use fantoccini::key::Key;
use fantoccini::{Client, ClientBuilder, Locator};
use serde_json::json;

/// How long the browser may take for a page.
const PAGE: Duration = Duration::from_secs(30);

/// A browser without a window, which ends with the test.
struct Browser {
    driver: Child,
    client: Client,
}

impl Browser {
    /// Nothing, and the test says that it is left out, where there is no browser.
    async fn start(test: &str, arguments: &[&str]) -> Option<Self> {
        let port = free_port();
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(driver) = driver else {
            skipped(test, "there is no chromedriver: scripts/setup.sh edge installs it");
            return None;
        };
        eventually(PATIENCE, TICK, "the driver to listen", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        // In a container Chromium has neither a sandbox nor room for shared memory.
        let arguments = [
            &[
                "--headless=new",
                "--no-sandbox",
                "--disable-dev-shm-usage",
                "--window-size=1200,1000",
            ],
            arguments,
        ]
        .concat();
        let capabilities = json!({"goog:chromeOptions": {"args": arguments}});
        let capabilities = capabilities.as_object().unwrap().clone();
        let client = ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .expect("a browser");
        Some(Self { driver, client })
    }

    async fn open(&self, edge: &Edge, path: &str) {
        self.client.goto(&format!("http://127.0.0.1:{}{path}", edge.ops)).await.unwrap();
    }

    async fn text(&self, css: &str) -> String {
        let end = std::time::Instant::now() + PAGE;
        loop {
            let found = self.client.wait().at_most(PAGE).for_element(Locator::Css(css)).await;
            let found = found.unwrap_or_else(|error| panic!("{css}: {error}"));
            match found.text().await {
                Ok(text) => return text,
                // The part that changes by itself was changed just now.
                Err(error) if error.is_stale_element_reference() => {
                    assert!(std::time::Instant::now() < end, "{css}: {error}");
                }
                Err(error) => panic!("{css}: {error}"),
            }
        }
    }

    async fn click(&self, css: &str) {
        self.client.find(Locator::Css(css)).await.unwrap().click().await.unwrap();
    }

    async fn set(&self, css: &str, value: &str) {
        let field = self.client.find(Locator::Css(css)).await.unwrap();
        field.clear().await.unwrap();
        field.send_keys(value).await.unwrap();
    }

    async fn eventually_has(&self, css: &str, text: &str) {
        let end = std::time::Instant::now() + PAGE;
        while !self.text(css).await.contains(text) {
            assert!(
                std::time::Instant::now() < end,
                "{css} has no {text}: {}",
                self.text(css).await
            );
            tokio::time::sleep(TICK).await;
        }
    }

    async fn end(self) {
        let _ = self.client.clone().close().await;
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// A command to the server, and its reply.
fn run<T: redis::FromRedisValue>(server: &Server, words: &[&str]) -> T {
    let [name, arguments @ ..] = words else { panic!("no command") };
    redis::cmd(name).arg(arguments).query(&mut server.connection()).unwrap()
}

fn limited(url: &str) -> Edge {
    start(url, &[("USER_CAPACITY", "1"), ("USER_REFILL", "1"), ("USER_INTERVAL", "60s")])
}

fn rate(edge: &Edge, user: &str) -> common::api::Response {
    let body = json!({"user_id": user, "item_id": "tea", "rating": 4}).to_string();
    post(edge.http, "/rating", &body)
}

#[tokio::test]
async fn a_weight_that_is_set_on_the_page_holds_for_the_next_refusal() {
    let server = Server::start();
    let edge = limited(&server.url());
    let Some(browser) = Browser::start("a weight set on the page", &[]).await else { return };
    assert_eq!(rate(&edge, "ann").status, 200);
    let before = rate(&edge, "ann").number("retry-after").unwrap();
    assert!((50..=60).contains(&before), "{before}");

    // Who is refused appears by himself, and leads to his bucket.
    browser.open(&edge, "/admin").await;
    browser.eventually_has("#limited", "token_bucket:ann").await;
    rate(&edge, "bob");
    rate(&edge, "bob");
    browser.eventually_has("#limited", "token_bucket:bob").await;
    browser.open(&edge, "/admin/bucket?user=ann").await;
    browser.set("#weight", "10").await;
    browser.click("form[action='/admin/weight'] button").await;
    assert_eq!(browser.text("#note").await, "The weight of ann is 10 now; it was 1.");
    assert_eq!(run::<String>(&server, &["HGET", "token_bucket:ann", "userWeight"]), "10");
    let refused = (0..20).map(|_| rate(&edge, "ann")).find(|response| response.status == 429);
    let after = refused.expect("a refusal").number("retry-after").unwrap();
    assert!(after <= 6, "ten times as fast: {after} s");
    browser.end().await;
}

#[tokio::test]
async fn everything_can_be_reached_by_the_keyboard() {
    let server = Server::start();
    let edge = limited(&server.url());
    let Some(browser) = Browser::start("the keyboard", &[]).await else { return };
    rate(&edge, "ann");
    browser.open(&edge, "/admin/bucket?user=ann").await;
    let all = browser
        .client
        .find_all(Locator::Css("a, button, input:not([type=hidden])"))
        .await
        .unwrap()
        .len();
    let mut reached = 0;
    for _ in 0..all {
        let active = browser.client.active_element().await.unwrap();
        active.send_keys(&String::from(char::from(Key::Tab))).await.unwrap();
        let focus = "const e = document.activeElement; return [e.tagName, getComputedStyle(e).outlineStyle, \
                     (e.labels && e.labels.length > 0) || e.textContent.trim().length > 0];";
        let seen = browser.client.execute(focus, vec![]).await.unwrap();
        assert_ne!(seen[0], "BODY", "after {reached} of {all}");
        assert_ne!(seen[1], "none", "{seen}: what has the focus is seen");
        assert_eq!(seen[2], true, "{seen}: it has a name");
        reached += 1;
    }
    assert_eq!(reached, all);
    // One heading of the page, one main part, tables with captions, a language.
    let outline = "return [document.querySelectorAll('h1').length, document.querySelectorAll('main').length, \
                   [...document.querySelectorAll('table')].every(t => t.caption), document.documentElement.lang];";
    browser.open(&edge, "/admin").await;
    assert_eq!(browser.client.execute(outline, vec![]).await.unwrap(), json!([1, 1, true, "en"]));
    browser.end().await;
}

/// The screenshots of the documentation: `SCREENSHOTS=folder`, see `scripts/screenshots.sh`.
#[tokio::test]
#[ignore = "makes the pictures of the documentation: scripts/screenshots.sh"]
async fn screenshots() {
    let folder = PathBuf::from(std::env::var_os("SCREENSHOTS").expect("SCREENSHOTS"));
    let server = Server::start();
    let edge = start(
        &server.url(),
        &[
            ("CAPACITY", "1000"),
            ("REFILL", "100"),
            ("USER_CAPACITY", "5"),
            ("USER_REFILL", "1"),
            ("USER_INTERVAL", "10s"),
        ],
    );
    let rules = "login:* 5 5/900000; api:* 100 100/60000";
    run::<String>(&server, &["CONFIG", "SET", "claw.policies", rules]);
    for (user, times) in [("ann", 9), ("bob", 7), ("carol", 6)] {
        for _ in 0..times {
            rate(&edge, user);
        }
    }
    run::<Vec<i64>>(&server, &["CL.SETTLE", "token_bucket:dora", "0", "12"]);
    for (name, scheme) in [("light", 1), ("dark", 2)] {
        let scheme = format!("--blink-settings=preferredColorScheme={}", 2 - scheme);
        let browser = Browser::start("screenshots", &[scheme.as_str()]).await.expect("a browser");
        browser.open(&edge, "/admin/bucket?user=ann").await;
        browser.set("#weight", "3").await;
        browser.click("form[action='/admin/weight'] button").await;
        browser.text("#note").await;
        for (page, path) in [("home", "/admin"), ("bucket", "/admin/bucket?user=ann")] {
            browser.open(&edge, path).await;
            browser.text("main").await;
            let picture = browser.client.screenshot().await.unwrap();
            std::fs::write(folder.join(format!("admin-{page}-{name}.png")), picture).unwrap();
        }
        browser.end().await;
    }
}

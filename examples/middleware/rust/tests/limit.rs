//! Needs a server with the module at `REDIS_URL`.

use claw_tower::{Failure, Policy, RateLimitLayer};
use http::{Request, Response};
use redis::aio::ConnectionLike;
use redis::{Cmd, Pipeline, RedisFuture, Value};
use std::convert::Infallible;
use tower::{Layer, ServiceExt, service_fn};

async fn connection() -> redis::aio::MultiplexedConnection {
    let url = std::env::var("REDIS_URL").expect("REDIS_URL");
    redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap()
}

fn policy(refill: &str, tokens: u64) -> Policy {
    Policy { capacity: 2, refill: refill.into(), interval_ms: 3_600_000, tokens }
}

/// Status and fields of the answer to a user.
async fn ask<C>(
    connection: C,
    policy: Policy,
    failure: Failure,
    user: Option<&str>,
) -> (u16, [Option<u64>; 4])
where
    C: ConnectionLike + Clone + Send + Sync + 'static,
{
    let layer = RateLimitLayer::new(connection, policy, failure, |parts| {
        let user = parts.headers.get("x-user")?.to_str().ok()?;
        Some(format!("limit:tower:{user}"))
    });
    let service = layer.layer(service_fn(async |_: Request<()>| {
        Ok::<_, Infallible>(Response::new(String::from("hello")))
    }));
    let mut request = Request::builder().uri("/");
    if let Some(user) = user {
        request = request.header("x-user", user);
    }
    let answer = service.oneshot(request.body(()).unwrap()).await.unwrap();
    let field = |name| answer.headers().get(name)?.to_str().unwrap().parse().ok();
    let fields = ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset", "retry-after"];
    let status = answer.status().as_u16();
    assert_eq!(answer.body(), if status == 200 { "hello" } else { "" });
    (status, fields.map(field))
}

#[tokio::test]
async fn a_bucket_for_each_key() {
    // One token in an hour, so that it does not matter how long this takes.
    for (user, status, remaining, reset, retry) in [
        ("ann", 200, 1, 3600, None),
        ("ann", 200, 0, 7200, None),
        ("ann", 429, 0, 7200, Some(3600)),
        ("bob", 200, 1, 3600, None),
    ] {
        let answer = ask(connection().await, policy("1", 1), Failure::Open, Some(user)).await;
        let (answered, [limit, left, reset_after, retry_after]) = answer;
        let near = |seconds: u64, about: u64| (about - 60..=about).contains(&seconds);
        assert_eq!((answered, limit, left), (status, Some(2), Some(remaining)), "{user}");
        assert!(near(reset_after.unwrap(), reset), "{user}: {answer:?}");
        assert_eq!(retry_after.is_some(), retry.is_some(), "{user}: {answer:?}");
        assert!(retry_after.is_none_or(|seconds| near(seconds, 3600)), "{user}: {answer:?}");
    }
}

#[tokio::test]
async fn what_has_no_key_is_not_limited() {
    for _ in 0..3 {
        let answer = ask(connection().await, policy("0", 1), Failure::Open, None).await;
        assert_eq!(answer, (200, [None; 4]));
    }
}

#[tokio::test]
async fn what_can_never_be_has_no_time_to_come_back() {
    let answer = ask(connection().await, policy("0", 3), Failure::Open, Some("cleo")).await;
    assert_eq!(answer, (429, [Some(2), Some(2), Some(0), None]));
}

/// Nobody answers.
#[derive(Clone)]
struct Broken;

impl ConnectionLike for Broken {
    fn req_packed_command<'a>(&'a mut self, _: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async { Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()) })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        _: &'a Pipeline,
        _: usize,
        _: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async { Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()) })
    }

    fn get_db(&self) -> i64 {
        0
    }
}

#[tokio::test]
async fn without_redis_it_is_as_said() {
    let open = ask(Broken, policy("1", 1), Failure::Open, Some("ann")).await;
    assert_eq!(open, (200, [None; 4]));
    let closed = ask(Broken, policy("1", 1), Failure::Closed, Some("ann")).await;
    assert_eq!(closed, (503, [None; 4]));
}

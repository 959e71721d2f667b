//! What differs from library to library: routing in a cluster, a policy, a state.
//!
//! usage: `cargo run --example tour`
//! The server is `REDIS_URL`, or `redis://127.0.0.1:6379`; with `CLUSTER` set it is a node of
//! a cluster.

use redis::cluster::ClusterClient;
use redis::{ConnectionLike, RedisResult};
use std::collections::HashMap;
use std::env;

#[allow(clippy::indexing_slicing, reason = "a policy has all of its names")]
fn tour(client: &mut impl ConnectionLike) -> RedisResult<()> {
    // A cluster client takes the first argument of what it does not know for the key.
    let mut take = |n| {
        let reply: (u64, u64, u64, i64, i64) = redis::cmd("CL.TAKE")
            .arg(format!("tour:{n}"))
            .arg(&["1", "CAPACITY", "5", "REFILL", "0"])
            .query(client)?;
        Ok(reply.0)
    };
    let taken: u64 = (0..20).map(&mut take).sum::<RedisResult<u64>>()?;
    println!("{taken} taken");

    // A map from RESP 3, and as well from RESP 2.
    let policy: HashMap<String, String> =
        redis::cmd("CL.POLICY").arg(&["tour:1", "CAPACITY", "5", "REFILL", "2.5"]).query(client)?;
    println!("{} at most, {} more in a second", policy["capacity"], policy["refill"]);

    // MessagePack: bytes, as a string would be an error.
    let state: Vec<u8> = redis::cmd("CL.STATE").arg("tour:1").query(client)?;
    let (changed, _capacity, _remaining): (u64, u64, u64) =
        redis::cmd("CL.MERGE").arg(&["tour:1", "STATE"]).arg(state).query(client)?;
    println!("merged with itself, {changed} changed");
    Ok(())
}

fn main() -> RedisResult<()> {
    let url = env::var("REDIS_URL").unwrap_or_else(|_| "redis://127.0.0.1:6379".to_owned());
    match env::var_os("CLUSTER") {
        Some(_) => tour(&mut ClusterClient::new([url])?.get_connection()?),
        None => tour(&mut redis::Client::open(url)?.get_connection()?),
    }
}

//! The other regions, as `RATINGS_PEERS` names them.

use std::sync::Arc;

use crate::config::{self, Config};
use crate::redis::Redis;
use crate::redis::health::Health;

/// Another region.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// The server that keeps its ratings. It is only read.
    pub redis: Redis,
}

/// All other regions.
///
/// # Errors
/// When a name or a URL cannot be read, or a name is there twice. URLs are not repeated.
pub fn peers(config: &Config) -> Result<Vec<Peer>, String> {
    let mut peers: Vec<Peer> = Vec::new();
    for (name, urls) in named(&config.ratings_peers)? {
        let wrong = |why: String| format!("RATINGS_PEERS, {name}: {why}");
        if name == config.region {
            return Err(wrong("this is the region itself, as REGION says".to_owned()));
        }
        if peers.iter().any(|peer| peer.name == name) {
            return Err(wrong("it is there twice".to_owned()));
        }
        let theirs = Config {
            redis_url: urls,
            redis_password_file: config.ratings_peers_password_file.clone(),
            ..config.patient()
        };
        let redis = Redis::new(&theirs, Arc::new(Health::of_peer(&name))).map_err(wrong)?;
        peers.push(Peer { name, redis });
    }
    Ok(peers)
}

/// The pieces of each peer's URL, which commas have cut: what has a name in front of a scheme
/// begins the next one.
fn named(pieces: &[String]) -> Result<Vec<(String, Vec<String>)>, String> {
    let mut named: Vec<(String, Vec<String>)> = Vec::new();
    // A variable that is there and empty has one empty piece.
    for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
        let begins = piece
            .split_once('=')
            .filter(|(name, rest)| config::region(name).is_ok() && rest.contains("://"));
        match (begins, named.last_mut()) {
            (Some((name, url)), _) => named.push((name.to_owned(), vec![url.to_owned()])),
            (None, Some((_, urls))) => urls.push(piece.clone()),
            (None, None) => return Err("RATINGS_PEERS begins with no region: eu=redis://..".into()),
        }
    }
    Ok(named)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn peers_are_cut_where_a_name_begins() {
        let cut = |text: &str| {
            named(&text.split(',').map(str::to_owned).collect::<Vec<_>>()).map(|named| {
                named.iter().map(|(name, urls)| format!("{name} {}", urls.join("+"))).collect()
            })
        };
        for (text, peers) in [
            ("", vec![]),
            ("eu=redis://a", vec!["eu redis://a"]),
            ("eu=redis://a,us=rediss://u:p=@b:1/2", vec!["eu redis://a", "us rediss://u:p=@b:1/2"]),
            (
                "eu=redis+cluster://a:1,b:2,u-s=redis+sentinel://c,d/main?x=y",
                vec!["eu redis+cluster://a:1+b:2", "u-s redis+sentinel://c+d/main?x=y"],
            ),
        ] {
            assert_eq!(
                cut(text),
                Ok::<Vec<String>, String>(peers.into_iter().map(str::to_owned).collect()),
                "{text}"
            );
        }
        assert!(cut("redis://secret@a").unwrap_err().starts_with("RATINGS_PEERS"));
    }

    #[test]
    fn what_cannot_be_a_peer_is_refused_and_never_repeated() {
        for (peers, said) in [
            ("local=redis://secret@a", "the region itself"),
            ("eu=redis://secret@a,eu=redis://b", "twice"),
            ("eu=http://secret@a", "cannot be read"),
            ("redis://secret@a", "no region"),
        ] {
            let config = Config::parse_from(["claw-edge", "--ratings-peers", peers]);
            let error = super::peers(&config).unwrap_err();
            assert!(error.contains(said) && !error.contains("secret"), "{peers}: {error}");
        }
    }
}

#!/usr/bin/env bash
# A small message is encoded by prost into a BytesMut for twice the instructions of a Vec.
#
# prost 0.14.4, bytes 1.12.1: keys and short numbers are put byte by byte, and BytesMut takes a single
# byte by a general copy, after a look at its room, where Vec pushes it. A response of a rate limit
# service, of some forty bytes, made into frozen `Bytes` either way, of the same capacity:
# Vec: 954 instructions, BytesMut: 2042
#
# usage: findings/prost-into-bytesmut.sh     (cargo, valgrind)
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
mkdir src
cat >Cargo.toml <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
bytes = "=1.12.1"
prost = "=0.14.4"

[profile.release]
lto = "fat"
codegen-units = 1
TOML
cat >src/main.rs <<'RUST'
use bytes::{Bytes, BytesMut};
use prost::Message;
use std::hint::black_box;

#[derive(Clone, PartialEq, Message)]
struct Field {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint32, tag = "2")]
    value: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(uint32, tag = "1")]
    code: u32,
    #[prost(message, repeated, tag = "2")]
    fields: Vec<Field>,
}

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let turns: u32 = words[2].parse().unwrap();
    let field = |name: &str, value| Field { name: name.to_owned(), value };
    let fields = vec![field("limit", 1000), field("remaining", 999), field("reset", 60)];
    let response = Response { code: 1, fields };
    for _ in 0..turns {
        let response = black_box(&response);
        let bytes: Bytes = if words[1] == "vec" {
            let mut into = Vec::with_capacity(response.encoded_len());
            response.encode(&mut into).unwrap();
            into.into()
        } else {
            let mut into = BytesMut::with_capacity(response.encoded_len());
            response.encode(&mut into).unwrap();
            into.freeze()
        };
        black_box(bytes);
    }
}
RUST
cargo build -q --release
# Instructions of a run: what valgrind counts in all.
count() {
    valgrind --tool=cachegrind --cache-sim=no --cachegrind-out-file=/dev/null \
        target/release/finding "$1" "$2" 2>&1 | awk '/I +refs/ { gsub(",", "", $NF); print $NF }'
}
each() { echo $((($(count "$1" 11000) - $(count "$1" 1000)) / 10000)); }
vec=$(each vec)
bytes_mut=$(each bytes_mut)
echo "Vec: $vec instructions, BytesMut: $bytes_mut"
[ "$bytes_mut" -gt $((vec * 3 / 2)) ]

#!/usr/bin/env bash
# A struct that derives Deserialize is read from a JSON array, too, member by member in the order of
# its declaration, and `deny_unknown_fields` does not change that.
#
# serde 1.0.229, serde_json 1.0.154. `["ann",5]` is as good as `{"user":"ann","tokens":5}`, so a
# service that finds the user of a request by the name of the member, in a rule that stands beside the
# struct, does not find him in a body that the struct takes. The documentation tells of
# `visit_seq` for structs, which is meant for formats without names. A service that wants an object has
# to look whether it is one.
#
# usage: findings/serde-struct-from-array.sh     (cargo)
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
serde = { version = "=1.0.229", features = ["derive"] }
serde_json = "=1.0.154"
TOML
cat >src/main.rs <<'RUST'
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct Take {
    user: String,
    tokens: u64,
}

fn main() {
    for body in [r#"{"user":"ann","tokens":5}"#, r#"["ann",5]"#, r#"["ann",5,true]"#] {
        match serde_json::from_str::<Take>(body) {
            Ok(take) => println!("{body}: {take:?}"),
            Err(error) => println!("{body}: {error}"),
        }
    }
}
RUST
cargo run -q | tee said
diff said - <<'TEXT'
{"user":"ann","tokens":5}: Take { user: "ann", tokens: 5 }
["ann",5]: Take { user: "ann", tokens: 5 }
["ann",5,true]: trailing characters at line 1 column 10
TEXT

//! What the Dockerfile says twice, and has to say the same. Needs no Docker.

use std::fs;
use std::path::Path;

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What stands between two texts.
fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let (_, rest) = text.split_once(start).unwrap_or_else(|| panic!("no {start:?}"));
    rest.split(end).next().unwrap()
}

#[test]
fn images_are_built_with_the_pinned_toolchain() {
    let toolchain = file("rust-toolchain.toml");
    let pinned = between(&toolchain, "channel = \"", "\"");
    for dockerfile in ["Dockerfile", "edge/Dockerfile"] {
        assert_eq!(between(&file(dockerfile), "ARG RUST=rust:", "-"), pinned, "{dockerfile}");
    }
}

#[test]
fn the_image_gets_the_manifest_of_every_member() {
    let (ignored, workspace) = (file(".dockerignore"), file("Cargo.toml"));
    let members = between(&workspace, "members = [", "]").split(", ");
    for member in members.map(|name| name.trim_matches('"')) {
        let line = format!("!{member}/Cargo.toml");
        assert!(ignored.lines().any(|l| l == line), ".dockerignore has no {line}");
    }
}

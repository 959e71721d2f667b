//! What `make dist` makes.

use crate::node::{Node, base};
use claw_testkit::{ask, info_field};
use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use testcontainers::{CopyTargetOptions, ImageExt};

const MODULE: &str = "libredis_claw.so";
const FILES: &[&str] = &[
    "CHANGELOG.md",
    "LICENSE",
    "README.md",
    "SHA256SUMS",
    MODULE,
    "redis-claw.cdx.json",
    "redis.conf",
    "upgrade.sh",
];

/// What the archive of claw-edge has, but for the files of deploy/.
const FILES_OF_EDGE: &[&str] = &[
    "CHANGELOG.md",
    "LICENSE",
    "README.md",
    "SHA256SUMS",
    "claw-edge",
    "claw-edge.cdx.json",
    "deploy",
];

/// The archive of the module for this machine, unpacked once.
fn unpacked() -> &'static Path {
    static UNPACKED: OnceLock<PathBuf> = OnceLock::new();
    UNPACKED.get_or_init(|| unpack("redis-claw"))
}

/// Unpacks an archive for this machine.
fn unpack(product: &str) -> PathBuf {
    let target = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let name = format!("{product}-{}-{target}", env!("CARGO_PKG_VERSION"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let built = env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    let archive = built.join("dist").join(format!("{name}.tar.gz"));
    assert!(archive.is_file(), "no {}: make dist", archive.display());
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("archive").join(product);
    let _ = fs::remove_dir_all(&place);
    fs::create_dir_all(&place).unwrap();
    run(Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(&place));
    // Everything is in one directory of the archive's name.
    place.join(name)
}

/// The base images have no toolchain: this is what a user's server is like.
pub fn its_module_loads_in_a_clean_server(server: &str) {
    let module = fs::read(unpacked().join(MODULE)).unwrap();
    let start = "exec $(command -v valkey-server || command -v redis-server) --save '' \
                 --protected-mode no --bind '*' --loadmodule /opt/libredis_claw.so";
    let node = Node::run(base(server).with_entrypoint("/bin/sh"), &["-c", start], |request| {
        // The server refuses a module that is not executable.
        request
            .with_copy_to(CopyTargetOptions::new("/opt/libredis_claw.so").with_mode(0o755), module)
    });
    assert_eq!(node.exec(&["sh", "-c", "command -v cc gcc rustc cargo; true"]), "");
    let conn = &mut node.connection();
    let taken: Vec<i64> = ask(conn, "CL.TAKE a 2 CAPACITY 5 REFILL 0");
    assert_eq!(taken[..3], [2, 5, 3]);
    let version = info_field(conn, "claw", "claw_version");
    assert_eq!(version.as_deref(), Some(env!("CARGO_PKG_VERSION")));
}

pub fn of_the_module_is_complete() {
    let dir = unpacked();
    has_files(dir, FILES);
    is_whole(dir, MODULE, "redis-claw");
}

pub fn of_the_edge_is_complete() {
    let dir = &unpack("claw-edge");
    has_files(dir, FILES_OF_EDGE);
    is_whole(dir, "claw-edge", "claw-edge");
    assert!(dir.join("deploy/kubernetes/base/kustomization.yaml").is_file());
    let version = run(Command::new(dir.join("claw-edge")).arg("--version"));
    assert_eq!(version.trim(), format!("claw-edge {}", env!("CARGO_PKG_VERSION")));
}

fn has_files(dir: &Path, expected: &[&str]) {
    let found: BTreeSet<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(found, expected.iter().map(|name| (*name).to_owned()).collect());
}

/// All files are summed, and what was built needs no more than is documented, says nothing of
/// where it was built, and has all its crates in the bill of materials.
fn is_whole(dir: &Path, built: &str, package: &str) {
    let sums = fs::read_to_string(dir.join("SHA256SUMS")).unwrap();
    let summed: BTreeSet<&str> = sums.lines().filter_map(|line| line.split("  ").nth(1)).collect();
    let files =
        run(Command::new("find").args([".", "-type", "f", "-printf", "%P\\n"]).current_dir(dir));
    let others = files.lines().filter(|name| *name != "SHA256SUMS");
    assert_eq!(summed, others.collect());
    run(Command::new("sha256sum").args(["--check", "--quiet", "SHA256SUMS"]).current_dir(dir));

    // The oldest glibc that docs/servers.md names is enough.
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/servers.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, floor) = page.split_once("glibc ").expect("docs/servers.md names a glibc");
    let floor = version(floor.split_ascii_whitespace().next().unwrap());
    let symbols = run(Command::new("objdump").arg("-T").arg(dir.join(built)));
    let needed = symbols
        .split("GLIBC_")
        .skip(1)
        .map(|rest| version(rest.split(|c: char| c != '.' && !c.is_ascii_digit()).next().unwrap()))
        .max()
        .expect("it uses glibc");
    assert!(needed <= floor, "needs glibc {needed:?}, documented is {floor:?}");

    // Nothing of the machine it was built on.
    let bytes = fs::read(dir.join(built)).unwrap();
    for path in [env!("CARGO_MANIFEST_DIR").to_owned(), env::var("HOME").unwrap() + "/.cargo"] {
        let at = bytes.windows(path.len()).position(|part| part == path.as_bytes());
        assert_eq!(at, None, "{built} says {path}");
    }

    // Every crate that is linked is in the bill of materials.
    let bill = fs::read_to_string(dir.join(format!("{package}.cdx.json"))).unwrap();
    assert!(bill.contains("\"bomFormat\": \"CycloneDX\""));
    assert!(!bill.contains(env!("CARGO_MANIFEST_DIR")), "the bill of materials names a path");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let crates = run(Command::new(cargo)
        .args(["tree", "--locked", "--package", package, "--edges", "normal"])
        .args(["--prefix", "none", "--format", "{p}"])
        .current_dir(env!("CARGO_MANIFEST_DIR")));
    let mut count = 0;
    for line in crates.lines() {
        let mut words = line.split(' ');
        let (name, version) = (words.next().unwrap(), words.next().unwrap());
        let purl = format!("pkg:cargo/{name}@{}", version.trim_start_matches('v'));
        assert!(bill.contains(&purl), "{purl} is not in the bill of materials");
        count += 1;
    }
    assert!(count > 5, "{crates}");
}

fn version(text: &str) -> Vec<u32> {
    text.trim_end_matches(['.', ',', ':']).split('.').map(|part| part.parse().unwrap()).collect()
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {complaint}");
    String::from_utf8(output.stdout).unwrap()
}

//! The append only file, read as commands.

use crate::common::commands::Words;
use claw_testkit::Server;
use std::fs;
use std::path::Path;

/// All commands in the append only file after its base.
pub fn appended(dir: &Path) -> Vec<Words> {
    let manifest = fs::read_to_string(dir.join("appendonlydir/appendonly.aof.manifest")).unwrap();
    let mut commands = Vec::new();
    for line in manifest.lines().filter(|line| line.contains(" type i")) {
        let file = line.split(' ').nth(1).unwrap();
        let bytes = fs::read(dir.join("appendonlydir").join(file)).unwrap();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let words = header(&mut rest, b'*');
            let word = |_| {
                let len = header(&mut rest, b'$');
                let word = rest[..len].to_vec();
                rest = &rest[len + 2..];
                word
            };
            commands.push((0..words).map(word).collect());
        }
    }
    commands
}

/// Reads a line such as `*3`.
pub fn header(rest: &mut &[u8], sign: u8) -> usize {
    let end = rest.windows(2).position(|pair| pair == b"\r\n").unwrap();
    assert_eq!(rest[0], sign);
    let number = std::str::from_utf8(&rest[1..end]).unwrap().parse().unwrap();
    *rest = &rest[end + 2..];
    number
}

/// What a call appends to the file, without values: names of commands, keys and
/// fields.
pub fn effects(server: &Server, known: &mut usize) -> Vec<String> {
    let all = appended(server.dir());
    let new = all[*known..].iter().map(|words| {
        let words: Vec<String> =
            words.iter().map(|word| String::from_utf8(word.clone()).unwrap()).collect();
        match words[0].as_str() {
            "HSET" => {
                let fields: Vec<&str> = words[2..].iter().step_by(2).map(String::as_str).collect();
                format!("HSET {} {}", words[1], fields.join(" "))
            }
            "PEXPIREAT" => format!("PEXPIREAT {}", words[1]),
            _ => words.join(" "),
        }
    });
    // Which database it is does not matter here.
    let new = new.filter(|line| !line.starts_with("SELECT")).collect();
    *known = all.len();
    new
}

/// A word of a command, with `~` for a space.
pub fn word(text: &str) -> Vec<u8> {
    text.replace('~', " ").into_bytes()
}

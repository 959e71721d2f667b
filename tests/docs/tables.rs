//! Commands, parameters and fields: their tables are complete.

use crate::answers::{command_names, flags, text_of, value_of};
use crate::page::{code, page, root};
use claw_testkit::{Server, cmd, info_field};
use redis::Value;
use std::collections::BTreeSet;
use std::fs;

#[test]
fn every_command_is_in_the_readme_and_has_its_page() {
    let server = Server::start();
    let mut conn = server.connection();
    let registered: BTreeSet<String> = command_names(&mut conn);
    assert!(registered.contains("CL.TAKE"));

    let table = page("README.md").first_cells("Commands");
    assert_eq!(table, registered, "README.md, section Commands");
    let files: BTreeSet<String> = fs::read_dir(root().join("docs/commands"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_uppercase())
        .collect();
    assert_eq!(files, registered, "docs/commands");

    for name in &registered {
        let page = page(&format!("docs/commands/{}.md", name.to_lowercase()));
        assert!(!page.fences("console").is_empty(), "{}: no transcript", page.name);
        assert!(page.text.starts_with(&format!("# {name}\n")), "{}: title", page.name);
        let docs = cmd(&mut conn, &format!("COMMAND DOCS {name}")).unwrap();
        let docs = value_of(&docs, &name.to_lowercase());
        let summary = text_of(&value_of(&docs, "summary"));
        let told = !summary.is_empty() && page.text.contains(&summary);
        assert!(told, "{}: no {summary:?}", page.name);
        let complexity = text_of(&value_of(&docs, "complexity"));
        assert_eq!(page.row("Complexity"), complexity, "{}", page.name);
        assert_eq!(page.row("Flags"), flags(&mut conn, name), "{}", page.name);
    }
}

#[test]
fn the_tables_of_parameters_are_complete() {
    let server = Server::start();
    let mut conn = server.connection();
    let Value::Array(found) = cmd(&mut conn, "CONFIG GET claw.*").unwrap() else {
        panic!("CONFIG GET answers with an array");
    };
    let real: BTreeSet<(String, String)> =
        found.chunks(2).map(|pair| (text_of(&pair[0]), text_of(&pair[1]))).collect();
    assert!(!real.is_empty());
    for name in ["README.md", "docs/configuration.md"] {
        let told: BTreeSet<(String, String)> = page(name)
            .rows("Parameters")
            .iter()
            .map(|cells| (code(&cells[0]), code(&cells[1])))
            .collect();
        assert_eq!(told, real, "{name}, section Parameters: names and defaults");
    }
}

#[test]
fn the_table_of_info_fields_is_complete() {
    let server = Server::start();
    let mut conn = server.connection();
    let names = command_names(&mut conn);
    for name in &names {
        // Even refused for its arguments, a command is counted.
        let _ = cmd(&mut conn, &format!("{name} k"));
    }
    assert_eq!(info_field(&mut conn, "claw", "claw_version").unwrap(), env!("CARGO_PKG_VERSION"));
    let info: String = redis::cmd("INFO").arg("claw").query(&mut conn).unwrap();
    let real: BTreeSet<String> = info
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(field, _)| {
            let command = names.iter().find(|name| field.ends_with(&name.to_lowercase()));
            command
                .map_or(field.to_owned(), |name| field.replace(&name.to_lowercase(), "<command>"))
        })
        .collect();
    assert!(real.len() > 3, "{info}");
    assert_eq!(page("docs/configuration.md").first_cells("INFO claw"), real);
}

/// What is behind a text in a file, up to the end of the line or to a quote.
fn behind(file: &str, text: &str) -> String {
    let source = fs::read_to_string(root().join(file)).unwrap();
    let (_, rest) = source.split_once(text).unwrap_or_else(|| panic!("{file} has no {text}"));
    rest.split(['"', '\n']).next().unwrap().to_owned()
}

#[test]
fn the_changelog_names_the_formats_that_are() {
    let told: Vec<String> = page("CHANGELOG.md")
        .rows("Formats")
        .iter()
        .map(|cells| cells[1].replace('`', ""))
        .collect();
    let version = "const VERSION: &str = \"";
    let real = [
        claw_core::membership::PROTOCOL.to_string(),
        claw_core::codec::VERSION.to_string(),
        behind("edge/src/ratings/library.lua", "#!lua name="),
        behind("adapt/src/trial.rs", version),
        behind("adapt/src/weights.rs", version),
    ];
    assert_eq!(told, real, "CHANGELOG.md, section Formats");
}

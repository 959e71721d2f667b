//! Snippets, links and `make` targets lead to what is there.

use crate::page::{headings, page, pages, root, slug};
use std::fs;

#[test]
fn snippets_are_in_the_examples_word_for_word() {
    let readme = page("README.md");
    for (language, file) in [
        ("python", "python/take.py"),
        ("javascript", "node/take.mjs"),
        ("go", "go/main.go"),
        ("java", "java/Take.java"),
        ("rust", "rust/take.rs"),
    ] {
        let path = format!("examples/clients/{file}");
        let example = fs::read_to_string(root().join(&path)).unwrap();
        let snippets = readme.fences(language);
        assert!(!snippets.is_empty(), "README.md has no {language}");
        assert!(readme.text.contains(&format!("({path})")), "README.md has no link to {path}");
        for snippet in snippets {
            let text = snippet.lines.join("\n");
            assert!(
                !text.is_empty() && example.contains(&text),
                "README.md:{}: not in {path}",
                snippet.line
            );
        }
    }
}

#[test]
fn links_lead_somewhere() {
    let mut followed = 0;
    for page in pages() {
        for (line, target) in page.links() {
            if target.contains("://") {
                continue;
            }
            let place = format!("{}:{line}: {target}", page.name);
            let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let mut path = root().join(&page.name);
            if !file.is_empty() {
                path.pop();
                path.push(file);
            }
            assert!(path.exists(), "{place}: no such file");
            if !anchor.is_empty() {
                let text = fs::read_to_string(&path).unwrap();
                let anchors: Vec<String> =
                    headings(&text).map(|(_, _, title)| slug(title)).collect();
                assert!(anchors.iter().any(|a| a == anchor), "{place}: only {anchors:?}");
            }
            followed += 1;
        }
    }
    assert!(followed > 0, "no link was found");
}

#[test]
fn make_knows_the_targets_that_are_named() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let mut named = 0;
    for page in pages() {
        for target in page.make_targets() {
            let rule = format!("{target}:");
            assert!(
                makefile.lines().any(|line| line.starts_with(&rule)),
                "{}: make {target}",
                page.name
            );
            named += 1;
        }
    }
    assert!(named > 0, "no target was found");
}

//! Pages of the documentation, and what is on them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A Markdown file; its name is relative to the repository.
pub struct Page {
    pub name: String,
    pub text: String,
}

/// A fenced block.
pub struct Fence {
    /// What stands behind the opening fence.
    pub info: String,
    /// The number of its first line.
    pub line: usize,
    pub lines: Vec<String>,
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn page(name: &str) -> Page {
    let text = fs::read_to_string(root().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    Page { name: name.to_owned(), text }
}

pub fn pages() -> Vec<Page> {
    let mut files = vec![root().join("README.md"), root().join("CHANGELOG.md")];
    for dir in ["docs", "examples", "demo"] {
        markdown_below(&root().join(dir), &mut files);
    }
    files.sort();
    files.iter().map(|file| page(file.strip_prefix(root()).unwrap().to_str().unwrap())).collect()
}

pub fn markdown_below(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("node_modules") {
            markdown_below(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            files.push(path);
        }
    }
}

impl Page {
    /// The blocks whose first word is `kind`.
    pub fn fences(&self, kind: &str) -> Vec<Fence> {
        let mut fences = Vec::new();
        let mut open: Option<Fence> = None;
        for (number, line) in (1..).zip(self.text.lines()) {
            match (line.strip_prefix("```"), &mut open) {
                (Some(info), None) => {
                    open = Some(Fence { info: info.into(), line: number + 1, lines: Vec::new() });
                }
                (Some(_), Some(_)) => fences.extend(open.take()),
                (None, Some(fence)) => fence.lines.push(line.to_owned()),
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{}: a block is not closed", self.name);
        fences.retain(|fence| fence.info.split(' ').next() == Some(kind));
        fences
    }

    /// The rows of the tables in the section under a heading, without the heads.
    pub fn rows(&self, heading: &str) -> Vec<Vec<String>> {
        let (start, level, _) = headings(&self.text)
            .find(|(_, _, title)| *title == heading)
            .unwrap_or_else(|| panic!("{}: no heading {heading:?}", self.name));
        let end = headings(&self.text)
            .find(|(line, other, _)| *line > start && *other <= level)
            .map_or(usize::MAX, |(line, _, _)| line);
        let section = self.text.lines().enumerate().filter(|(at, _)| (start..end).contains(at));
        let mut rows: Vec<Vec<String>> = Vec::new();
        for (_, line) in section.filter(|(_, line)| line.starts_with('|')) {
            if line.starts_with("|--") {
                rows.pop();
                continue;
            }
            let cells = line.trim_matches('|').split(" | ");
            rows.push(cells.map(|cell| cell.trim().to_owned()).collect());
        }
        rows
    }

    /// The first cells of those rows, as far as they are code.
    pub fn first_cells(&self, heading: &str) -> BTreeSet<String> {
        self.rows(heading).iter().map(|cells| code(&cells[0])).collect()
    }

    /// The value in a table of two columns, without its marks.
    pub fn row(&self, name: &str) -> String {
        let line = self.text.lines().find(|line| line.starts_with(&format!("| {name} |")));
        let line = line.unwrap_or_else(|| panic!("{}: no row {name:?}", self.name));
        line.split('|').nth(2).unwrap().trim().replace('`', "")
    }

    /// Targets of links, with the number of the line.
    pub fn links(&self) -> Vec<(usize, String)> {
        let mut links = Vec::new();
        let mut in_fence = false;
        for (number, line) in (1..).zip(self.text.lines()) {
            if line.starts_with("```") {
                in_fence = !in_fence;
            }
            if in_fence {
                continue;
            }
            for part in line.split("](").skip(1) {
                let target = part.split(')').next().unwrap();
                links.push((number, target.to_owned()));
            }
        }
        links
    }

    /// What follows `make` in code.
    pub fn make_targets(&self) -> Vec<String> {
        let starts = self.text.split("`make ").skip(1).chain(self.text.split("\nmake ").skip(1));
        starts
            .map(|rest| rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect())
            .collect()
    }
}

/// Line (from 0), level and title of each heading.
pub fn headings(text: &str) -> impl Iterator<Item = (usize, usize, &str)> {
    let mut in_fence = false;
    text.lines().enumerate().filter_map(move |(at, line)| {
        if line.starts_with("```") {
            in_fence = !in_fence;
        }
        let title = line.trim_start_matches('#');
        let level = line.len() - title.len();
        (!in_fence && level > 0).then(|| (at, level, title.trim()))
    })
}

/// The anchor of a heading.
pub fn slug(title: &str) -> String {
    let kept = title.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// The first word of the first code span in a cell: of ``[`CL.TAKE key`](..)``,
/// `CL.TAKE`.
pub fn code(cell: &str) -> String {
    let code = cell.split('`').nth(1).unwrap_or_else(|| panic!("no code in {cell:?}"));
    code.split(' ').next().unwrap().trim_matches('"').to_owned()
}

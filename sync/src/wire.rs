//! Commands as bytes, and texts of others made fit to be shown.

use std::io::Write;

/// Longest text of an error that is kept, in characters.
const MAX_TEXT: usize = 200;

/// Begins a command of `words` words.
pub(crate) fn begin(out: &mut Vec<u8>, words: usize) {
    // Writing to a vector cannot fail.
    let _ = write!(out, "*{words}\r\n");
}

/// Adds a word to the command begun.
pub(crate) fn word(out: &mut Vec<u8>, word: &[u8]) {
    let _ = write!(out, "${}\r\n", word.len());
    out.extend_from_slice(word);
    out.extend_from_slice(b"\r\n");
}

/// Adds a whole command.
pub(crate) fn command<W: AsRef<[u8]>>(out: &mut Vec<u8>, words: &[W]) {
    begin(out, words.len());
    for one in words {
        word(out, one.as_ref());
    }
}

/// A text that came from elsewhere, as one line of bounded length.
pub(crate) fn one_line(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let mut line: String = text.trim().chars().map(clean).take(MAX_TEXT).collect();
    if text.trim().chars().nth(MAX_TEXT).is_some() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_arrays_of_bulk_strings() {
        let mut out = Vec::new();
        command(&mut out, &[b"AUTH".as_slice(), b"", b"a\r\nb"]);
        assert_eq!(out, b"*3\r\n$4\r\nAUTH\r\n$0\r\n\r\n$4\r\na\r\nb\r\n");
    }

    #[test]
    fn texts_become_one_short_line() {
        assert_eq!(one_line(" ERR a\r\nb\tc\u{7}d \n"), "ERR a  b c d");
        assert_eq!(one_line(&"é".repeat(200)).chars().count(), 200);
        let long = one_line(&"é".repeat(201));
        assert_eq!((long.chars().count(), long.ends_with('…')), (201, true));
    }
}

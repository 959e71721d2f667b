//! Commands as bytes, and texts of others made fit to be shown.

/// Longest text of an error that is kept, in characters.
const MAX_TEXT: usize = 200;

/// Begins a command of `words` words.
pub(crate) fn begin(out: &mut Vec<u8>, words: usize) {
    header(out, b'*', words);
}

/// Adds a word to the command begun.
pub(crate) fn word(out: &mut Vec<u8>, word: &[u8]) {
    header(out, b'$', word.len());
    out.extend_from_slice(word);
    out.extend_from_slice(b"\r\n");
}

/// A letter and a number. The standard library's formatting takes most of the time
/// that writing a state does.
fn header(out: &mut Vec<u8>, letter: u8, number: usize) {
    let mut digits = [0_u8; 20];
    let mut rest = number;
    let mut used = 0_usize;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' | u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
        used = used.saturating_add(1);
        if rest == 0 {
            break;
        }
    }
    out.push(letter);
    out.extend(digits.iter().skip(digits.len().saturating_sub(used)));
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
    fn numbers_are_decimal() {
        for number in [0, 9, 10, 4_096, 1_000_000_007, usize::MAX] {
            let mut out = Vec::new();
            begin(&mut out, number);
            assert_eq!(String::from_utf8(out), Ok(format!("*{number}\r\n")));
        }
    }

    #[test]
    fn texts_become_one_short_line() {
        assert_eq!(one_line(" ERR a\r\nb\tc\u{7}d \n"), "ERR a  b c d");
        assert_eq!(one_line(&"é".repeat(200)).chars().count(), 200);
        let long = one_line(&"é".repeat(201));
        assert_eq!((long.chars().count(), long.ends_with('…')), (201, true));
    }
}

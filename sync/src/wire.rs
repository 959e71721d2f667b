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

/// Bytes that are no reply.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoReply;

impl std::fmt::Display for NoReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("it is not RESP2")
    }
}

/// How many bytes the first reply in `bytes` has; `None` when there is more to come.
pub(crate) fn reply_len(bytes: &[u8]) -> Result<Option<usize>, NoReply> {
    let mut rest = bytes;
    // How many values have to follow, those in arrays counted one by one.
    let mut values = 1_u64;
    while values > 0 {
        let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") else {
            return Ok(None);
        };
        let (line, after) = rest.split_at_checked(end).ok_or(NoReply)?;
        rest = after.get(2..).ok_or(NoReply)?;
        values = values.saturating_sub(1);
        let (kind, text) = line.split_first().ok_or(NoReply)?;
        let count = || std::str::from_utf8(text).ok()?.parse::<i64>().ok();
        match kind {
            b'+' | b'-' | b':' => {}
            b'*' => {
                let more = u64::try_from(count().ok_or(NoReply)?).unwrap_or(0);
                values = values.saturating_add(more);
            }
            b'$' => {
                // Below 0 there is no string.
                if let Ok(len) = usize::try_from(count().ok_or(NoReply)?) {
                    match rest.get(len.saturating_add(2)..) {
                        Some(after) => rest = after,
                        None => return Ok(None),
                    }
                }
            }
            _ => return Err(NoReply),
        }
    }
    Ok(Some(bytes.len().saturating_sub(rest.len())))
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

    #[test]
    fn a_reply_ends_where_its_last_value_does() {
        let whole = [
            "+OK\r\n",
            "-ERR what\r\n",
            ":-5\r\n",
            "$-1\r\n",
            "*-1\r\n",
            "*0\r\n",
            "$0\r\n\r\n",
            "$4\r\n\r\n\r\n\r\n",
            "*3\r\n:1\r\n:1000\r\n:998\r\n",
            "*2\r\n*2\r\n$1\r\na\r\n$-1\r\n*1\r\n*0\r\n",
        ];
        for reply in whole {
            let followed = format!("{reply}+next\r\n");
            assert_eq!(reply_len(followed.as_bytes()), Ok(Some(reply.len())), "{reply:?}");
            for end in 0..reply.len() {
                let part = reply.as_bytes().get(..end).unwrap_or_default();
                assert_eq!(reply_len(part), Ok(None), "{reply:?} cut at {end}");
            }
            assert!(redis::parse_redis_value(reply.as_bytes()).is_ok(), "{reply:?}");
        }
    }

    #[test]
    fn what_is_no_reply_is_told_at_once() {
        for text in
            ["\r\n", "hello\r\n", "$x\r\n", "*\r\n", "*1\r\n%1\r\n", "$99999999999999999999\r\n"]
        {
            assert_eq!(reply_len(text.as_bytes()), Err(NoReply), "{text:?}");
        }
        // Never complete, and bounded by whoever reads.
        let endless = format!("*{}\r\n", i64::MAX);
        assert_eq!(reply_len(endless.as_bytes()), Ok(None));
        assert_eq!(reply_len(format!("${}\r\n", i64::MAX).as_bytes()), Ok(None));
    }
}

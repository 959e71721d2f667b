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

/// Longest line of a reply: one of that length may be looked at for every byte that
/// comes.
const MAX_LINE: usize = 1 << 14;

/// Looks where a reply ends, once for all that has come of it.
#[derive(Debug)]
pub(crate) struct Scan {
    /// How far it is known.
    at: usize,
    /// How many values have to follow, those in arrays counted one by one.
    values: u64,
}

impl Scan {
    /// Of a reply of which nothing has come yet.
    pub fn new() -> Self {
        Self { at: 0, values: 1 }
    }

    /// How many bytes the reply has at the start of `bytes`, which are those of the
    /// last call and more; `None` when there is more to come.
    pub fn len(&mut self, bytes: &[u8]) -> Result<Option<usize>, NoReply> {
        while self.values > 0 {
            let rest = bytes.get(self.at..).unwrap_or_default();
            let line = rest.get(..MAX_LINE).unwrap_or(rest);
            let Some(end) = line.windows(2).position(|pair| pair == b"\r\n") else {
                return if line.len() < MAX_LINE { Ok(None) } else { Err(NoReply) };
            };
            let (kind, text) = line.get(..end).and_then(<[u8]>::split_first).ok_or(NoReply)?;
            let count = || std::str::from_utf8(text).ok()?.parse::<i64>().ok();
            let (mut more, mut length) = (0, end.saturating_add(2));
            match kind {
                b'+' | b'-' | b':' => {}
                b'*' => more = u64::try_from(count().ok_or(NoReply)?).unwrap_or(0),
                b'$' => {
                    // Below 0 there is no string.
                    if let Ok(len) = usize::try_from(count().ok_or(NoReply)?) {
                        length = length.saturating_add(len).saturating_add(2);
                        if rest.len() < length {
                            return Ok(None);
                        }
                    }
                }
                _ => return Err(NoReply),
            }
            self.at = self.at.saturating_add(length);
            self.values = self.values.saturating_sub(1).saturating_add(more);
        }
        Ok(Some(self.at))
    }
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

    fn reply_len(bytes: &[u8]) -> Result<Option<usize>, NoReply> {
        Scan::new().len(bytes)
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
            let mut scan = Scan::new();
            for end in 0..reply.len() {
                let part = reply.as_bytes().get(..end).unwrap_or_default();
                assert_eq!(reply_len(part), Ok(None), "{reply:?} cut at {end}");
                assert_eq!(scan.len(part), Ok(None), "{reply:?} up to {end}");
            }
            assert_eq!(scan.len(followed.as_bytes()), Ok(Some(reply.len())), "{reply:?} by bytes");
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
        let long = "a".repeat(MAX_LINE);
        assert_eq!(reply_len(format!("+{long}").as_bytes()), Err(NoReply));
        // Never complete, and bounded by whoever reads.
        let endless = format!("*{}\r\n", i64::MAX);
        assert_eq!(reply_len(endless.as_bytes()), Ok(None));
        assert_eq!(reply_len(format!("${}\r\n", i64::MAX).as_bytes()), Ok(None));
    }
}

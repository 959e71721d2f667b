//! Records as the outbox and the hashes of users have them. They are handed on as they are: the
//! function that applies them also checks them.

/// The stream of what was rated and forgotten in a region.
pub const OUTBOX: &str = "{ratings}:outbox";

/// An entry of a stream: its id, and fields and values in turn.
pub type Entry = (String, Vec<Vec<u8>>);

/// User, item, millionths, stamp, region.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Raw(pub [Vec<u8>; 5]);

impl Raw {
    /// What an entry of an outbox says. What it lacks is empty, and will be refused.
    #[must_use]
    pub fn of_entry(fields: &[Vec<u8>]) -> Self {
        let value = |name: &str| {
            let mut pairs = fields.chunks_exact(2);
            let pair = pairs.find(|pair| pair.first().is_some_and(|it| it == name.as_bytes()));
            pair.and_then(|pair| pair.get(1)).cloned().unwrap_or_default()
        };
        Self(["user", "item", "rating", "stamp", "region"].map(value))
    }

    /// What a field of a user's hash says: `millionths stamp region`, or without an item
    /// `stamp region`. What cannot be read so is left empty, and will be refused.
    #[must_use]
    pub fn of_field(user: &[u8], item: &[u8], value: &[u8]) -> Self {
        let words: Vec<&[u8]> = value.split(|byte| *byte == b' ').collect();
        let [micros, stamp, region]: [&[u8]; 3] = match (item, words.as_slice()) {
            ([], [stamp, region]) => [b"", stamp, region],
            ([_, ..], [micros, stamp, region]) => [micros, stamp, region],
            _ => [b""; 3],
        };
        Self([user, item, micros, stamp, region].map(<[u8]>::to_vec))
    }

    /// When it was made, in microseconds since 1970; 0 when that cannot be read.
    #[must_use]
    pub fn stamp(&self) -> u64 {
        let [_, _, _, stamp, _] = &self.0;
        std::str::from_utf8(stamp).ok().and_then(|stamp| stamp.parse().ok()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(words: [&str; 5]) -> Raw {
        Raw(words.map(|word| word.as_bytes().to_vec()))
    }

    #[test]
    fn records_of_hashes() {
        for (item, value, record) in [
            ("tea", "4500000 17 eu", ["ann", "tea", "4500000", "17", "eu"]),
            ("", "17 eu", ["ann", "", "", "17", "eu"]),
            // Whatever is not understood has no stamp.
            ("tea", "17 eu", ["ann", "tea", "", "", ""]),
            ("", "1 17 eu", ["ann", "", "", "", ""]),
            ("tea", "", ["ann", "tea", "", "", ""]),
        ] {
            let read = Raw::of_field(b"ann", item.as_bytes(), value.as_bytes());
            assert_eq!(read, raw(record), "{item} {value}");
        }
    }

    #[test]
    fn records_of_outboxes() {
        let fields = |text: &str| -> Vec<Vec<u8>> {
            text.split(' ').map(|word| word.as_bytes().to_vec()).collect()
        };
        let read = Raw::of_entry(&fields("region eu user ann stamp 17 item tea rating 1"));
        assert_eq!((read.stamp(), read), (17, raw(["ann", "tea", "1", "17", "eu"])));
        let read = Raw::of_entry(&fields("user ann other item stamp"));
        assert_eq!((read.stamp(), read), (0, raw(["ann", "", "", "", ""])));
    }
}

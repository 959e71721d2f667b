//! What is told: an entry of the outbox, as a body for a webhook or as a line to read.

use claw_core::decimal::Decimal;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;

/// A user has rated an item, or is forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The entry of the stream that it comes from.
    pub id: String,
    /// Whether that is the one of those that are to be tried again.
    pub is_again: bool,
    /// Who.
    pub user: String,
    /// What was rated, with how many millionths; nothing when the user is forgotten.
    pub rating: Option<(String, u64)>,
    /// When, in microseconds since 1970.
    pub stamp: u64,
    /// Where.
    pub region: String,
}

/// The body of a request to a webhook.
#[derive(Serialize)]
struct Body<'a> {
    r#type: &'static str,
    timestamp: String,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    user_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    item_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rating: Option<Box<RawValue>>,
    stamp: u64,
    region: &'a str,
}

impl Event {
    /// What the fields of an entry say; nothing if they cannot be understood.
    #[must_use]
    pub fn read(id: String, is_again: bool, fields: &[Vec<u8>]) -> Option<Self> {
        let value = |name| value(fields, name);
        let rating = match value("item")? {
            "" => None,
            item => Some((item.to_owned(), value("rating")?.parse().ok()?)),
        };
        Some(Self {
            id,
            is_again,
            user: value("user")?.to_owned(),
            rating,
            stamp: value("stamp")?.parse().ok()?,
            region: value("region")?.to_owned(),
        })
    }

    /// Names it to whoever is told of it more than once: no other one of any region has it.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}-{}", self.region, self.stamp)
    }

    /// As JSON, by the Standard Webhooks.
    ///
    /// # Errors
    /// When it cannot be written so, which is a mistake of this program.
    pub fn json(&self) -> Result<String, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let stamp = i64::try_from(self.stamp).map_err(|error| text(&error))?;
        let number = |micros: u64| RawValue::from_string(Decimal::new(micros).to_string());
        let rating = self.rating.as_ref().map(|(_, micros)| number(*micros)).transpose();
        let body = Body {
            r#type: if self.rating.is_some() { "rating.stored" } else { "user.forgotten" },
            timestamp: Timestamp::from_microsecond(stamp)
                .map_err(|error| text(&error))?
                .to_string(),
            data: Data {
                user_id: &self.user,
                item_id: self.rating.as_ref().map(|(item, _)| item.as_str()),
                rating: rating.map_err(|error| text(&error))?,
                stamp: self.stamp,
                region: &self.region,
            },
        };
        serde_json::to_string(&body).map_err(|error| text(&error))
    }

    /// In words.
    #[must_use]
    pub fn words(&self) -> String {
        match &self.rating {
            Some((item, micros)) => {
                format!("{} has rated {item}: {}", self.user, Decimal::new(*micros))
            }
            None => format!("{} is forgotten", self.user),
        }
    }

    /// The fields of its entry, as they were.
    #[must_use]
    pub fn fields(&self) -> [(&'static str, String); 5] {
        let (item, micros) = match &self.rating {
            Some((item, micros)) => (item.clone(), micros.to_string()),
            None => Default::default(),
        };
        [
            ("user", self.user.clone()),
            ("item", item),
            ("rating", micros),
            ("stamp", self.stamp.to_string()),
            ("region", self.region.clone()),
        ]
    }
}

/// The value of a field, among fields and values in turn.
#[must_use]
pub fn value<'a>(fields: &'a [Vec<u8>], name: &str) -> Option<&'a str> {
    let mut pairs = fields.chunks_exact(2);
    let pair = pairs.find(|pair| pair.first().is_some_and(|field| field == name.as_bytes()))?;
    std::str::from_utf8(pair.get(1)?).ok()
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn entries_as_they_are_told() {
        let stamp = "1764277200000001";
        for (item, rating, json, words) in [
            (
                "te\"a",
                "4500000",
                r#"{"type":"rating.stored","timestamp":"2025-11-27T21:00:00.000001Z","data":{"user_id":"ann","item_id":"te\"a","rating":4.5,"stamp":1764277200000001,"region":"eu"}}"#,
                "ann has rated te\"a: 4.5",
            ),
            (
                "",
                "",
                r#"{"type":"user.forgotten","timestamp":"2025-11-27T21:00:00.000001Z","data":{"user_id":"ann","stamp":1764277200000001,"region":"eu"}}"#,
                "ann is forgotten",
            ),
        ] {
            let words_of =
                ["user", "ann", "item", item, "rating", rating, "stamp", stamp, "region", "eu"];
            let fields: Vec<Vec<u8>> =
                words_of.iter().map(|word| word.as_bytes().to_vec()).collect();
            let event = Event::read("1-0".to_owned(), false, &fields).unwrap();
            assert_eq!(event.json().unwrap(), json);
            assert_eq!(event.words(), words);
            assert_eq!(event.key(), "eu-1764277200000001");
            let again: Vec<Vec<u8>> = event
                .fields()
                .into_iter()
                .flat_map(|(name, value)| [name.as_bytes().to_vec(), value.into_bytes()])
                .collect();
            assert_eq!(again, fields);
            for missing in (0..10).step_by(2) {
                let mut fields = fields.clone();
                fields.drain(missing..missing + 2);
                let is_needed = !item.is_empty() || words_of[missing] != "rating";
                let read = Event::read("1-0".to_owned(), false, &fields);
                assert_eq!(read.is_none(), is_needed, "{}", words_of[missing]);
            }
        }
    }
}

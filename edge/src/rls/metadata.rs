//! What Envoy's other filters may read: the request as it was asked, and the metadata of the
//! limits that passed.

use std::collections::BTreeMap;

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};

use super::reply::{self, Asked};
use crate::proto::{Code, DescriptorStatus, RateLimitDescriptor, RateLimitRequest};

/// The metadata of a response.
pub(super) fn of(
    request: &RateLimitRequest,
    asked: &[Asked],
    statuses: &[DescriptorStatus],
) -> Struct {
    let mut fields = BTreeMap::new();
    fields.insert("domain".to_owned(), text(request.domain.clone()));
    fields.insert("descriptors".to_owned(), list(request.descriptors.iter().map(descriptor)));
    if request.hits_addend != 0 {
        fields.insert("hitsAddend".to_owned(), number(u64::from(request.hits_addend)));
    }
    let mut passed = Struct::default();
    for (one, status) in asked.iter().zip(statuses) {
        if let Some(metadata) = one.leaf().and_then(|leaf| leaf.metadata.as_ref())
            && status.code() == Code::Ok
        {
            merge(&mut passed, metadata);
        }
    }
    if !passed.fields.is_empty() {
        fields.insert("metadata".to_owned(), structure(passed));
    }
    Struct { fields }
}

fn descriptor(descriptor: &RateLimitDescriptor) -> Value {
    let entries =
        descriptor.entries.iter().map(|entry| text(format!("{}={}", entry.key, entry.value)));
    let mut fields = BTreeMap::from([("entries".to_owned(), list(entries))]);
    if let Some(limit) = &descriptor.limit {
        let limit = reply::text(limit.requests_per_unit, limit.unit());
        fields.insert("limit".to_owned(), text(limit));
    }
    if let Some(hits) = descriptor.hits_addend {
        fields.insert("hitsAddend".to_owned(), number(hits));
    }
    structure(Struct { fields })
}

/// Adds what is not there yet. Of two maps, what each has alone.
fn merge(into: &mut Struct, from: &Struct) {
    for (name, value) in &from.fields {
        match into.fields.get_mut(name) {
            None => {
                into.fields.insert(name.clone(), value.clone());
            }
            Some(Value { kind: Some(Kind::StructValue(into)) }) => {
                if let Some(Kind::StructValue(from)) = &value.kind {
                    merge(into, from);
                }
            }
            Some(_) => {}
        }
    }
}

fn text(text: String) -> Value {
    Value { kind: Some(Kind::StringValue(text)) }
}

/// A number as the messages have it: those beyond 2^53 lose digits there.
#[allow(clippy::cast_precision_loss)]
fn number(number: u64) -> Value {
    Value { kind: Some(Kind::NumberValue(number as _)) }
}

fn list(values: impl Iterator<Item = Value>) -> Value {
    Value { kind: Some(Kind::ListValue(ListValue { values: values.collect() })) }
}

fn structure(structure: Struct) -> Value {
    Value { kind: Some(Kind::StructValue(structure)) }
}

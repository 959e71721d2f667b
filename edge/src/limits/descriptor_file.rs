//! The configuration files of `envoyproxy/ratelimit`, read as they are.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use serde::Deserialize;
use serde_json::Value as Json;
use serde_saphyr::Spanned;

use super::descriptors::{Domain, End, Leaf, Node, Wildcard, policy};
use super::mistake::{self, Mistake};
use super::{Limit, Limits};
use crate::config::Config;
use crate::proto::{RateLimit, Unit};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    domain: Option<Spanned<String>>,
    descriptors: Option<Vec<Spanned<Descriptor>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Descriptor {
    key: Option<String>,
    value: Option<String>,
    rate_limit: Option<Spanned<Rate>>,
    descriptors: Option<Vec<Spanned<Descriptor>>>,
    shadow_mode: Option<bool>,
    quota_mode: Option<bool>,
    detailed_metric: Option<bool>,
    value_to_metric: Option<bool>,
    share_threshold: Option<bool>,
    metadata: Option<serde_json::Map<String, Json>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rate {
    unit: Option<String>,
    requests_per_unit: Option<u32>,
    unlimited: Option<bool>,
    name: Option<String>,
    replaces: Option<Vec<Spanned<Replaced>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Replaced {
    name: Option<String>,
}

/// The domains of some files.
#[derive(Debug)]
pub(super) struct Domains<'a> {
    config: &'a Config,
    domains: HashMap<String, (Domain, PathBuf)>,
}

impl<'a> Domains<'a> {
    pub(super) fn new(config: &'a Config) -> Self {
        Self { config, domains: HashMap::new() }
    }

    /// Adds what a file says.
    pub(super) fn add(&mut self, file: &Path, text: &str) -> Result<(), Mistake> {
        let read: File = mistake::read(file, text)?;
        let Some(name) = read.domain.filter(|name| !name.value.is_empty()) else {
            return Err(Mistake::of_file(file, "the file names no domain"));
        };
        let (name, place) = (name.value, name.referenced);
        let domain = match self.domains.get_mut(&name) {
            Some((domain, _)) if self.config.merge_domain_config => domain,
            Some((_, first)) => {
                let text = format!(
                    "domain '{name}' is in {} too: one file for each domain, unless MERGE_DOMAIN_CONFIG is true",
                    first.display()
                );
                return Err(Mistake::at(file, place, text));
            }
            None => {
                let domain = Domain::new(&name, &self.config.key_prefix, self.config.quota_mode);
                let entry = self.domains.entry(name.clone());
                &mut entry.or_insert((domain, file.to_owned())).0
            }
        };
        let reader = Reader { file, all_quota: self.config.quota_mode };
        reader.add(&mut domain.root, &name, read.descriptors.unwrap_or_default())
    }

    /// Makes them part of `limits`.
    pub(super) fn into_limits(self, limits: &mut Limits) {
        let domains = self.domains.into_iter();
        limits.domains = domains.map(|(name, (domain, _))| (name, domain)).collect();
    }
}

struct Reader<'a> {
    file: &'a Path,
    all_quota: bool,
}

impl Reader<'_> {
    /// Adds what is below `parent`, whose path is `path`.
    fn add(
        &self,
        parent: &mut Node,
        path: &str,
        descriptors: Vec<Spanned<Descriptor>>,
    ) -> Result<(), Mistake> {
        for spanned in descriptors {
            let place = spanned.referenced;
            let wrong = |text: String| Err(Mistake::at(self.file, place, text));
            let mut descriptor = spanned.value;
            let key = descriptor.key.take().unwrap_or_default();
            if key.is_empty() {
                return wrong("a descriptor has no key".to_owned());
            }
            let name = match descriptor.value.take().unwrap_or_default().as_str() {
                "" => key,
                value => key + "_" + value,
            };
            let path = format!("{path}.{name}");
            if parent.children.contains_key(&name) {
                return wrong(format!("descriptor '{path}' is there twice"));
            }
            let wildcard = Wildcard::new(&name);
            let share_threshold = descriptor.share_threshold.unwrap_or(false);
            if share_threshold && wildcard.is_none() {
                return wrong(format!(
                    "share_threshold needs a '*' in the value: '{path}' has none"
                ));
            }
            let below = descriptor.descriptors.take();
            let mut node = Node {
                value_to_metric: descriptor.value_to_metric.unwrap_or(false),
                share_threshold,
                end: self.end(&path, descriptor)?,
                ..Node::default()
            };
            self.add(&mut node, &path, below.unwrap_or_default())?;
            parent.wildcards.extend(wildcard);
            parent.children.insert(name, node);
        }
        Ok(())
    }

    /// The limit of a descriptor.
    fn end(&self, path: &str, descriptor: Descriptor) -> Result<Option<End>, Mistake> {
        let Some(rate) = descriptor.rate_limit else { return Ok(None) };
        let place = rate.referenced;
        let wrong = |text: String| Mistake::at(self.file, place, text);
        let rate = rate.value;
        let name = rate.name.unwrap_or_default();
        let replaces = self.replaces(&name, rate.replaces.unwrap_or_default())?;
        let unit = rate.unit.unwrap_or_default();
        if rate.unlimited.unwrap_or(false) {
            return match Unit::named(&unit) {
                Some(_) => Err(wrong(format!("'{path}' is unlimited: it can have no unit"))),
                None => Ok(Some(End::Unlimited(replaces))),
            };
        }
        let requests_per_unit = rate.requests_per_unit.unwrap_or(0);
        let Some((unit, policy)) =
            Unit::named(&unit).and_then(|unit| Some((unit, policy(requests_per_unit, unit)?)))
        else {
            let units = "second, minute, hour, day, week, month, year";
            return Err(wrong(format!("'{unit}' is no unit of a rate limit: {units}")));
        };
        let mut leaf = Leaf::new(
            Limit::new(path.to_owned(), policy, Vec::new()),
            RateLimit { requests_per_unit, unit: unit.into(), name },
            descriptor.shadow_mode.unwrap_or(false),
            self.all_quota || descriptor.quota_mode.unwrap_or(false),
        );
        leaf.replaces = replaces;
        leaf.is_detailed = descriptor.detailed_metric.unwrap_or(false);
        leaf.metadata = descriptor.metadata.filter(|map| !map.is_empty()).map(structure);
        Ok(Some(End::Leaf(Arc::new(leaf))))
    }

    fn replaces(
        &self,
        name: &str,
        replaced: Vec<Spanned<Replaced>>,
    ) -> Result<Vec<String>, Mistake> {
        let mut names = Vec::new();
        for one in replaced {
            let wrong = |text: &str| Mistake::about(self.file, &one, text);
            let other = one.value.name.clone().unwrap_or_default();
            if other.is_empty() {
                return Err(wrong("replaces needs the name of a limit"));
            }
            if other == name {
                return Err(wrong("a limit cannot replace itself"));
            }
            names.push(other);
        }
        Ok(names)
    }
}

/// A map of a file as Envoy reads it.
fn structure(map: serde_json::Map<String, Json>) -> Struct {
    Struct { fields: map.into_iter().map(|(name, json)| (name, value(json))).collect() }
}

fn value(json: Json) -> Value {
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(flag) => Kind::BoolValue(flag),
        // A number that no such type holds is not one of YAML's.
        Json::Number(number) => number.as_f64().map_or(Kind::NullValue(0), Kind::NumberValue),
        Json::String(text) => Kind::StringValue(text),
        Json::Array(values) => {
            Kind::ListValue(ListValue { values: values.into_iter().map(value).collect() })
        }
        Json::Object(map) => Kind::StructValue(structure(map)),
    };
    Value { kind: Some(kind) }
}

//! What `grpcurl` and its like are told of the service: the messages of [`crate::proto`] as
//! Envoy's files have them, written as tables.

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto,
    FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto, ServiceDescriptorProto,
};

/// A message: its name, and name, tag and type of its fields. A type that begins with a `.` is
/// a message, one that begins with `enum .` an enumeration; `[]` after it means any number.
type Row = (&'static str, &'static [(&'static str, i32, &'static str)]);

/// Units of time, with the numbers of [`crate::proto::Unit`].
const UNITS: &[&str] = &["UNKNOWN", "SECOND", "MINUTE", "HOUR", "DAY", "MONTH", "YEAR", "WEEK"];

/// The files, each before those that use it.
#[must_use]
pub fn files() -> FileDescriptorSet {
    let duration = file(
        "google/protobuf/duration.proto",
        "google.protobuf",
        &[],
        &[("Duration", &[("seconds", 1, "int64"), ("nanos", 2, "int32")])],
    );
    let wrappers = file(
        "google/protobuf/wrappers.proto",
        "google.protobuf",
        &[],
        &[("UInt64Value", &[("value", 1, "uint64")])],
    );
    let mut rate_limit_unit = file("envoy/type/v3/ratelimit_unit.proto", "envoy.type.v3", &[], &[]);
    rate_limit_unit.enum_type.push(enumeration("RateLimitUnit", UNITS));
    let base = file(
        "envoy/config/core/v3/base.proto",
        "envoy.config.core.v3",
        &[],
        &[("HeaderValue", &[("key", 1, "string"), ("value", 2, "string")])],
    );
    let descriptors = file(
        "envoy/extensions/common/ratelimit/v3/ratelimit.proto",
        "envoy.extensions.common.ratelimit.v3",
        &[&rate_limit_unit, &wrappers],
        &[
            (
                "RateLimitDescriptor",
                &[
                    (
                        "entries",
                        1,
                        ".envoy.extensions.common.ratelimit.v3.RateLimitDescriptor.Entry[]",
                    ),
                    (
                        "limit",
                        2,
                        ".envoy.extensions.common.ratelimit.v3.RateLimitDescriptor.RateLimitOverride",
                    ),
                    ("hits_addend", 3, ".google.protobuf.UInt64Value"),
                    ("is_negative_hits", 4, "bool"),
                ],
            ),
            ("RateLimitDescriptor.Entry", &[("key", 1, "string"), ("value", 2, "string")]),
            (
                "RateLimitDescriptor.RateLimitOverride",
                &[
                    ("requests_per_unit", 1, "uint32"),
                    ("unit", 2, "enum .envoy.type.v3.RateLimitUnit"),
                ],
            ),
        ],
    );
    let structure = structure();
    let mut service = file(
        "envoy/service/ratelimit/v3/rls.proto",
        "envoy.service.ratelimit.v3",
        &[&base, &descriptors, &duration, &structure],
        &[
            (
                "RateLimitRequest",
                &[
                    ("domain", 1, "string"),
                    (
                        "descriptors",
                        2,
                        ".envoy.extensions.common.ratelimit.v3.RateLimitDescriptor[]",
                    ),
                    ("hits_addend", 3, "uint32"),
                ],
            ),
            (
                "RateLimitResponse",
                &[
                    ("overall_code", 1, "enum .envoy.service.ratelimit.v3.RateLimitResponse.Code"),
                    (
                        "statuses",
                        2,
                        ".envoy.service.ratelimit.v3.RateLimitResponse.DescriptorStatus[]",
                    ),
                    ("response_headers_to_add", 3, ".envoy.config.core.v3.HeaderValue[]"),
                    ("dynamic_metadata", 6, ".google.protobuf.Struct"),
                ],
            ),
            (
                "RateLimitResponse.RateLimit",
                &[
                    ("requests_per_unit", 1, "uint32"),
                    (
                        "unit",
                        2,
                        "enum .envoy.service.ratelimit.v3.RateLimitResponse.RateLimit.Unit",
                    ),
                    ("name", 3, "string"),
                ],
            ),
            (
                "RateLimitResponse.DescriptorStatus",
                &[
                    ("code", 1, "enum .envoy.service.ratelimit.v3.RateLimitResponse.Code"),
                    ("current_limit", 2, ".envoy.service.ratelimit.v3.RateLimitResponse.RateLimit"),
                    ("limit_remaining", 3, "uint32"),
                    ("duration_until_reset", 4, ".google.protobuf.Duration"),
                ],
            ),
        ],
    );
    for message in &mut service.message_type {
        if message.name() == "RateLimitResponse" {
            message.enum_type.push(enumeration("Code", &["UNKNOWN", "OK", "OVER_LIMIT"]));
            for nested in &mut message.nested_type {
                if nested.name() == "RateLimit" {
                    nested.enum_type.push(enumeration("Unit", UNITS));
                }
            }
        }
    }
    service.service.push(ServiceDescriptorProto {
        name: Some("RateLimitService".to_owned()),
        method: vec![MethodDescriptorProto {
            name: Some("ShouldRateLimit".to_owned()),
            input_type: Some(".envoy.service.ratelimit.v3.RateLimitRequest".to_owned()),
            output_type: Some(".envoy.service.ratelimit.v3.RateLimitResponse".to_owned()),
            ..MethodDescriptorProto::default()
        }],
        options: None,
    });
    FileDescriptorSet {
        file: vec![duration, wrappers, structure, rate_limit_unit, base, descriptors, service],
    }
}

/// `google/protobuf/struct.proto`, whose values are one of several kinds.
fn structure() -> FileDescriptorProto {
    let mut file = file(
        "google/protobuf/struct.proto",
        "google.protobuf",
        &[],
        &[
            ("Struct", &[("fields", 1, ".google.protobuf.Struct.FieldsEntry[]")]),
            ("Struct.FieldsEntry", &[("key", 1, "string"), ("value", 2, ".google.protobuf.Value")]),
            (
                "Value",
                &[
                    ("null_value", 1, "enum .google.protobuf.NullValue"),
                    ("number_value", 2, "double"),
                    ("string_value", 3, "string"),
                    ("bool_value", 4, "bool"),
                    ("struct_value", 5, ".google.protobuf.Struct"),
                    ("list_value", 6, ".google.protobuf.ListValue"),
                ],
            ),
            ("ListValue", &[("values", 1, ".google.protobuf.Value[]")]),
        ],
    );
    file.enum_type.push(enumeration("NullValue", &["NULL_VALUE"]));
    for message in &mut file.message_type {
        for nested in &mut message.nested_type {
            nested.options =
                Some(prost_types::MessageOptions { map_entry: Some(true), ..Default::default() });
        }
        if message.name() == "Value" {
            message.oneof_decl.push(prost_types::OneofDescriptorProto {
                name: Some("kind".to_owned()),
                options: None,
            });
            for field in &mut message.field {
                field.oneof_index = Some(0);
            }
        }
    }
    file
}

fn file(
    name: &str,
    package: &str,
    uses: &[&FileDescriptorProto],
    rows: &[Row],
) -> FileDescriptorProto {
    let mut messages: Vec<DescriptorProto> = Vec::new();
    for (name, fields) in rows {
        let message = |name: &str| DescriptorProto {
            name: Some(name.to_owned()),
            field: fields.iter().map(|(name, tag, kind)| field(name, *tag, kind)).collect(),
            ..DescriptorProto::default()
        };
        match name.split_once('.') {
            None => messages.push(message(name)),
            Some((outer, inner)) => {
                let outer = messages.iter_mut().find(|message| message.name() == outer);
                debug_assert!(outer.is_some(), "{name} stands after what it is in");
                outer.into_iter().for_each(|outer| outer.nested_type.push(message(inner)));
            }
        }
    }
    FileDescriptorProto {
        name: Some(name.to_owned()),
        package: Some(package.to_owned()),
        dependency: uses.iter().map(|file| file.name().to_owned()).collect(),
        message_type: messages,
        syntax: Some("proto3".to_owned()),
        ..FileDescriptorProto::default()
    }
}

fn field(name: &str, tag: i32, kind: &str) -> FieldDescriptorProto {
    let (kind, label) = match kind.strip_suffix("[]") {
        Some(kind) => (kind, Label::Repeated),
        None => (kind, Label::Optional),
    };
    let (kind, named) = match kind {
        "string" => (Type::String, None),
        "bool" => (Type::Bool, None),
        "double" => (Type::Double, None),
        "int32" => (Type::Int32, None),
        "int64" => (Type::Int64, None),
        "uint32" => (Type::Uint32, None),
        "uint64" => (Type::Uint64, None),
        kind => match kind.strip_prefix("enum ") {
            Some(name) => (Type::Enum, Some(name)),
            None => (Type::Message, Some(kind)),
        },
    };
    FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(tag),
        label: Some(label.into()),
        r#type: Some(kind.into()),
        type_name: named.map(str::to_owned),
        ..FieldDescriptorProto::default()
    }
}

/// An enumeration whose values count from 0.
fn enumeration(name: &str, values: &[&str]) -> EnumDescriptorProto {
    EnumDescriptorProto {
        name: Some(name.to_owned()),
        value: (0..)
            .zip(values)
            .map(|(number, value)| EnumValueDescriptorProto {
                name: Some((*value).to_owned()),
                number: Some(number),
                options: None,
            })
            .collect(),
        ..EnumDescriptorProto::default()
    }
}

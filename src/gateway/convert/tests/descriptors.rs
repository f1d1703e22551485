//! Whether a field path exists in a message, by the descriptors of the API.

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};
use std::collections::BTreeMap;
use std::sync::LazyLock;

use crate::proto::DESCRIPTORS;

/// All messages by their full names.
static MESSAGES: LazyLock<BTreeMap<String, DescriptorProto>> = LazyLock::new(|| {
    let files = FileDescriptorSet::decode(DESCRIPTORS).unwrap().file;
    let mut all = BTreeMap::new();
    for file in files {
        for message in file.message_type.clone() {
            add(&mut all, &format!(".{}", file.package()), message);
        }
    }
    all
});

fn add(all: &mut BTreeMap<String, DescriptorProto>, parent: &str, message: DescriptorProto) {
    let name = format!("{parent}.{}", message.name());
    for nested in message.nested_type.clone() {
        add(all, &name, nested);
    }
    all.insert(name, message);
}

/// Whether `path`, such as `sandbox.spec.containers[0].image`, is a field of `message`.
pub(super) fn has_field(message: &str, path: &str) -> bool {
    let (mut message, mut rest) = (format!(".coreweave.sandbox.v1.{message}"), path);
    loop {
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        let fields = MESSAGES.get(&message).map(|m| m.field.as_slice()).unwrap_or_default();
        let Some(field) = fields.iter().find(|f| f.name() == &rest[..end]) else {
            return false;
        };
        rest = &rest[end..];
        let is_item = rest.starts_with('[');
        if is_item {
            let Some((item, after)) = item(field, rest) else {
                return false;
            };
            (message, rest) = (item, after);
        } else {
            message = field.type_name().into();
        }
        match rest.strip_prefix('.') {
            // A list has no fields; its items do.
            Some(inner) if is_item || !is_repeated(field) => rest = inner,
            Some(_) => return false,
            None => return rest.is_empty(),
        }
    }
}

fn is_repeated(field: &FieldDescriptorProto) -> bool {
    field.label() == Label::Repeated
}

/// The type of an item of a list or map, and the path after the item.
fn item<'a>(field: &FieldDescriptorProto, path: &'a str) -> Option<(String, &'a str)> {
    let entry = MESSAGES
        .get(field.type_name())
        .filter(|m| m.options.as_ref().is_some_and(|o| o.map_entry()));
    if let Some(entry) = entry {
        let end = path.rfind("\"]")? + 2;
        let value = entry.field.iter().find(|f| f.name() == "value")?;
        return path
            .starts_with("[\"")
            .then(|| (value.type_name().to_owned(), &path[end..]));
    }
    let (index, after) = path[1..].split_once(']')?;
    (is_repeated(field) && index.parse::<usize>().is_ok()).then(|| {
        let type_name = if field.r#type() == Type::Message {
            field.type_name()
        } else {
            ""
        };
        (type_name.to_owned(), after)
    })
}

#[test]
fn only_fields_of_the_message_exist() {
    let create = |path: &str| has_field("CreateSandboxRequest", path);
    for path in [
        "request_id",
        "sandbox.spec",
        "sandbox.spec.containers[0].image",
        "sandbox.spec.containers[3].args[1]",
        "sandbox.spec.annotations[\"a.b/c]\"]",
        "sandbox.spec.network.egress[0].cidr.except[1]",
    ] {
        assert!(create(path), "{path}");
    }
    for path in [
        "",
        "request",
        "spec",
        "sandbox.spec.sandbox",
        "sandbox.spec.containers[].image",
        "sandbox.spec.containers[0].imag",
        "sandbox.spec.containers.image",
        "sandbox.spec.tags[0].x",
        "sandbox.spec.annotations[0]",
        "sandbox.spec.mode[0]",
        "sandbox.spec.",
    ] {
        assert!(!create(path), "{path}");
    }
}

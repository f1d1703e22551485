//! What admission checks beyond types and bounds: rules in CEL, each with a message that names the field. The API
//! server estimates the cost of a rule from the maximum lengths of the lists and strings in it, so all of them are
//! bounded.

use kube::core::Rule;
use schemars::Schema;
use serde_json::{Value, json};

use super::limits::MAX_EXEC_STRING;
use super::{RESERVED_DOMAINS, RESERVED_PREFIXES};
use crate::agent_contract::{DIRECTORY, FILES_DIRECTORY};

/// Most characters of a string of Kubernetes' own types, and most items of their lists and maps.
const MAX_TEXT: usize = 1024;
const MAX_ITEMS: usize = 64;

fn rule(cel: impl Into<String>, message: String) -> Rule {
    Rule::new(cel).message(message.as_str())
}

/// Not in the agent's directory, nor in that of the files that it copies.
fn outside_agent_directories() -> String {
    let outside = |folder: &str| format!("self != '{folder}' && !self.startsWith('{folder}/')");
    format!("{} && {}", outside(DIRECTORY), outside(FILES_DIRECTORY))
}

/// An absolute path outside the agent's directories, in normal form, so that paths can be compared.
pub(super) fn path(field: &str) -> Rule {
    rule(
        format!(
            "self.matches('^(/([^/:.]|[.][^/:.]|[.][.][^/:])[^/:]*)+$') && {}",
            outside_agent_directories()
        ),
        format!(
            "{field}: must be an absolute path without ':', '.', '..' and empty parts, not / and not in {DIRECTORY} or {FILES_DIRECTORY}"
        ),
    )
}

/// As [`path`], or a relative path.
pub(super) fn path_of_file(field: &str) -> Rule {
    let part = "([^/:.]|[.][^/:.]|[.][.][^/:])[^/:]*";
    rule(
        format!(
            "self.matches('^/?{part}(/{part})*$') && {}",
            outside_agent_directories()
        ),
        format!(
            "{field}: must be the path of a file without ':', '.', '..' and empty parts, not in {DIRECTORY} or {FILES_DIRECTORY}"
        ),
    )
}

/// A path inside a volume.
pub(super) fn sub_path(field: &str) -> Rule {
    rule(
        "!self.matches('^/|(^|/)[.][.](/|$)')",
        format!("{field}: must be relative and without '..'"),
    )
}

/// A name that the operator does not use itself.
pub(super) fn name(field: &str) -> Rule {
    rule(
        "!self.startsWith('sandbox-operator')",
        format!("{field}: names that begin with sandbox-operator are reserved"),
    )
}

/// Labels or annotations that users may set.
pub(super) fn keys(field: &str) -> Rule {
    let any = |words: &[&str]| words.join("|").replace('.', "[.]");
    rule(
        format!(
            "self.all(k, !k.matches('^(([^/]*[.])?({})/|({})[^/]*$)'))",
            any(&RESERVED_DOMAINS),
            any(&RESERVED_PREFIXES)
        ),
        format!(
            "{field}: keys under {} and their subdomains, and those that begin with {}, are reserved",
            RESERVED_DOMAINS.join(", "),
            RESERVED_PREFIXES.join(", ")
        ),
    )
}

/// A list of strings with at most this many characters in all.
pub(super) fn total_of_list(field: &str, max: usize) -> Rule {
    rule(
        format!("self.map(s, s.size()).sum() <= {max}"),
        format!("{field}: must have at most {max} characters in all"),
    )
}

/// Keys and values with at most this many characters in all.
pub(super) fn total_of_map(field: &str, max: usize) -> Rule {
    rule(
        format!("self.map(k, k.size() + self[k].size()).sum() <= {max}"),
        format!("{field}: keys and values must have at most {max} characters in all"),
    )
}

/// Bounds what has no bound yet: strings, lists and maps of Kubernetes' own types. Without, one object may have as many
/// as fit into 1.5 MiB, and each is kept in memory.
pub(super) fn bound(schema: &mut Value) {
    let bounded = |schema: &Value, bounds: &[&str]| bounds.iter().any(|bound| schema.get(*bound).is_some());
    match schema["type"].as_str() {
        Some("string") if !bounded(schema, &["maxLength", "enum", "format"]) => {
            schema["maxLength"] = json!(MAX_TEXT);
        }
        Some("array") if !bounded(schema, &["maxItems"]) => schema["maxItems"] = json!(MAX_ITEMS),
        Some("object") if schema.get("additionalProperties").is_some() && !bounded(schema, &["maxProperties"]) => {
            schema["maxProperties"] = json!(MAX_ITEMS);
        }
        _ => {}
    }
    let Some(fields) = schema.as_object_mut() else { return };
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = fields.get_mut(key) {
            bound(inner);
        }
    }
    if let Some(Value::Object(properties)) = fields.get_mut("properties") {
        properties.values_mut().for_each(bound);
    }
}

/// An address range.
pub(super) fn range(field: &str) -> Rule {
    rule(
        "isCIDR(self) && cidr(self) == cidr(self).masked()",
        format!("{field}: must be an address range such as 203.0.113.0/24, with no bits set after the prefix"),
    )
}

/// Address ranges.
pub(super) fn ranges(field: &str) -> Rule {
    rule(
        "self.all(e, isCIDR(e) && cidr(e) == cidr(e).masked())",
        format!("{field}: must be address ranges such as 203.0.113.0/24, with no bits set after the prefix"),
    )
}

/// A network rule has one kind of peer.
pub(super) fn one_peer(item: &str) -> Rule {
    rule(
        "has(self.cidr) != (has(self.podSelector) || has(self.namespaceSelector))",
        format!("{item}: give either cidr, or podSelector and/or namespaceSelector"),
    )
}

/// Exceptions are inside the range. A malformed range has its own message.
pub(super) fn except_in_cidr(item: &str) -> Rule {
    let inside = "cidr(self.cidr).containsCIDR(e) && cidr(e).prefixLength() > cidr(self.cidr).prefixLength()";
    rule(
        format!(
            "!has(self.except) || (has(self.cidr) && (!isCIDR(self.cidr) || self.except.all(e, !isCIDR(e) || ({inside}))))"
        ),
        format!("{item}.except[]: must be parts of cidr, and not all of it"),
    )
}

/// Whether the API server can compare this quantity: comparing 1e999999999 takes minutes and gigabytes, which the
/// estimated cost of a rule does not include.
fn is_small(text: &str) -> String {
    format!("{text}.matches('^[+-]?[0-9.]*([eE][+-]?[0-9]{{1,2}}|[numkMGTPE]|[KMGTPE]i)?$') && isQuantity({text})")
}

/// A quantity, in a manifest a string or a number.
pub(super) fn quantity(field: &str, above_zero: bool) -> Rule {
    let (compare, must) = if above_zero {
        (">", "above")
    } else {
        (">=", "not below")
    };
    let small = is_small("self");
    rule(
        format!(
            "type(self) == string ? {small} && quantity(self).compareTo(quantity('0')) {compare} 0 : self {compare} 0"
        ),
        format!("{field}: must be a quantity such as 500m or 1Gi, {must} zero, with an exponent of at most two digits"),
    )
}

/// Items with different values of the expression `key`.
pub(super) fn unique(key: fn(&str) -> String, message: &str) -> Rule {
    rule(
        format!("self.all(a, self.exists_one(b, {} == {}))", key("a"), key("b")),
        message.to_owned(),
    )
}

/// Items with different values of an optional field.
pub(super) fn unique_where_given(field: &str, message: &str) -> Rule {
    rule(
        format!("self.all(a, !has(a.{field}) || self.exists_one(b, has(b.{field}) && a.{field} == b.{field}))"),
        message.to_owned(),
    )
}

/// Removes an enum's description from its schema: kube would use it instead of the field's, which says more.
pub(super) fn undescribed(schema: &mut Schema) {
    schema.remove("description");
}

/// Completes the schema of the fields that shape a pod, which is at `at`: rules over several of its fields, and rules
/// for Kubernetes' own types. `volumes_from_elsewhere`: the condition under which mounts may name volumes of another
/// document.
pub(super) fn workload(schema: &mut Value, at: &str, volumes_from_elsewhere: &str) {
    env(&mut schema["properties"]["env"], &format!("{at}.env[]"));
    resources(&mut schema["properties"]["resources"], &format!("{at}.resources"));
    arguments(schema);
    let sidecar = &mut schema["properties"]["sidecars"]["items"];
    arguments(sidecar);
    env(&mut sidecar["properties"]["env"], "sidecars[].env[]");
    resources(&mut sidecar["properties"]["resources"], "sidecars[].resources");
    // There may be 16 sidecars; the type that they share with the main container allows 128.
    sidecar["properties"]["files"]["maxItems"] = json!(64);
    let rules = [
        rule(
            "!has(self.args) || has(self.command) || (has(self.entrypoint) && self.entrypoint == 'Image')",
            format!("{at}.args: needs {at}.command, or {at}.entrypoint: Image"),
        ),
        rule(
            "!has(self.command) || !has(self.entrypoint) || self.entrypoint != 'Image'",
            format!("{at}.command: cannot be given with {at}.entrypoint: Image"),
        ),
        rule(
            "!has(self.files) || !has(self.volumes) || self.files.all(f, self.volumes.all(v, !has(v.mountPath) || v.mountPath != f.path))",
            format!("{at}.files[].path: must not be the mountPath of a volume"),
        ),
        rule(
            "!has(self.files) || !has(self.entrypoint) || self.entrypoint != 'Image' || self.files.all(f, f.path.startsWith('/'))",
            format!("{at}.files[].path: must be absolute with {at}.entrypoint: Image"),
        ),
        rule(
            "!has(self.sidecars) || self.sidecars.all(s, has(s.command) || !has(s.files) || s.files.all(f, f.path.startsWith('/')))",
            format!("{at}.sidecars[].files[].path: a relative path needs {at}.sidecars[].command"),
        ),
        rule(
            format!(
                "({volumes_from_elsewhere}) || !has(self.mounts) || self.mounts.all(m, has(self.volumes) && self.volumes.exists(v, v.name == m.name))"
            ),
            format!("{at}.mounts[].name: must be the name of one of {at}.volumes"),
        ),
        rule(
            format!(
                "({volumes_from_elsewhere}) || !has(self.sidecars) || self.sidecars.all(s, !has(s.mounts) || \
                 s.mounts.all(m, has(self.volumes) && self.volumes.exists(v, v.name == m.name)))"
            ),
            format!("{at}.sidecars[].mounts[].name: must be the name of one of {at}.volumes"),
        ),
    ];
    add(schema, rules.map(|r| json!(r)));
}

/// Adds rules to a schema.
pub(super) fn add(schema: &mut Value, rules: impl IntoIterator<Item = Value>) {
    let list = &mut schema["x-kubernetes-validations"];
    let old = list.as_array().cloned().unwrap_or_default();
    *list = old.into_iter().chain(rules).collect();
}

fn arguments(container: &mut Value) {
    for field in ["command", "args"] {
        execve_string(&mut container["properties"][field]["items"]);
    }
}

fn env(list: &mut Value, field: &str) {
    list["x-kubernetes-list-type"] = json!("map");
    list["x-kubernetes-list-map-keys"] = json!(["name"]);
    let properties = &mut list["items"]["properties"];
    execve_string(&mut properties["value"]);
    let divisor = &mut properties["valueFrom"]["properties"]["resourceFieldRef"]["properties"]["divisor"];
    divisor["maxLength"] = json!(32);
    add(
        divisor,
        [json!(quantity(
            &format!("{field}.valueFrom.resourceFieldRef.divisor"),
            false
        ))],
    );
    let name = &mut properties["name"];
    name["maxLength"] = json!(256);
    let must = format!("{field}.name: must be printable ASCII characters other than '='");
    add(name, [json!(rule("self.matches('^[ -<>-~]+$')", must))]);
    // With the '='. A longer value passed because of its `$$`.
    let fits = format!(
        "!has(self.value) || self.value.size() > {MAX_EXEC_STRING} || self.name.size() + self.value.size() < {MAX_EXEC_STRING}"
    );
    let must = format!(
        "{field}: name and value must have fewer than {MAX_EXEC_STRING} characters together; put a longer value into a file"
    );
    add(&mut list["items"], [json!(rule(fits, must))]);
}

/// A string that Linux accepts as an argument. Characters are counted here, and where there are `$$`, of which one
/// remains, twice as many are let through; the operator counts bytes exactly. A rule in CEL would be too expensive for
/// a list.
fn execve_string(schema: &mut Value) {
    schema["maxLength"] = json!(2 * MAX_EXEC_STRING);
    schema["anyOf"] = json!([{"maxLength": MAX_EXEC_STRING}, {"pattern": "[$][$]"}]);
}

fn resources(schema: &mut Value, field: &str) {
    for kind in ["requests", "limits"] {
        let map = &mut schema["properties"][kind];
        map["maxProperties"] = json!(32);
        map["additionalProperties"] = json!({
            "description": "A quantity such as 2, 500m or 1Gi.",
            "maxLength": 32,
            "x-kubernetes-int-or-string": true,
            "x-kubernetes-validations": [quantity(&format!("{field}.{kind}"), false)],
        });
    }
    // It refers to resource claims of the pod, which sandboxes do not have.
    if let Some(properties) = schema["properties"].as_object_mut() {
        properties.remove("claims");
    }
    let (request, limit) = ("string(self.requests[k])", "string(self.limits[k])");
    let comparable = format!("k in self.limits && {} && {}", is_small(request), is_small(limit));
    let cel = format!(
        "!has(self.requests) || !has(self.limits) || \
         self.requests.all(k, !({comparable}) || quantity({request}).compareTo(quantity({limit})) <= 0)"
    );
    add(
        schema,
        [json!(rule(
            cel,
            format!("{field}.requests: must not be above {field}.limits")
        ))],
    );
}

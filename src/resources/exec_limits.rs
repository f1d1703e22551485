//! What Linux accepts as arguments and environment of a program. Beyond it `execve` fails with E2BIG, in a container
//! that has no way to say which string was too long.

use k8s_openapi::api::core::v1;

use super::effective::{env_path, path_of};
use crate::api::limits::MAX_EXEC_STRING;
use crate::api::{Container, FieldError, FieldPath, Sandbox};

/// Most bytes of all arguments and variables: a quarter of the stack's limit, which is 8 MiB unless somebody changed
/// it. Each string counts with its NUL and with a pointer of 8 bytes: `bprm_stack_limits` and `copy_strings` of
/// fs/exec.c.
pub(crate) const MAX_TOTAL: usize = 8 * 1024 * 1024 / 4;

/// Checks one container: `own` are its fields, `built` is what comes of them, with the agent's command line. `at` has
/// the path of one of its fields. What `$(VAR)` stands for is known in the container only: such a reference counts as
/// nothing here.
pub(super) fn check(
    own: &Container,
    built: &v1::Container,
    at: impl Fn(&str) -> FieldPath,
    env_at: impl Fn(&str) -> FieldPath,
) -> Result<(), FieldError> {
    for (field, list) in [("command", &own.command), ("args", &own.args)] {
        for (i, text) in list.iter().flatten().enumerate() {
            let bytes = known_bytes(text);
            if bytes > MAX_EXEC_STRING {
                let message = format!(
                    "has {bytes} bytes, and Linux accepts {MAX_EXEC_STRING} in one argument; put it into a file"
                );
                return Err(at(field).index(i).error(message));
            }
        }
    }
    for variable in own.env.iter().flatten() {
        let bytes = variable_bytes(variable);
        if bytes > MAX_EXEC_STRING {
            let message = format!(
                "name and value have {bytes} bytes with the '=', and Linux accepts {MAX_EXEC_STRING}; put the value into a file"
            );
            return Err(env_at(&variable.name).field("value").error(message));
        }
    }
    let strings =
        |list: &Option<Vec<String>>| -> usize { list.iter().flatten().map(|s| counted(known_bytes(s))).sum() };
    let (command, args) = (strings(&built.command), strings(&built.args));
    let env: usize = built.env.iter().flatten().map(|e| counted(variable_bytes(e))).sum();
    let program = built.command.iter().flatten().next().map_or(0, |p| p.len() + 1);
    let total = program + command + args + env;
    if total <= MAX_TOTAL {
        return Ok(());
    }
    let (_, field) = [(command, "command"), (args, "args"), (env, "env")]
        .into_iter()
        .max()
        .unwrap_or_default();
    Err(at(field).error(format!(
        "command, arguments and variables have {total} bytes as Linux counts them, and it accepts {MAX_TOTAL}; put some into files"
    )))
}

/// The main container's fields.
pub(super) fn check_main(sandbox: &Sandbox, own: &Container, built: &v1::Container) -> Result<(), FieldError> {
    check(
        own,
        built,
        |field| path_of(sandbox, field),
        |name| env_path(sandbox, name),
    )
}

/// A sidecar's fields.
pub(super) fn check_sidecar(
    sandbox: &Sandbox,
    index: usize,
    own: &Container,
    built: &v1::Container,
) -> Result<(), FieldError> {
    let at = |field: &str| path_of(sandbox, "sidecars").index(index).field(field);
    check(own, built, at, |name| at("env").item("name", name))
}

/// With its NUL and its pointer.
fn counted(bytes: usize) -> usize {
    bytes + 1 + 8
}

/// `NAME=value`; a value from elsewhere is not known.
fn variable_bytes(variable: &v1::EnvVar) -> usize {
    variable.name.len() + 1 + variable.value.as_deref().map_or(0, known_bytes)
}

/// Least bytes of a text after the kubelet's expansion: `$$` is one `$`, and `$(NAME)` may be replaced by nothing.
fn known_bytes(text: &str) -> usize {
    let (mut bytes, mut rest) = (0, text);
    while let Some(at) = rest.find('$') {
        bytes += at;
        let after = &rest[at + 1..];
        rest = if let Some(escaped) = after.strip_prefix('$') {
            bytes += 1;
            escaped
        } else if let Some((_, end)) = after.strip_prefix('(').and_then(|reference| reference.split_once(')')) {
            end
        } else {
            bytes += 1;
            after
        };
    }
    bytes + rest.len()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn result(spec: Value) -> Result<(), String> {
        let object = json!({"apiVersion": "sandbox-operator.dev/v1alpha1", "kind": "Sandbox", "spec": spec,
            "metadata": {"name": "a", "namespace": "team", "uid": "1234abcd-0000-0000-0000-000000000000"}});
        let sandbox: Sandbox = serde_json::from_value(object).unwrap();
        let own = &sandbox.spec.workload.container;
        let built = v1::Container {
            command: own.command.clone(),
            args: own.args.clone(),
            env: own.env.clone(),
            ..v1::Container::default()
        };
        check_main(&sandbox, own, &built).map_err(|e| e.to_string())
    }

    #[test]
    fn one_string_may_have_131071_bytes() {
        let text = |bytes: usize| "x".repeat(bytes);
        let fits = [
            json!({"command": ["a"], "args": [text(MAX_EXEC_STRING)]}),
            json!({"command": [text(MAX_EXEC_STRING)]}),
            json!({"env": [{"name": "NAME", "value": text(MAX_EXEC_STRING - 5)}]}),
            json!({"args": ["$$".repeat(MAX_EXEC_STRING)]}),
            json!({"args": [format!("$(A){}", text(MAX_EXEC_STRING))]}),
        ];
        for spec in fits {
            assert_eq!(result(spec), Ok(()));
        }
        for (spec, field) in [
            (
                json!({"command": ["a"], "args": ["b", text(MAX_EXEC_STRING + 1)]}),
                "spec.args[1]: has 131072 bytes",
            ),
            (
                json!({"command": [text(MAX_EXEC_STRING + 1)]}),
                "spec.command[0]: has 131072 bytes",
            ),
            (
                json!({"args": ["é".repeat(MAX_EXEC_STRING / 2 + 1)]}),
                "spec.args[0]: has 131072 bytes",
            ),
            (
                json!({"args": ["$$".repeat(MAX_EXEC_STRING + 1)]}),
                "spec.args[0]: has 131072 bytes",
            ),
            (
                json!({"env": [{"name": "A"}, {"name": "NAME", "value": text(MAX_EXEC_STRING - 4)}]}),
                r#"spec.env[name="NAME"].value: name and value have 131072 bytes"#,
            ),
        ] {
            let error = result(spec).unwrap_err();
            assert!(error.starts_with(field), "{error}");
        }
    }

    #[test]
    fn all_strings_together_may_have_a_quarter_of_the_stack() {
        // 15 arguments of 128 KiB with NUL, and 9 bytes each for the rest.
        let long = || vec!["x".repeat(MAX_EXEC_STRING); 15];
        let pointers = 8 * 17;
        let left = MAX_TOTAL - 15 * 131_072 - pointers - 2 - 2;
        let args = |last: usize| [long(), vec!["x".repeat(last - 1)]].concat();
        assert_eq!(result(json!({"command": ["a"], "args": args(left)})), Ok(()));
        let error = result(json!({"command": ["a"], "args": args(left + 1)})).unwrap_err();
        assert!(
            error.starts_with("spec.args: command, arguments and variables have 2097153 bytes"),
            "{error}"
        );
    }

    #[test]
    fn expansion_is_counted_as_the_kubelet_does_it() {
        for (text, bytes) in [
            ("", 0),
            ("$", 1),
            ("$$", 1),
            ("$$$", 2),
            ("$(A)", 0),
            ("$$(A)", 4),
            ("a$(A)b$c", 4),
            ("$(A", 3),
            ("é", 2),
        ] {
            assert_eq!(known_bytes(text), bytes, "{text}");
        }
    }
}

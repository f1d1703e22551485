//! Checks of a command before it is sent to an agent. Pure.

use std::collections::HashMap;
use tonic::Status;

use crate::api::FieldPath;
use crate::gateway::convert::text::{argument_error, exec_total_error, variable_error};
use crate::gateway::error::{Violation, invalid};

/// Checks the fields of a request to run a command. The limits are those of Linux; the variables of the container count
/// as well, but only the agent knows them.
///
/// # Errors
/// INVALID_ARGUMENT with the wrong fields.
pub(crate) fn check(sandbox_id: &str, command: &[String], env: &HashMap<String, String>) -> Result<(), Status> {
    let mut violations = vec![];
    let mut wrong = |field: &str, text: &str| violations.push(Violation::new(field, text));
    if sandbox_id.is_empty() {
        wrong("sandbox_id", "must be set");
    }
    if command.first().is_none_or(String::is_empty) {
        wrong("command", "must name a program");
    }
    for (i, argument) in command.iter().enumerate() {
        if let Some(error) = argument_error(argument) {
            wrong(FieldPath::root("command").index(i).as_str(), &error);
        }
    }
    let mut variables: Vec<_> = env.iter().collect();
    variables.sort();
    for (name, value) in variables {
        if name.is_empty() || name.contains(['=', '\0']) {
            wrong("env", "names must not be empty, and must not contain '=' or NUL");
        } else if let Some(error) = variable_error(name, value) {
            wrong(FieldPath::root("env").key(name).as_str(), &error);
        }
    }
    let lengths = command
        .iter()
        .map(String::len)
        .chain(env.iter().map(|(name, value)| name.len() + 1 + value.len()));
    if let Some(error) = exec_total_error(lengths) {
        wrong("command", &format!("command and env {error}"));
    }
    if violations.is_empty() {
        Ok(())
    } else {
        Err(invalid(violations))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(strings: &[&str]) -> Vec<String> {
        strings.iter().map(|s| (*s).to_owned()).collect()
    }

    fn variable(name: &str, value: &str) -> HashMap<String, String> {
        HashMap::from([(name.to_owned(), value.to_owned())])
    }

    #[test]
    fn a_command_that_cannot_run_is_refused_by_field() {
        let none = HashMap::new();
        assert!(check("a", &strings(&["ls", ""]), &none).is_ok());
        for (id, command, env, field) in [
            ("", strings(&["ls"]), none.clone(), "sandbox_id: "),
            ("a", strings(&[]), none.clone(), "command: "),
            ("a", strings(&[""]), none.clone(), "command: "),
            ("a", strings(&["ls", "a\0b"]), none.clone(), "command[1]: "),
            ("a", strings(&["ls"]), variable("A=", ""), "env: "),
            ("a", strings(&["ls"]), variable("", ""), "env: "),
            ("a", strings(&["ls"]), variable("A", "\0"), "env[\"A\"]: "),
        ] {
            let message = check(id, &command, &env).unwrap_err().message().to_owned();
            assert!(message.starts_with(field), "{field} {message}");
        }
    }

    /// MAX_ARG_STRLEN is 131,072 bytes with the NUL. All strings with a NUL and a pointer each have 2 MiB.
    #[test]
    fn what_linux_takes_passes_to_the_byte() {
        let none = HashMap::new();
        let field = |command: &[String], env: &HashMap<String, String>| {
            let status = check("a", command, env).err()?;
            Some(status.message().split(": ").next().unwrap_or_default().to_owned())
        };
        assert_eq!(field(&["x".repeat(131_071)], &none), None);
        assert_eq!(
            field(&strings(&["ls", &"x".repeat(131_072)]), &none).unwrap(),
            "command[1]"
        );
        assert_eq!(field(&strings(&["ls"]), &variable("A", &"x".repeat(131_069))), None);
        assert_eq!(
            field(&strings(&["ls"]), &variable("A", &"x".repeat(131_070))).unwrap(),
            "env[\"A\"]"
        );
        let full = vec!["x".repeat(131_072 - 9); 16];
        assert_eq!(field(&full, &none), None);
        assert_eq!(field(&full, &variable("A", "")).unwrap(), "command");
    }
}

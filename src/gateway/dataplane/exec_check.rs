//! Checks of a command before it is sent to an agent. Pure.

use std::collections::HashMap;
use tonic::Status;

use crate::gateway::error::{Violation, invalid};

/// Bytes of command and environment together: an agent takes messages of 1 MiB.
const MAX_COMMAND: usize = 1 << 20;

/// Checks the fields of a request to run a command.
///
/// # Errors
/// INVALID_ARGUMENT with the wrong fields.
pub fn check(sandbox_id: &str, command: &[String], env: &HashMap<String, String>) -> Result<(), Status> {
    let mut violations = vec![];
    let mut wrong = |field: &str, text: &str| violations.push(Violation::new(field, text));
    if sandbox_id.is_empty() {
        wrong("sandbox_id", "must be set");
    }
    if command.first().is_none_or(String::is_empty) {
        wrong("command", "must name a program");
    }
    if command.iter().any(|word| word.contains('\0')) {
        wrong("command", "must not contain NUL");
    }
    if env
        .iter()
        .any(|(name, value)| name.is_empty() || name.contains(['=', '\0']) || value.contains('\0'))
    {
        wrong("env", "names must not be empty or contain `=`, and nothing may contain NUL");
    }
    // Each string has a few bytes of overhead in the message.
    let bytes: usize = command.iter().chain(env.keys()).chain(env.values()).map(|s| s.len() + 8).sum();
    if bytes > MAX_COMMAND {
        wrong("command", "command and env must have at most 1 MiB together");
    }
    if violations.is_empty() { Ok(()) } else { Err(invalid(violations)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_cannot_run_is_refused_by_field() {
        let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        let none = HashMap::new();
        assert!(check("a", &words(&["ls", ""]), &none).is_ok());
        for (id, command, env, field) in [
            ("", words(&["ls"]), none.clone(), "sandbox_id"),
            ("a", words(&[]), none.clone(), "command"),
            ("a", words(&[""]), none.clone(), "command"),
            ("a", words(&["a\0b"]), none.clone(), "command"),
            ("a", vec!["x".repeat(MAX_COMMAND)], none.clone(), "command"),
            ("a", words(&["ls"]), HashMap::from([("A=".to_owned(), String::new())]), "env"),
            ("a", words(&["ls"]), HashMap::from([(String::new(), String::new())]), "env"),
        ] {
            assert!(check(id, &command, &env).unwrap_err().message().starts_with(field), "{field}");
        }
    }
}

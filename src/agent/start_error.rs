//! Why a command could not be started, in words that help to correct it.

use crate::text::short;
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use std::ffi::OsString;
use std::io;

/// Exit codes of a shell whose command does not exist, or cannot be executed.
pub(super) const NOT_FOUND: u8 = 127;
/// See [`NOT_FOUND`].
pub(super) const NOT_EXECUTABLE: u8 = 126;

/// Most bytes of a program's name in a message.
const MAX_NAME: usize = 200;
/// The kernel's `MAX_ARG_STRLEN` in pages: bytes of one argument, or of one `NAME=value`, with the NUL that ends it.
const MAX_STRING_PAGES: usize = 32;
/// The kernel's bounds for all strings together: a quarter of the stack's limit, between these.
const MIN_TOTAL: u64 = 128 * 1024;
const MAX_TOTAL: u64 = 6 * 1024 * 1024;

/// A command that could not be started.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct StartError {
    /// The exit code that a shell would give.
    pub(super) exit_code: u8,
    /// Names the program and the problem.
    pub(super) message: String,
}

impl StartError {
    pub(super) fn new(message: impl Into<String>) -> StartError {
        StartError {
            exit_code: NOT_EXECUTABLE,
            message: message.into(),
        }
    }

    /// `env`: the complete environment of the command.
    pub(super) fn from_io(
        error: &io::Error,
        command: &[String],
        env: impl Iterator<Item = (OsString, OsString)>,
    ) -> StartError {
        let program = command.first().map(String::as_str).unwrap_or_default();
        let hint = match Errno::from_io_error(error) {
            Some(Errno::TOOBIG) => too_long(command, env, Limits::of_this_process()),
            Some(Errno::NOENT) => not_split(program),
            _ => None,
        };
        let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
        StartError {
            exit_code: exit_code(error),
            message: format!("{}: {error}{hint}", short(program, MAX_NAME)),
        }
    }
}

/// The exit code of a shell that could not execute a command.
pub(super) fn exit_code(error: &io::Error) -> u8 {
    if error.kind() == io::ErrorKind::NotFound {
        NOT_FOUND
    } else {
        NOT_EXECUTABLE
    }
}

/// For a whole command line that was given as the program.
fn not_split(program: &str) -> Option<String> {
    let words: Vec<&str> = program.split_whitespace().collect();
    (words.len() > 1).then(|| {
        format!(
            "this is one argument with blanks, taken as the name of a program; give the program and each argument as separate items: {}",
            short(&format!("{words:?}"), MAX_NAME)
        )
    })
}

/// What the kernel takes.
#[derive(Clone, Copy)]
struct Limits {
    /// Bytes of one argument, or of one `NAME=value`, without its NUL.
    string: usize,
    /// Bytes of all of them, with a NUL and a pointer for each.
    total: usize,
}

impl Limits {
    fn of_this_process() -> Limits {
        let stack = getrlimit(Resource::Stack).current.unwrap_or(u64::MAX);
        Limits {
            string: MAX_STRING_PAGES * rustix::param::page_size() - 1,
            total: usize::try_from((stack / 4).clamp(MIN_TOTAL, MAX_TOTAL)).unwrap_or(usize::MAX),
        }
    }
}

/// What is too long for the kernel.
fn too_long(command: &[String], env: impl Iterator<Item = (OsString, OsString)>, limits: Limits) -> Option<String> {
    let mut total = 0;
    let mut add = |bytes: usize| {
        total += bytes + 1 + size_of::<usize>();
        bytes > limits.string
    };
    for (index, argument) in command.iter().enumerate() {
        if add(argument.len()) {
            return Some(format!(
                "argument {index} has {} bytes; Linux takes at most {} for one argument",
                argument.len(),
                limits.string
            ));
        }
    }
    for (name, value) in env {
        let bytes = name.len() + 1 + value.len();
        if add(bytes) {
            return Some(format!(
                "environment variable {} has {bytes} bytes as NAME=value; Linux takes at most {} for one variable",
                short(&name.to_string_lossy(), MAX_NAME),
                limits.string
            ));
        }
    }
    Some(format!(
        "arguments and environment have {total} bytes in all; Linux takes at most {} here",
        limits.total
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { string: 10, total: 100 };

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_string_that_is_too_long_is_named() {
        for (command, env, expected) in [
            (
                &["sh", "12345678901"][..],
                ("A", "1"),
                "argument 1 has 11 bytes; Linux takes at most 10 for one argument",
            ),
            (
                &["sh"],
                ("NAME", "123456"),
                "environment variable NAME has 11 bytes as NAME=value; Linux takes at most 10 for one variable",
            ),
            (
                &["sh", "1234567890"],
                ("NAME", "12345"),
                "arguments and environment have 49 bytes in all; Linux takes at most 100 here",
            ),
        ] {
            let env = [(OsString::from(env.0), OsString::from(env.1))].into_iter();
            assert_eq!(too_long(&strings(command), env, LIMITS).as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_command_line_in_one_argument_is_recognised() {
        let error =
            |errno: Errno, command: &[&str]| StartError::from_io(&errno.into(), &strings(command), std::iter::empty());
        assert_eq!(
            error(Errno::NOENT, &["echo hello world"]),
            StartError {
                exit_code: NOT_FOUND,
                message: "echo hello world: No such file or directory (os error 2); this is one argument with blanks, taken as the name of a \
                          program; give the program and each argument as separate items: [\"echo\", \"hello\", \"world\"]"
                    .into()
            }
        );
        assert_eq!(
            error(Errno::NOENT, &["ech", "hello world"]).message,
            "ech: No such file or directory (os error 2)"
        );
        assert_eq!(
            error(Errno::ACCESS, &["my program"]),
            StartError {
                exit_code: NOT_EXECUTABLE,
                message: "my program: Permission denied (os error 13)".into()
            }
        );
    }

    #[test]
    fn this_process_has_the_limits_of_linux() {
        let limits = Limits::of_this_process();
        assert_eq!((limits.string + 1) % 4096, 0);
        assert!((MIN_TOTAL..=MAX_TOTAL).contains(&(limits.total as u64)));
    }
}

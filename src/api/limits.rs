//! Limits that more than one module checks.

/// Longest lifetime in seconds: 30 days, as the hosted service has it.
pub const MAX_LIFETIME_SECONDS: i64 = 30 * 24 * 3600;
/// Lifetime in seconds if neither sandbox, session nor operator sets one: 24 hours.
pub const DEFAULT_LIFETIME_SECONDS: i64 = 24 * 3600;
/// Seconds until a sandbox must be RUNNING if it does not set them.
pub const DEFAULT_START_TIMEOUT_SECONDS: i64 = 300;
/// Seconds between SIGTERM and SIGKILL if the sandbox does not set them.
pub const DEFAULT_GRACE_SECONDS: i64 = 10;
/// Seconds for which a finished record is kept if the sandbox does not set them: 24 hours.
pub const DEFAULT_TTL_SECONDS: i64 = 24 * 3600;
/// Longest argument or `NAME=value` of a program in bytes: Linux's `MAX_ARG_STRLEN` (include/uapi/linux/binfmts.h), 32
/// pages of 4 KiB, has a NUL at its end.
pub const MAX_EXEC_STRING: usize = 32 * 4096 - 1;
/// Bytes of inline file content in one sandbox, after decoding. etcd accepts objects of at most 1.5 MiB.
pub const MAX_INLINE_FILE_BYTES: usize = 256 * 1024;
/// Characters of all annotations of a pod: Kubernetes allows 256 KiB, and the operator adds its own.
pub const MAX_ANNOTATIONS: usize = 255 << 10;
/// Characters of all tags of a sandbox: lists show them, and caches keep them.
pub const MAX_TAGS_TEXT: usize = 2048;
/// Most bytes of a message: others write its text, and it is kept in status, conditions, events and memory.
pub(crate) const MAX_MESSAGE: usize = 1024;

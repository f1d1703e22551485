//! How fields of a sandbox and the defaults of its session become one.

use k8s_openapi::api::core::v1::EnvVar;

/// A struct of options with, for each field, the value of the first or else of the second. Names all fields, so that a
/// new one does not compile until it is listed here.
macro_rules! or_defaults {
    ($own:expr, $defaults:expr, $type:ident { $($field:ident),+ $(,)? }) => {{
        let ($type { $($field),+ }, defaults) = ($own, $defaults);
        $type { $($field: $field.or(defaults.$field)),+ }
    }};
}
pub(super) use or_defaults;

/// Merges by name. The defaults come first, since later variables may refer to earlier ones by `$(NAME)`.
pub(super) fn merge_env(own: Option<Vec<EnvVar>>, defaults: Option<Vec<EnvVar>>) -> Option<Vec<EnvVar>> {
    match (own, defaults) {
        (Some(own), Some(mut env)) => {
            env.retain(|d| own.iter().all(|o| o.name != d.name));
            env.extend(own);
            Some(env)
        }
        (own, defaults) => own.or(defaults),
    }
}

//! Credentials in request headers, and the checks that need no API server.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Header of a key in the W&B form.
pub(crate) const API_KEY_HEADER: &str = "x-wandb-api-key";

/// Credentials of a request.
pub(crate) enum Credentials<'a> {
    /// A ServiceAccount token.
    Token(&'a str),
    /// A key in the W&B form.
    ApiKey(&'a str),
}

impl Credentials<'_> {
    /// The credentials in the headers. An `authorization` header takes precedence, even if it is malformed.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Credentials<'_>> {
        if let Some(value) = headers.get(http::header::AUTHORIZATION) {
            let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
            return scheme
                .eq_ignore_ascii_case("bearer")
                .then_some(Credentials::Token(token.trim()));
        }
        headers.get(API_KEY_HEADER)?.to_str().ok().map(Credentials::ApiKey)
    }

    /// The key in caches: a hash of the kind of credentials and their value.
    pub(crate) fn digest(&self) -> [u8; 32] {
        let (form, secret) = match self {
            Credentials::Token(token) => (b't', token),
            Credentials::ApiKey(key) => (b'k', key),
        };
        Sha256::new()
            .chain_update([form])
            .chain_update(secret)
            .finalize()
            .into()
    }
}

/// File name of an API key: its SHA-256 in hex.
pub(crate) fn file_name(key: &str) -> String {
    Sha256::digest(key).iter().map(|b| format!("{b:02x}")).collect()
}

/// Time until a ServiceAccount token for `audience` expires, by its own claims; `None` if it is not such a token or has
/// expired. The API server checks the signature.
pub(crate) fn time_left(token: &str, audience: &str, now: SystemTime) -> Option<Duration> {
    #[derive(Deserialize)]
    struct Claims {
        aud: Audiences,
        exp: u64,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audiences {
        One(String),
        Many(Vec<String>),
    }
    let (_header, rest) = token.split_once('.')?;
    let (claims, signature) = rest.split_once('.')?;
    if signature.is_empty() {
        return None;
    }
    let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
    let has_audience = match claims.aud {
        Audiences::One(one) => one == audience,
        Audiences::Many(many) => many.iter().any(|a| a == audience),
    };
    let end = UNIX_EPOCH.checked_add(Duration::from_secs(claims.exp))?;
    let left = end.duration_since(now).ok().filter(|left| !left.is_zero());
    left.filter(|_| has_audience)
}

/// Namespace and name in an API key's file, which contains `namespace/serviceaccount`.
pub(crate) fn service_account(text: &str) -> Option<(&str, &str)> {
    let is_name = |text: &str| {
        !text.is_empty() && text.len() <= 253 && text.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '-' | '.'))
    };
    text.split_once('/').filter(|(ns, sa)| is_name(ns) && is_name(sa))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AUDIENCE: &str = "sandbox-operator.dev";

    fn token(claims: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn a_token_for_another_audience_or_expired_is_refused_without_a_review() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000);
        let left = |claims: &str| time_left(&token(claims), AUDIENCE, now).map(|d| d.as_secs());
        assert_eq!(left(r#"{"aud": ["sandbox-operator.dev"], "exp": 1030}"#), Some(30));
        assert_eq!(
            left(r#"{"aud": ["other", "sandbox-operator.dev"], "exp": 9000}"#),
            Some(8_000)
        );
        assert_eq!(left(r#"{"aud": "sandbox-operator.dev", "exp": 1001}"#), Some(1));
        for refused in [
            r#"{"aud": ["sandbox-operator.dev"], "exp": 1000}"#,
            r#"{"aud": ["sandbox-operator.dev"], "exp": 18446744073709551615}"#,
            r#"{"aud": ["https://kubernetes.default.svc"], "exp": 1030}"#,
            r#"{"aud": [], "exp": 1030}"#,
            r#"{"aud": ["sandbox-operator.dev"]}"#,
            r#"{"exp": 1030}"#,
            "nonsense",
        ] {
            assert_eq!(left(refused), None, "{refused}");
        }
        for refused in ["", ".", "a.b", "a.!.c", "opaque", "e30.e30."] {
            assert_eq!(time_left(refused, AUDIENCE, now), None, "{refused}");
        }
    }

    #[test]
    fn the_header_determines_the_form_and_a_malformed_one_is_none() {
        let of = |headers: &[(&'static str, &'static str)]| {
            let headers: HeaderMap = headers
                .iter()
                .map(|(k, v)| (http::HeaderName::from_static(k), http::HeaderValue::from_static(v)))
                .collect();
            Credentials::of(&headers).map(|c| match c {
                Credentials::Token(t) => format!("token {t}"),
                Credentials::ApiKey(k) => format!("key {k}"),
            })
        };
        assert_eq!(of(&[("authorization", "Bearer abc")]).unwrap(), "token abc");
        assert_eq!(of(&[("authorization", "bearer abc")]).unwrap(), "token abc");
        assert_eq!(of(&[("x-wandb-api-key", "abc")]).unwrap(), "key abc");
        assert_eq!(
            of(&[("x-wandb-api-key", "abc"), ("authorization", "Bearer t")]).unwrap(),
            "token t"
        );
        assert_eq!(of(&[("x-wandb-api-key", "abc"), ("authorization", "Basic t")]), None);
        assert_eq!(of(&[("authorization", "abc")]), None);
        assert_eq!(of(&[]), None);
        assert_ne!(Credentials::Token("x").digest(), Credentials::ApiKey("x").digest());
    }

    #[test]
    fn an_api_key_file_names_a_service_account() {
        assert_eq!(service_account("team-a/bot"), Some(("team-a", "bot")));
        for text in ["", "bot", "/bot", "team-a/", "team-a/bot:x", "team-a/b/c", "team a/bot"] {
            assert_eq!(service_account(text), None, "{text}");
        }
        let of_abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(file_name("abc"), of_abc);
    }
}

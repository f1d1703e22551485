//! The short-lived tokens with which the gateway and the operator call an agent: valid for one pod, signed with
//! Ed25519. `base64url(claims) "." base64url(signature)`: like a JWT, but with one algorithm only.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

/// Seconds for which a token is valid.
pub const LIFETIME_SECONDS: i64 = 60;
/// Seconds by which the clocks of two nodes may differ.
const SKEW_SECONDS: i64 = 10;

/// The signed content of a token.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    /// UID of the pod whose agent is called.
    pod: String,
    /// End of its validity, in seconds since 1970.
    expires: i64,
}

/// Why a token is not valid. For tests: callers learn only that it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a token.
    #[error("not a token")]
    Malformed,
    /// Not signed with this key.
    #[error("the signature is wrong")]
    Forged,
    /// Valid for another pod.
    #[error("for another pod")]
    OtherPod,
    /// Expired, or valid for longer than any token is.
    #[error("expired")]
    Expired,
}

/// A token for the agent of `pod`, valid from `now` (seconds since 1970).
pub fn sign(key: &Ed25519KeyPair, pod: &str, now: i64) -> String {
    let claims = Claims {
        pod: pod.into(),
        expires: now + LIFETIME_SECONDS,
    };
    let claims = BASE64.encode(serde_json::to_vec(&claims).unwrap_or_default());
    let signature = BASE64.encode(key.sign(claims.as_bytes()));
    format!("{claims}.{signature}")
}

/// Verifies a token with the public key that came with the pod.
///
/// # Errors
/// Why it is not valid.
pub fn verify(public_key: &[u8], token: &str, pod: &str, now: i64) -> Result<(), TokenError> {
    let (claims, signature) = token.split_once('.').ok_or(TokenError::Malformed)?;
    let signature = BASE64.decode(signature).map_err(|_| TokenError::Malformed)?;
    UnparsedPublicKey::new(&ED25519, public_key)
        .verify(claims.as_bytes(), &signature)
        .map_err(|_| TokenError::Forged)?;
    let claims = BASE64.decode(claims).map_err(|_| TokenError::Malformed)?;
    let claims: Claims = serde_json::from_slice(&claims).map_err(|_| TokenError::Malformed)?;
    if claims.pod != pod {
        return Err(TokenError::OtherPod);
    }
    let left = claims.expires.saturating_sub(now);
    if !(-SKEW_SECONDS..=LIFETIME_SECONDS + SKEW_SECONDS).contains(&left) {
        return Err(TokenError::Expired);
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use ring::rand::SystemRandom;
    use ring::signature::KeyPair;

    fn key() -> Ed25519KeyPair {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap()
    }

    #[test]
    fn a_token_is_valid_for_its_own_pod_until_it_expires() {
        let (key, other) = (key(), key());
        let public = key.public_key().as_ref();
        let token = sign(&key, "pod-a", 1_000);
        let check = |token: &str, pod: &str, now: i64| verify(public, token, pod, now);
        assert_eq!(check(&token, "pod-a", 1_000), Ok(()));
        assert_eq!(check(&token, "pod-a", 1_000 + LIFETIME_SECONDS + SKEW_SECONDS), Ok(()));
        assert_eq!(
            check(&token, "pod-a", 1_001 + LIFETIME_SECONDS + SKEW_SECONDS),
            Err(TokenError::Expired)
        );
        assert_eq!(
            check(&token, "pod-a", 1_000 - SKEW_SECONDS - 1),
            Err(TokenError::Expired),
            "a clock far behind"
        );
        assert_eq!(check(&token, "pod-b", 1_000), Err(TokenError::OtherPod));
        assert_eq!(
            check(&sign(&other, "pod-a", 1_000), "pod-a", 1_000),
            Err(TokenError::Forged)
        );
        let (claims, signature) = token.split_once('.').unwrap();
        let later = sign(&key, "pod-a", 9_000);
        let grafted = format!("{}.{signature}", later.split_once('.').unwrap().0);
        assert_eq!(check(&grafted, "pod-a", 9_000), Err(TokenError::Forged));
        for broken in ["", ".", "a.b", claims, &format!("{claims}.")] {
            assert!(check(broken, "pod-a", 1_000).is_err(), "{broken}");
        }
    }
}

//! The short-lived tokens with which the gateway and the operator call an agent: signed with Ed25519, for one pod, until a moment.
//! `base64url(claims) "." base64url(signature)`: a JWT's shape without its choice of algorithms.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

/// Seconds for which a token holds.
pub const LIFETIME_SECONDS: i64 = 60;
/// Seconds by which the clocks of two nodes may differ.
const SKEW_SECONDS: i64 = 10;

/// What a token says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    /// UID of the pod whose agent is called.
    pod: String,
    /// The end of its time, in seconds since 1970.
    expires: i64,
}

/// Why a token is refused. Which of them it was is for tests and logs; callers are told that it is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is not a token.
    #[error("not a token")]
    Malformed,
    /// Another key signed it, or nobody.
    #[error("the signature is not ours")]
    Forged,
    /// It is for the agent of another pod.
    #[error("it is for another pod")]
    OtherPod,
    /// Its time is up, or longer than we give.
    #[error("it has expired")]
    Expired,
}

/// A token for the agent of `pod`, made at `now` (seconds since 1970).
pub fn sign(key: &Ed25519KeyPair, pod: &str, now: i64) -> String {
    let claims = Claims {
        pod: pod.into(),
        expires: now + LIFETIME_SECONDS,
    };
    let claims = BASE64.encode(serde_json::to_vec(&claims).unwrap_or_default());
    let signature = BASE64.encode(key.sign(claims.as_bytes()));
    format!("{claims}.{signature}")
}

/// Checks a token against the public key that came with the pod.
///
/// # Errors
/// Says why it is refused.
pub fn verify(public_key: &[u8], token: &str, pod: &str, now: i64) -> Result<(), Refused> {
    let (claims, signature) = token.split_once('.').ok_or(Refused::Malformed)?;
    let signature = BASE64.decode(signature).map_err(|_| Refused::Malformed)?;
    UnparsedPublicKey::new(&ED25519, public_key)
        .verify(claims.as_bytes(), &signature)
        .map_err(|_| Refused::Forged)?;
    let claims = BASE64.decode(claims).map_err(|_| Refused::Malformed)?;
    let claims: Claims = serde_json::from_slice(&claims).map_err(|_| Refused::Malformed)?;
    if claims.pod != pod {
        return Err(Refused::OtherPod);
    }
    let left = claims.expires.saturating_sub(now);
    if !(-SKEW_SECONDS..=LIFETIME_SECONDS + SKEW_SECONDS).contains(&left) {
        return Err(Refused::Expired);
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
    fn a_token_opens_its_own_pod_until_it_expires_and_nothing_else() {
        let (key, other) = (key(), key());
        let public = key.public_key().as_ref();
        let token = sign(&key, "pod-a", 1_000);
        let check = |token: &str, pod: &str, now: i64| verify(public, token, pod, now);
        assert_eq!(check(&token, "pod-a", 1_000), Ok(()));
        assert_eq!(check(&token, "pod-a", 1_000 + LIFETIME_SECONDS + SKEW_SECONDS), Ok(()));
        assert_eq!(check(&token, "pod-a", 1_001 + LIFETIME_SECONDS + SKEW_SECONDS), Err(Refused::Expired));
        assert_eq!(
            check(&token, "pod-a", 1_000 - SKEW_SECONDS - 1),
            Err(Refused::Expired),
            "a clock far behind"
        );
        assert_eq!(check(&token, "pod-b", 1_000), Err(Refused::OtherPod));
        assert_eq!(check(&sign(&other, "pod-a", 1_000), "pod-a", 1_000), Err(Refused::Forged));
        let (claims, signature) = token.split_once('.').unwrap();
        let later = sign(&key, "pod-a", 9_000);
        let grafted = format!("{}.{signature}", later.split_once('.').unwrap().0);
        assert_eq!(check(&grafted, "pod-a", 9_000), Err(Refused::Forged));
        for broken in ["", ".", "a.b", claims, &format!("{claims}.")] {
            assert!(check(broken, "pod-a", 1_000).is_err(), "{broken}");
        }
    }
}

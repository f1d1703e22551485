//! The private keys with which agents are called, by key id.

use jiff::Timestamp;
use ring::signature::Ed25519KeyPair;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

/// Seconds between two looks into the folder for a key that is not there.
const LOOK_AGAIN: i64 = 1;

/// Why there is no such key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The folder cannot be read.
    #[error("keys of the agents in {0}")]
    Folder(PathBuf, #[source] std::io::Error),
    /// Not an Ed25519 key in PKCS#8.
    #[error("key {0} is not an Ed25519 key in PKCS#8")]
    Malformed(String),
    /// None has this id.
    #[error("no key has the id {0}")]
    Unknown(String),
}

/// The private keys, by key id. Each pod names the one whose public half it has.
#[derive(Clone, Default)]
pub struct KeyRing(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// A mounted Secret, and when it was last read. The operator has none: it hands its keys over.
    folder: Option<PathBuf>,
    keys: RwLock<(i64, Keys)>,
}

type Keys = HashMap<String, Arc<Ed25519KeyPair>>;

impl KeyRing {
    /// The keys in a mounted Secret. A key that is asked for and not known is looked for there again, so that later keys are found.
    ///
    /// # Errors
    /// When the folder cannot be read, or holds what is not a key.
    pub fn from_folder(folder: impl Into<PathBuf>) -> Result<KeyRing, KeyError> {
        let folder = folder.into();
        let keys = RwLock::new((now(), read(&folder)?));
        Ok(KeyRing(Arc::new(Inner { folder: Some(folder), keys })))
    }

    /// Adds a key: PKCS#8 v2 in DER, as `ring` makes it.
    ///
    /// # Errors
    /// When it is not one.
    pub fn insert(&self, id: &str, pkcs8: &[u8]) -> Result<(), KeyError> {
        let key = parse(id, pkcs8)?;
        self.0.keys.write().unwrap_or_else(PoisonError::into_inner).1.insert(id.into(), key);
        Ok(())
    }

    /// The key of this id.
    pub(super) fn get(&self, id: &str) -> Result<Arc<Ed25519KeyPair>, KeyError> {
        let known = |keys: &Keys| keys.get(id).cloned();
        {
            let keys = self.0.keys.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(key) = known(&keys.1) {
                return Ok(key);
            }
            if self.0.folder.is_none() || now() < keys.0 + LOOK_AGAIN {
                return Err(KeyError::Unknown(id.into()));
            }
        }
        let mut keys = self.0.keys.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(folder) = &self.0.folder {
            *keys = (now(), read(folder)?);
        }
        known(&keys.1).ok_or_else(|| KeyError::Unknown(id.into()))
    }
}

fn read(folder: &PathBuf) -> Result<Keys, KeyError> {
    let broken = |error| KeyError::Folder(folder.clone(), error);
    let mut keys = Keys::new();
    for entry in std::fs::read_dir(folder).map_err(broken)? {
        let entry = entry.map_err(broken)?;
        let id = entry.file_name().to_string_lossy().into_owned();
        // The kubelet keeps the Secret's versions beside the keys, under names that begin with two dots.
        if !id.starts_with('.') {
            let key = parse(&id, &std::fs::read(entry.path()).map_err(broken)?)?;
            keys.insert(id, key);
        }
    }
    Ok(keys)
}

fn parse(id: &str, pkcs8: &[u8]) -> Result<Arc<Ed25519KeyPair>, KeyError> {
    Ed25519KeyPair::from_pkcs8(pkcs8)
        .map(Arc::new)
        .map_err(|_| KeyError::Malformed(id.into()))
}

fn now() -> i64 {
    Timestamp::now().as_second()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::rand::SystemRandom;

    fn pkcs8() -> Vec<u8> {
        Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap().as_ref().to_vec()
    }

    #[test]
    fn a_mounted_secret_is_read_again_for_a_key_that_is_new() {
        let folder = std::env::temp_dir().join(format!("keys-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(folder.join("..2026_11_23")).unwrap();
        std::fs::write(folder.join("old"), pkcs8()).unwrap();
        let ring = KeyRing::from_folder(&folder).unwrap();
        assert!(ring.get("old").is_ok());
        assert!(matches!(ring.get("new"), Err(KeyError::Unknown(_))));
        std::fs::write(folder.join("new"), pkcs8()).unwrap();
        ring.0.keys.write().unwrap().0 -= LOOK_AGAIN;
        assert!(ring.get("new").is_ok());
        assert!(ring.get("../new").is_err(), "an id is a name, never a path");
        std::fs::write(folder.join("broken"), "no key").unwrap();
        assert!(matches!(KeyRing::from_folder(&folder), Err(KeyError::Malformed(id)) if id == "broken"));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_key_handed_over_is_there_at_once() {
        let ring = KeyRing::default();
        assert!(ring.get("a").is_err());
        ring.insert("a", &pkcs8()).unwrap();
        assert!(ring.get("a").is_ok());
        assert!(ring.insert("b", b"x").is_err());
    }
}

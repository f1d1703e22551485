//! The private keys that sign tokens for agents, by key id.

use jiff::Timestamp;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

/// Seconds between two reads of the directory for an unknown key.
const RELOAD_INTERVAL: i64 = 1;

/// A key cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The directory cannot be read.
    #[error("agent keys in {0}")]
    Directory(PathBuf, #[source] std::io::Error),
    /// Not an Ed25519 key in PKCS#8.
    #[error("key {0} is not an Ed25519 key in PKCS#8")]
    Malformed(String),
    /// No key has this id.
    #[error("no key has the id {0}")]
    Unknown(String),
}

/// The private keys, by key id. An annotation of each pod names its key.
#[derive(Clone, Default)]
pub struct KeyRing(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// A mounted Secret. None in the operator, which inserts its keys.
    directory: Option<PathBuf>,
    /// With the time of the last read.
    keys: RwLock<(i64, Keys)>,
}

type Keys = HashMap<String, Arc<Ed25519KeyPair>>;

impl KeyRing {
    /// The keys in a mounted Secret. An unknown key makes it read the Secret again, so that keys added later are found.
    ///
    /// # Errors
    /// The directory cannot be read, or a file in it is not a key.
    pub fn from_directory(directory: impl Into<PathBuf>) -> Result<KeyRing, KeyError> {
        let directory = directory.into();
        let keys = RwLock::new((now(), read(&directory)?));
        Ok(KeyRing(Arc::new(Inner {
            directory: Some(directory),
            keys,
        })))
    }

    /// Adds a key: PKCS#8 v2 in DER, as `ring` generates it.
    ///
    /// # Errors
    /// It is malformed.
    pub fn insert(&self, id: &str, pkcs8: &[u8]) -> Result<(), KeyError> {
        let key = parse(id, pkcs8)?;
        self.0
            .keys
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .1
            .insert(id.into(), key);
        Ok(())
    }

    /// Signs `message` with the key of this id.
    ///
    /// # Errors
    /// There is no such key.
    pub fn sign(&self, id: &str, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        Ok(self.get(id)?.sign(message).as_ref().to_vec())
    }

    /// Whether this is a signature of `message` with the key of this id.
    pub fn has_signed(&self, id: &str, message: &[u8], signature: &[u8]) -> bool {
        self.get(id).is_ok_and(|key| {
            let public = UnparsedPublicKey::new(&ED25519, key.public_key().as_ref().to_vec());
            public.verify(message, signature).is_ok()
        })
    }

    /// The key of this id.
    pub(super) fn get(&self, id: &str) -> Result<Arc<Ed25519KeyPair>, KeyError> {
        let known = |keys: &Keys| keys.get(id).cloned();
        {
            let keys = self.0.keys.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(key) = known(&keys.1) {
                return Ok(key);
            }
            if self.0.directory.is_none() || now() < keys.0 + RELOAD_INTERVAL {
                return Err(KeyError::Unknown(id.into()));
            }
        }
        let mut keys = self.0.keys.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(directory) = &self.0.directory {
            *keys = (now(), read(directory)?);
        }
        known(&keys.1).ok_or_else(|| KeyError::Unknown(id.into()))
    }
}

fn read(directory: &PathBuf) -> Result<Keys, KeyError> {
    let unreadable = |error| KeyError::Directory(directory.clone(), error);
    let mut keys = Keys::new();
    for entry in std::fs::read_dir(directory).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let id = entry.file_name().to_string_lossy().into_owned();
        // The kubelet keeps the Secret's versions beside the keys, with names that begin with two dots.
        if !id.starts_with('.') {
            let key = parse(&id, &std::fs::read(entry.path()).map_err(unreadable)?)?;
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
        Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .unwrap()
            .as_ref()
            .to_vec()
    }

    #[test]
    fn a_mounted_secret_is_read_again_for_an_unknown_key() {
        let directory = std::env::temp_dir().join(format!("keys-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(directory.join("..2026_11_23")).unwrap();
        std::fs::write(directory.join("old"), pkcs8()).unwrap();
        let ring = KeyRing::from_directory(&directory).unwrap();
        assert!(ring.get("old").is_ok());
        assert!(matches!(ring.get("new"), Err(KeyError::Unknown(_))));
        std::fs::write(directory.join("new"), pkcs8()).unwrap();
        ring.0.keys.write().unwrap().0 -= RELOAD_INTERVAL;
        assert!(ring.get("new").is_ok());
        assert!(ring.get("../new").is_err(), "an id is a name, never a path");
        std::fs::write(directory.join("broken"), "no key").unwrap();
        assert!(matches!(KeyRing::from_directory(&directory), Err(KeyError::Malformed(id)) if id == "broken"));
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn an_inserted_key_is_found() {
        let ring = KeyRing::default();
        assert!(ring.get("a").is_err());
        ring.insert("a", &pkcs8()).unwrap();
        assert!(ring.get("a").is_ok());
        assert!(ring.insert("b", b"x").is_err());
    }
}

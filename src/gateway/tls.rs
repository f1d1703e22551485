//! TLS with a certificate that changes while it runs: the files are a mounted Secret, which the kubelet replaces.

use sha2::{Digest, Sha256};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, ServerConfig};

use super::config::Tls;

/// Between two looks at the files.
const LOOK: Duration = Duration::from_secs(10);

/// The files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// One of them cannot be read.
    #[error("{path}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// One of them is not PEM, or lacks what it should have.
    #[error("{path} is not what it should be")]
    Pem {
        /// The file.
        path: String,
        /// Why.
        source: pem::Error,
    },
    /// They cannot be used, or not with each other.
    #[error("certificate and key")]
    Unusable(#[from] rustls::Error),
}

/// The certificate in use.
#[derive(Debug)]
pub struct Certificate {
    files: Tls,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    digest: [u8; 32],
    key: Arc<CertifiedKey>,
}

impl Certificate {
    /// Reads the files.
    ///
    /// # Errors
    /// They cannot be used.
    pub fn new(files: &Tls) -> Result<Certificate, TlsError> {
        let current = Mutex::new(Pem::read(files)?.parse(files)?);
        Ok(Certificate {
            files: files.clone(),
            current,
        })
    }

    /// Reads the files again until the end of the process. Ones that cannot be used change nothing: the certificate before is served.
    pub async fn follow(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            match self.renew() {
                Ok(false) => {}
                Ok(true) => tracing::info!("a new certificate is served"),
                Err(error) => tracing::error!(error = crate::telemetry::chain(&error), "the certificate before stays in use"),
            }
        }
    }

    /// Reads the files once more. Returns whether they are new.
    ///
    /// # Errors
    /// They cannot be used.
    pub fn renew(&self) -> Result<bool, TlsError> {
        let pem = Pem::read(&self.files)?;
        if pem.digest() == self.current().digest {
            return Ok(false);
        }
        let renewed = pem.parse(&self.files)?;
        *self.current() = renewed;
        Ok(true)
    }

    fn current(&self) -> std::sync::MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current().key.clone())
    }
}

/// Takes TLS connections that will speak HTTP/2.
///
/// # Errors
/// The cryptography has none of the protocol's versions.
pub fn acceptor(certificate: Arc<Certificate>) -> Result<TlsAcceptor, TlsError> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// What the files hold.
struct Pem {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Pem {
    fn read(files: &Tls) -> Result<Pem, TlsError> {
        let read = |path: &std::path::Path| {
            std::fs::read(path).map_err(|source| TlsError::Read {
                path: path.display().to_string(),
                source,
            })
        };
        Ok(Pem {
            certificate: read(&files.certificate)?,
            key: read(&files.key)?,
        })
    }

    fn digest(&self) -> [u8; 32] {
        let digest = Sha256::new().chain_update(&self.certificate).chain_update([0]).chain_update(&self.key);
        digest.finalize().into()
    }

    fn parse(&self, files: &Tls) -> Result<Current, TlsError> {
        let broken = |path: &std::path::Path| {
            let path = path.display().to_string();
            move |source| TlsError::Pem { path, source }
        };
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.certificate).collect();
        let chain = chain.map_err(broken(&files.certificate))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(broken(&files.key))?;
        Ok(Current {
            digest: self.digest(),
            // Checks that they belong together.
            key: Arc::new(CertifiedKey::from_der(chain, key, &ring::default_provider())?),
        })
    }
}

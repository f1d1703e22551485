//! TLS with a certificate that is reloaded while the process runs: its files are a mounted Secret, which the kubelet
//! updates.

use sha2::{Digest, Sha256};
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, ServerConfig};
use tokio_rustls::server::TlsStream;

/// Interval between two reads of the files.
const RELOAD_INTERVAL: Duration = Duration::from_secs(10);
/// Longest TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The certificate or its key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{path}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A file is not PEM, or does not hold the expected item.
    #[error("{path} does not hold the expected PEM")]
    Pem {
        /// The file.
        path: String,
        /// Why.
        source: pem::Error,
    },
    /// The certificate or the key is not supported, or they do not belong together.
    #[error("certificate and key")]
    Unusable(#[from] rustls::Error),
}

/// The certificate that is served.
#[derive(Debug)]
pub struct Certificate {
    certificate: PathBuf,
    key: PathBuf,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    digest: [u8; 32],
    key: Arc<CertifiedKey>,
}

impl Certificate {
    /// Reads a certificate chain and its private key, both as PEM.
    ///
    /// # Errors
    /// The files cannot be used.
    pub fn from_files(certificate: &Path, key: &Path) -> Result<Certificate, TlsError> {
        Ok(Certificate {
            current: Mutex::new(load(certificate, key)?),
            certificate: certificate.to_owned(),
            key: key.to_owned(),
        })
    }

    /// Reloads the files until the end of the process. The old certificate stays in use while they cannot be used.
    pub async fn reload_periodically(&self) {
        loop {
            tokio::time::sleep(RELOAD_INTERVAL).await;
            match self.reload() {
                Ok(false) => {}
                Ok(true) => tracing::info!("certificate reloaded"),
                Err(error) => tracing::error!(
                    error = crate::telemetry::chain(&error),
                    "certificate cannot be reloaded; the old one stays in use"
                ),
            }
        }
    }

    /// Reads the files again. Returns whether they have changed.
    fn reload(&self) -> Result<bool, TlsError> {
        let loaded = load(&self.certificate, &self.key)?;
        let mut current = self.current();
        let changed = loaded.digest != current.digest;
        *current = loaded;
        Ok(changed)
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current().key.clone())
    }
}

/// Accepts TLS connections that will speak HTTP/2.
///
/// # Errors
/// The cryptographic library supports none of the protocol's versions.
pub fn acceptor(certificate: Arc<Certificate>) -> Result<TlsAcceptor, TlsError> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn load(certificate_path: &Path, key_path: &Path) -> Result<Current, TlsError> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|source| TlsError::Read {
            path: path.display().to_string(),
            source,
        })
    };
    let (certificate, key) = (read(certificate_path)?, read(key_path)?);
    let malformed = |path: &Path| {
        let path = path.display().to_string();
        move |source| TlsError::Pem { path, source }
    };
    let digest = Sha256::new()
        .chain_update(&certificate)
        .chain_update([0])
        .chain_update(&key)
        .finalize()
        .into();
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&certificate).collect();
    let chain = chain.map_err(malformed(certificate_path))?;
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(malformed(key_path))?;
    // Fails unless they belong together.
    let key = Arc::new(CertifiedKey::from_der(chain, key, &ring::default_provider())?);
    Ok(Current { digest, key })
}

/// A TCP connection with or without TLS.
pub enum MaybeTls {
    /// Without.
    Plain(TcpStream),
    /// With, after the handshake.
    Tls(Box<TlsStream<TcpStream>>),
}

impl MaybeTls {
    /// Performs the handshake if there is an acceptor.
    ///
    /// # Errors
    /// The handshake failed or took too long.
    pub async fn accept(stream: TcpStream, acceptor: Option<&TlsAcceptor>) -> io::Result<MaybeTls> {
        let Some(acceptor) = acceptor else {
            return Ok(MaybeTls::Plain(stream));
        };
        let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await??;
        Ok(MaybeTls::Tls(Box::new(stream)))
    }
}

impl AsyncRead for MaybeTls {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            MaybeTls::Plain(io) => Pin::new(io).poll_read(cx, buf),
            MaybeTls::Tls(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for MaybeTls {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            MaybeTls::Plain(io) => Pin::new(io).poll_write(cx, buf),
            MaybeTls::Tls(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            MaybeTls::Plain(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            MaybeTls::Tls(io) => Pin::new(io).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            MaybeTls::Plain(io) => io.is_write_vectored(),
            MaybeTls::Tls(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            MaybeTls::Plain(io) => Pin::new(io).poll_flush(cx),
            MaybeTls::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            MaybeTls::Plain(io) => Pin::new(io).poll_shutdown(cx),
            MaybeTls::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use super::{Certificate, acceptor};
use rcgen::CertifiedKey;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

fn write(directory: &Path) -> CertificateDer<'static> {
    let CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(["gateway.test".to_owned()]).unwrap();
    std::fs::write(directory.join("tls.crt"), cert.pem()).unwrap();
    std::fs::write(directory.join("tls.key"), signing_key.serialize_pem()).unwrap();
    cert.der().clone()
}

/// Connects, and accepts only the `trusted` certificate. Returns the negotiated protocol.
async fn handshake(
    address: std::net::SocketAddr,
    trusted: &CertificateDer<'static>,
) -> std::io::Result<Option<Vec<u8>>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("gateway.test").unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    Ok(stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec))
}

#[tokio::test]
async fn a_changed_certificate_is_served_without_a_restart_and_a_broken_one_is_not() {
    let directory: PathBuf = std::env::temp_dir().join(format!("tls-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir(&directory).unwrap();
    let first = write(&directory);
    let (crt, key) = (directory.join("tls.crt"), directory.join("tls.key"));
    let certificate = Arc::new(Certificate::from_files(&crt, &key).unwrap());
    let tls = acceptor(certificate.clone()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let _ = tls.accept(stream).await;
        }
    });
    assert_eq!(handshake(address, &first).await.unwrap().as_deref(), Some(&b"h2"[..]));
    assert!(!certificate.reload().unwrap(), "nothing has changed");

    let second = write(&directory);
    assert!(handshake(address, &second).await.is_err(), "not read yet");
    assert!(certificate.reload().unwrap());
    assert!(handshake(address, &second).await.is_ok());
    assert!(handshake(address, &first).await.is_err());

    // A certificate without its key: the two are written one after the other.
    let old_key = std::fs::read(&key).unwrap();
    write(&directory);
    std::fs::write(&key, old_key).unwrap();
    assert!(certificate.reload().is_err());
    assert!(handshake(address, &second).await.is_ok());
    for broken in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        std::fs::write(&crt, broken).unwrap();
        assert!(certificate.reload().is_err(), "{broken}");
    }
    std::fs::remove_dir_all(directory).unwrap();
}

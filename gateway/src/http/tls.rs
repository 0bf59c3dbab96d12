//! TLS at the public door: the certificate from two PEM files, read again when they change.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

/// How often the files are looked at: a renewed certificate is in use long before the old one ends.
const LOOK: Duration = Duration::from_secs(10);
/// For a client to finish its handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Where the certificate is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates, the server's own first, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// Why a certificate cannot be used; the text names the file.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {problem}")]
pub struct TlsError {
    file: String,
    problem: String,
}

/// The door's side of TLS; cheap to clone.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    files: TlsFiles,
    current: Arc<Current>,
}

#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl Tls {
    /// Reads the files. What is wrong with them is said before anything is served.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let current = Arc::new(Current(ArcSwap::from_pointee(read(&files)?)));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| broken(&files.certificate, error))?;
        let mut config = builder.with_no_client_auth().with_cert_resolver(current.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), files, current })
    }

    /// Does the handshake; whether the client then speaks HTTP/2.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<(TlsStream<TcpStream>, bool)> {
        let stream = tokio::time::timeout(HANDSHAKE, self.acceptor.accept(stream)).await??;
        let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok((stream, h2))
    }

    /// Reads the files again whenever they have changed, until told to stop.
    pub async fn renew(self, stop: CancellationToken) {
        let mut seen = changed_at(&self.files);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            let now = changed_at(&self.files);
            if now != seen {
                seen = now;
                self.look_again();
            }
        }
    }

    /// Reads the files again. Ones that cannot be used change nothing.
    pub fn look_again(&self) {
        match read(&self.files) {
            Ok(key) => {
                self.current.0.store(Arc::new(key));
                tracing::info!(certificate = %self.files.certificate.display(), "certificate read again");
            }
            Err(error) => tracing::error!(%error, "the new certificate cannot be used; the old one stays"),
        }
    }
}

fn changed_at(files: &TlsFiles) -> [Option<SystemTime>; 2] {
    [&files.certificate, &files.key].map(|path| std::fs::metadata(path).and_then(|m| m.modified()).ok())
}

fn broken(path: &Path, problem: impl ToString) -> TlsError {
    TlsError { file: path.display().to_string(), problem: problem.to_string() }
}

fn read(files: &TlsFiles) -> Result<CertifiedKey, TlsError> {
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| broken(&files.certificate, error))?;
    if chain.is_empty() {
        return Err(broken(&files.certificate, "there is no certificate in it"));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| broken(&files.key, error))?;
    let signing = rustls::crypto::ring::sign::any_supported_type(&key);
    let key = CertifiedKey::new(chain, signing.map_err(|error| broken(&files.key, error))?);
    match key.keys_match() {
        // Not every kind of key can be compared; a wrong one then fails at the first handshake.
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(key),
        Err(error) => Err(broken(&files.key, format!("not the certificate's key: {error}"))),
    }
}

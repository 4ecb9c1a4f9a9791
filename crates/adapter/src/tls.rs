//! TLS, on both sides: rustls, computing with ring, from PEM files.
//!
//! All encryption here uses the cryptography of [`provider`]; no code installs a provider for the whole process.
//! Errors name a file and never quote its content.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// The PEM files of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The certificate, and the chain up to its authority.
    pub certificate: PathBuf,
    /// The private key of the certificate.
    pub key: PathBuf,
    /// The authorities of client certificates; `None`: callers need no certificate.
    pub client_ca: Option<PathBuf>,
}

/// One of [`Files`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// [`Files::certificate`]
    Certificate,
    /// [`Files::key`]
    Key,
    /// [`Files::client_ca`]
    ClientCa,
}

/// A mistake in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// The file.
    pub part: Part,
    /// The mistake, with the path of the file.
    pub message: String,
}

/// The server certificates that a client accepts.
#[derive(Debug, Clone, Copy)]
pub enum Trust<'a> {
    /// None: the client does not encrypt.
    Nobody,
    /// Those of the authorities that the system trusts.
    System,
    /// Those of the authorities in this PEM file, and no others.
    File(&'a Path),
}

/// The certificate that a server presents; it can be replaced while the server runs.
pub struct Identity(RwLock<Arc<CertifiedKey>>);

/// The cryptography provider of all TLS connections: ring.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// All mistakes in the files of a server.
pub fn check(files: &Files) -> Vec<Wrong> {
    let identity = certified(files).err().into_iter().flatten();
    let authorities = files.client_ca.as_deref().and_then(|path| roots(path).err());
    identity.chain(authorities.map(|message| Wrong { part: Part::ClientCa, message })).collect()
}

/// The server's side of TLS, 1.2 and 1.3, and the handle that replaces its certificate. With `client_ca`, the
/// handshake fails without a certificate of that authority.
pub fn server(files: &Files) -> Result<(ServerConfig, Arc<Identity>), Vec<Wrong>> {
    let identity = Arc::new(Identity(RwLock::new(Arc::new(certified(files)?))));
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| vec![Wrong { part: Part::Certificate, message: error.to_string() }])?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let wrong = |message| vec![Wrong { part: Part::ClientCa, message }];
            let authorities = Arc::new(roots(path).map_err(wrong)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(authorities, provider())
                .build()
                .map_err(|error| wrong(format!("`{}`: {error}", path.display())))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    Ok((builder.with_cert_resolver(Arc::clone(&identity) as Arc<dyn ResolvesServerCert>), identity))
}

/// A client's side of TLS. `identity` is its certificate chain and private key, for servers that require client
/// certificates.
pub fn client(trust: Trust<'_>, identity: Option<(&Path, &Path)>) -> Result<ClientConfig, String> {
    let authorities = match trust {
        Trust::Nobody => RootCertStore::empty(),
        Trust::File(path) => roots(path)?,
        Trust::System => {
            let mut authorities = RootCertStore::empty();
            // A system certificate that cannot be read is skipped.
            authorities.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            authorities
        }
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(authorities);
    match identity {
        None => Ok(builder.with_no_client_auth()),
        Some((certificate, key)) => builder
            .with_client_auth_cert(certificates(certificate)?, private_key(key)?)
            .map_err(|error| format!("`{}` and `{}`: {error}", certificate.display(), key.display())),
    }
}

impl Identity {
    /// Presents the current content of the files on new connections. If they have mistakes, the earlier certificate
    /// stays.
    pub fn reload(&self, files: &Files) -> Result<(), Vec<Wrong>> {
        let new = Arc::new(certified(files)?);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(..)")
    }
}

fn certified(files: &Files) -> Result<CertifiedKey, Vec<Wrong>> {
    let chain =
        certificates(&files.certificate).map_err(|message| Wrong { part: Part::Certificate, message });
    let key = private_key(&files.key).map_err(|message| Wrong { part: Part::Key, message });
    let (chain, key) = match (chain, key) {
        (Ok(chain), Ok(key)) => (chain, key),
        (chain, key) => return Err(chain.err().into_iter().chain(key.err()).collect()),
    };
    CertifiedKey::from_der(chain, key, &provider()).map_err(|error| {
        let (key, certificate) = (files.key.display(), files.certificate.display());
        let message = format!("`{key}` is not the key of the first certificate in `{certificate}`: {error}");
        vec![Wrong { part: Part::Key, message }]
    })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = read.map_err(|error| unreadable(path, &error))?;
    if chain.is_empty() {
        return Err(format!(
            "`{}` holds no certificate; it must be PEM, `-----BEGIN CERTIFICATE-----`",
            path.display()
        ));
    }
    Ok(chain)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| match error {
        PemError::NoItemsFound => {
            format!(
                "`{}` holds no key; it must be PEM, `-----BEGIN PRIVATE KEY-----`, without a passphrase",
                path.display()
            )
        }
        other => unreadable(path, &other),
    })
}

fn roots(path: &Path) -> Result<RootCertStore, String> {
    let mut authorities = RootCertStore::empty();
    for certificate in certificates(path)? {
        authorities.add(certificate).map_err(|error| format!("`{}`: {error}", path.display()))?;
    }
    Ok(authorities)
}

/// The message for a file that cannot be read. It shows only I/O errors, because others may quote the content.
fn unreadable(path: &Path, error: &PemError) -> String {
    match error {
        PemError::Io(error) => format!("`{}` cannot be read: {error}", path.display()),
        _ => format!("`{}` is not PEM", path.display()),
    }
}

//! TLS to PostgreSQL: which certificates are trusted, by libpq's parameters.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

/// The protocol name with which a server that skips the negotiation of TLS is addressed.
const ALPN: &[u8] = b"postgresql";

/// libpq's `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TlsMode {
    Disable,
    /// Also libpq's `allow`, which would send the first message without TLS.
    Prefer,
    /// With any certificate, unless `sslrootcert` names authorities.
    Require,
    /// With a certificate of a trusted authority for any host.
    VerifyCa,
    /// With a certificate of a trusted authority for this host.
    VerifyFull,
}

impl FromStr for TlsMode {
    type Err = Cow<'static, str>;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "disable" => Self::Disable,
            "allow" | "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            _ => {
                return Err("must set sslmode to disable, allow, prefer, require, verify-ca or \
                            verify-full"
                    .into());
            }
        })
    }
}

/// The trusted certificate authorities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Roots {
    /// Those of the operating system.
    System,
    /// Those in this PEM file.
    File(PathBuf),
}

/// The PEM files with which Greenroom authenticates itself.
#[derive(Debug, Clone)]
pub(super) struct ClientCertificate {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

/// The TLS parameters of a URL.
#[derive(Debug, Clone)]
pub(super) struct TlsSettings {
    pub(super) mode: TlsMode,
    roots: Roots,
    certificate: Option<ClientCertificate>,
    /// Whether the connection begins with the handshake (libpq's `sslnegotiation=direct`).
    pub(super) is_direct: bool,
}

impl TlsSettings {
    /// Applies libpq's rules: `sslrootcert=system` implies `verify-full`, and any other `sslrootcert`
    /// makes `require` a `verify-ca`.
    pub(super) fn new(
        mode: Option<TlsMode>,
        roots: Option<Roots>,
        certificate: Option<ClientCertificate>,
        is_direct: bool,
    ) -> Result<Self, Cow<'static, str>> {
        let mode = match (mode, &roots) {
            (None, Some(Roots::System)) => TlsMode::VerifyFull,
            (Some(mode), Some(Roots::System)) if mode != TlsMode::VerifyFull => {
                return Err("must set sslmode=verify-full, because anyone can get a certificate \
                            from the system's authorities"
                    .into());
            }
            (Some(TlsMode::Require), Some(Roots::File(_))) => TlsMode::VerifyCa,
            (mode, _) => mode.unwrap_or(TlsMode::Prefer),
        };
        if is_direct && mode < TlsMode::Require {
            return Err("must set sslmode=require or stricter with sslnegotiation=direct".into());
        }
        Ok(Self { mode, roots: roots.unwrap_or(Roots::System), certificate, is_direct })
    }

    /// Reads the files. `None` means that TLS is disabled.
    ///
    /// # Errors
    /// Returns a sentence if a file cannot be used, or if no authority is trusted.
    pub(super) fn client_config(&self) -> Result<Option<ClientConfig>, String> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = match self.mode {
            TlsMode::Disable => return Ok(None),
            TlsMode::Prefer | TlsMode::Require => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider))),
            TlsMode::VerifyCa => {
                let roots = Arc::new(self.roots.read()?);
                let chain = WebPkiServerVerifier::builder_with_provider(roots, provider);
                let chain = chain.build().map_err(|error| error.to_string())?;
                builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyHost(chain)))
            }
            TlsMode::VerifyFull => builder.with_root_certificates(self.roots.read()?),
        };
        let mut config = match &self.certificate {
            None => builder.with_no_client_auth(),
            Some(files) => {
                let (chain, key) = files.read()?;
                builder.with_client_auth_cert(chain, key).map_err(|error| {
                    format!("sslcert and sslkey do not belong together: {error}")
                })?
            }
        };
        if self.is_direct {
            config.alpn_protocols = vec![ALPN.to_vec()];
        }
        Ok(Some(config))
    }
}

impl Roots {
    fn read(&self) -> Result<RootCertStore, String> {
        /// Read once, because the system has more than a hundred.
        static SYSTEM: LazyLock<RootCertStore> = LazyLock::new(|| {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            roots
        });
        match self {
            Self::System if SYSTEM.is_empty() => Err("the system has no certificate authorities; \
                install the package ca-certificates, or set sslrootcert"
                .to_owned()),
            Self::System => Ok(SYSTEM.clone()),
            Self::File(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(path, "sslrootcert")? {
                    roots.add(certificate).map_err(|error| {
                        format!("sslrootcert {} is invalid: {error}", path.display())
                    })?;
                }
                Ok(roots)
            }
        }
    }
}

impl ClientCertificate {
    fn read(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
        let chain = certificates(&self.certificate, "sslcert")?;
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .map_err(|error| format!("failed to read sslkey {}: {error}", self.key.display()))?;
        Ok((chain, key))
    }
}

/// Reads a PEM file with at least one certificate.
fn certificates(path: &Path, parameter: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let read =
        read.map_err(|error| format!("failed to read {parameter} {}: {error}", path.display()))?;
    if read.is_empty() {
        return Err(format!("{parameter} {} contains no certificate in PEM", path.display()));
    }
    Ok(read)
}

/// Accepts any certificate whose key the server proves to have.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Accepts a certificate of a trusted authority for any host.
#[derive(Debug)]
struct AnyHost(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyHost {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified =
            self.0.verify_server_cert(certificate, intermediates, name, ocsp_response, now);
        match verified {
            // The name is verified last.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

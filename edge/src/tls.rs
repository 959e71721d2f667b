//! How servers elsewhere are trusted that are asked over TLS.

use std::sync::Arc;

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::{ClientConfig, RootCertStore};

/// Whom the system trusts. Certificates that cannot be read are no reason not to trust the others.
#[must_use]
pub fn system() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// A client that trusts `roots`, and shows no certificate itself.
///
/// # Errors
/// When there is no protocol to speak.
pub fn trusting(roots: RootCertStore) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// Connections of HTTP/1.1, over TLS where the URL says so, to whom the system trusts.
///
/// # Errors
/// As [`trusting`].
pub fn https() -> Result<HttpsConnector<HttpConnector>, String> {
    let tls = trusting(system())?;
    Ok(HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build())
}

//! Certificates.

use crate::files::{Files, MAX_PEM, contents, failed};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::sync::Arc;

/// Reads the files, all but the password, and prepares connections.
///
/// The crypto provider is named here rather than installed for the process,
/// which belongs to somebody else.
///
/// # Errors
/// The file and the reason.
pub(crate) fn prepare(files: &Files) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots(files.ca.as_deref())?);
    let config = match (&files.cert, &files.key) {
        (None, None) => config.with_no_client_auth(),
        (Some(cert), Some(key)) => {
            let chain = certificates(cert)?;
            let key = private_key(key)?;
            config.with_client_auth_cert(chain, key).map_err(|e| failed(cert, &e))?
        }
        (Some(_), None) => return Err("a certificate needs its key".into()),
        (None, Some(_)) => return Err("a key needs its certificate".into()),
    };
    Ok(Arc::new(config))
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    match ca {
        Some(path) => {
            for certificate in certificates(path)? {
                store.add(certificate).map_err(|e| failed(path, &e))?;
            }
        }
        None => {
            // Some that the system trusts may be unusable; that is no reason to
            // trust none.
            let system = rustls_native_certs::load_native_certs();
            let (added, _) = store.add_parsable_certificates(system.certs);
            if added == 0 {
                return Err("the system has no certificate authorities: name a file".into());
            }
        }
    }
    Ok(store)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = contents(path, MAX_PEM)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|e| no_pem(path, &e))?;
    if found.is_empty() {
        return Err(failed(path, &"no certificate in it"));
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let bytes = contents(path, MAX_PEM)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|e| match e {
        pem::Error::NoItemsFound => failed(path, &"no private key in it that is not encrypted"),
        other => no_pem(path, &other),
    })
}

/// The text of some of these errors repeats a part of the file, which may be a key.
fn no_pem(path: &Path, _: &pem::Error) -> String {
    failed(path, &"not in PEM format")
}

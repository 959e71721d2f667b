//! Signatures of the Standard Webhooks: <https://www.standardwebhooks.com>.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Secrets that whoever is told shares with us. There are several while they change.
#[derive(Clone)]
pub struct Secrets(Vec<Hmac<Sha256>>);

impl Secrets {
    /// Those of a file, one on each line: `whsec_` and base64.
    ///
    /// # Errors
    /// When the file cannot be read, or holds something else. Secrets are not repeated.
    pub fn load(file: &Path) -> Result<Self, String> {
        let wrong = |why: &str| format!("WEBHOOK_SECRET_FILE {}: {why}", file.display());
        let text = fs::read_to_string(file).map_err(|error| wrong(&error.to_string()))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let secrets: Option<Vec<_>> = lines.map(secret).collect();
        let secrets = secrets.ok_or_else(|| wrong("a line is not whsec_ and base64"))?;
        if secrets.is_empty() {
            return Err(wrong("it has none"));
        }
        Ok(Self(secrets))
    }

    /// What goes into the field `webhook-signature`.
    #[must_use]
    pub fn sign(&self, id: &str, timestamp: u64, body: &str) -> String {
        let signed = format!("{id}.{timestamp}.{body}");
        let signatures = self.0.iter().map(|secret| {
            let signature = secret.clone().chain_update(signed.as_bytes()).finalize().into_bytes();
            format!("v1,{}", STANDARD.encode(signature))
        });
        signatures.collect::<Vec<_>>().join(" ")
    }
}

fn secret(line: &str) -> Option<Hmac<Sha256>> {
    let key = STANDARD.decode(line.strip_prefix("whsec_")?).ok()?;
    Hmac::new_from_slice(&key).ok().filter(|_| !key.is_empty())
}

#[cfg(test)]
#[allow(clippy::panic, clippy::unwrap_used)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Secrets, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        Secrets::load(file.path())
    }

    #[test]
    fn the_signature_is_that_of_other_implementations() {
        // The example of the libraries of the Standard Webhooks.
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        let sign = |text: &str| {
            let secrets = load(text).unwrap();
            secrets.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#)
        };
        assert_eq!(sign(secret), signature);
        let both = sign(&format!("{secret}\r\n\n {secret} \n"));
        assert_eq!(both, format!("{signature} {signature}"));
    }

    #[test]
    fn what_is_no_secret_is_refused_and_never_repeated() {
        for (text, said) in [
            ("", "has none"),
            ("c2VjcmV0", "is not whsec_"),
            ("whsec_", "is not whsec_"),
            ("whsec_c2$VjcmV0", "is not whsec_"),
        ] {
            let Err(error) = load(text) else { panic!("{text} was read") };
            assert!(error.contains(said) && !error.contains("c2"), "{text}: {error}");
        }
    }
}

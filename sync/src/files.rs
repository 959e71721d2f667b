//! The files with certificates and passwords, and how they are read.

use std::fmt;
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The most bytes of a file with certificates or a key: a bundle of all public
/// authorities is a quarter of it.
pub(crate) const MAX_PEM: u64 = 1 << 20;
/// The most bytes of a file with a password.
const MAX_PASSWORD: u64 = 64 << 10;

/// Names of files. All but `password` are in PEM format, of at most 1 MiB; that one
/// may have 64 KiB. They have to be regular files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files {
    /// The authorities that may have signed a peer's certificate. Without it,
    /// those of the operating system.
    pub ca: Option<PathBuf>,
    /// The certificate to show to peers, which servers ask for unless they have
    /// `tls-auth-clients no`. Goes with `key`.
    pub cert: Option<PathBuf>,
    /// The private key of `cert`, not encrypted.
    pub key: Option<PathBuf>,
    /// Its first line is the password for peers whose URL has none.
    pub password: Option<PathBuf>,
}

/// The first line of a file.
pub(crate) fn password(path: &Path) -> Result<Arc<str>, String> {
    let bytes = contents(path, MAX_PASSWORD)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| failed(path, &"not UTF-8"))?;
    match text.lines().next() {
        None | Some("") => Err(failed(path, &"no password in its first line")),
        Some(password) => Ok(password.into()),
    }
}

/// What is in a regular file of at most `most` bytes.
///
/// Opening a pipe that nobody writes to would wait for ever, hence non-blocking;
/// and what is asked is the open file, since a name may stand for another one at
/// any moment.
pub(crate) fn contents(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    let fault = |e: std::io::Error| failed(path, &e);
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(fault)?;
    if !file.metadata().map_err(fault)?.is_file() {
        return Err(failed(path, &"not a regular file"));
    }
    let mut bytes = Vec::new();
    let read = file.take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(fault)?;
    if u64::try_from(read).is_ok_and(|read| read <= most) {
        Ok(bytes)
    } else {
        Err(failed(path, &format_args!("longer than {most} bytes")))
    }
}

pub(crate) fn failed(path: &Path, why: &dyn fmt::Display) -> String {
    format!("{}: {why}", path.display())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn only_regular_files_of_bounded_size_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("fits"), b"1234").unwrap();
        fs::write(path("long"), b"12345").unwrap();
        let made = std::process::Command::new("mkfifo").arg(path("pipe")).status().unwrap();
        assert!(made.success());
        assert_eq!(contents(&path("fits"), 4).unwrap(), b"1234");
        for (path, why) in [
            (path("long"), "longer than 4 bytes"),
            (path("none"), "No such file or directory"),
            (path("pipe"), "not a regular file"),
            (dir.path().into(), "not a regular file"),
            ("/dev/zero".into(), "not a regular file"),
            ("/dev/null".into(), "not a regular file"),
        ] {
            let error = contents(&path, 4).unwrap_err();
            assert!(error.starts_with(&format!("{}: {why}", path.display())), "{error}");
        }
    }

    #[test]
    fn the_password_is_the_first_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        let read = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            password(&path).map_err(|why| why.rsplit(": ").next().unwrap_or_default().to_owned())
        };
        for text in ["hunter2", "hunter2\n", "hunter2\r\n", "hunter2\nold"] {
            assert_eq!(read(text.as_bytes()).unwrap().as_ref(), "hunter2");
        }
        assert_eq!(read(b" pass word \n").unwrap().as_ref(), " pass word ");
        for text in [b"".as_slice(), b"\n", b"\nhunter2"] {
            assert_eq!(read(text).unwrap_err(), "no password in its first line");
        }
        assert_eq!(read(b"\xff\n").unwrap_err(), "not UTF-8");
        assert_eq!(read(&[b'x'; 65_537]).unwrap_err(), "longer than 65536 bytes");
    }
}

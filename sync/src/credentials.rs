//! What is shown to peers: certificates and a password, in files that may change.

use crate::files::{Files, password};
use crate::tls;
use crate::url::PeerUrl;
use crate::wire::one_line;
use rustls::ClientConfig;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The shortest time from one reading of a file to the next.
const ONCE: Duration = Duration::from_secs(1);

/// What is in the [`Files`].
///
/// The threads of the peers read them again whenever they connect, though not more
/// than once a second; nobody else does, so that a file system that hangs holds up
/// them alone. A file that cannot be read, or makes no sense, changes nothing:
/// what it held before stays in use.
///
/// An owner that starts another [`Pusher`](crate::Pusher) hands these over to it, as
/// long as the names are the same: so it, too, knows what was in the files.
#[derive(Default)]
pub struct Credentials {
    files: Files,
    tls: Cached<Arc<ClientConfig>>,
    password: Cached<Arc<str>>,
}

/// What one connection needs. No `Debug`: the password would be in it.
pub(crate) struct Secrets {
    /// Present exactly when the URL asks for TLS.
    pub tls: Option<Arc<ClientConfig>>,
    pub password: Option<Arc<str>>,
    /// Why some of it may be out of date.
    pub trouble: Option<String>,
}

impl Credentials {
    /// Reads nothing yet.
    #[must_use]
    pub fn new(files: Files) -> Self {
        Self { files, ..Self::default() }
    }

    /// The names.
    #[must_use]
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Has the files read again for the next connection, though that be within the
    /// second, and told what is wrong with them, though that was told before. Does
    /// not read and does not wait.
    pub fn refresh(&self) {
        self.tls.refresh();
        self.password.refresh();
    }

    /// What is wrong with the files, if it has not been told yet: one line of at most
    /// 201 characters. Does not read and does not wait.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        let complaint = self.tls.complaint().or_else(|| self.password.complaint())?;
        Some(one_line(&complaint))
    }

    /// What a connection to `url` needs. Reads files.
    ///
    /// # Errors
    /// The file and the reason, when nothing is known of a file that is needed.
    pub(crate) fn of(&self, url: &PeerUrl) -> Result<Secrets, String> {
        let mut secrets = Secrets { tls: None, password: None, trouble: None };
        if url.is_tls() {
            let (tls, trouble) = self.tls.get(Instant::now(), || tls::prepare(&self.files))?;
            (secrets.tls, secrets.trouble) = (Some(tls), trouble);
        }
        match (url.password(), &self.files.password) {
            (Some(password), _) => secrets.password = Some(password.into()),
            (None, Some(path)) => {
                let (password, trouble) = self.password.get(Instant::now(), || password(path))?;
                secrets.password = Some(password);
                secrets.trouble = secrets.trouble.or(trouble);
            }
            (None, None) if url.is_hidden() => {
                return Err("the URL has *** for its password, and no file has one".into());
            }
            (None, None) if url.lacks_password() => {
                return Err("the URL has a user and no password, and no file has one".into());
            }
            (None, None) => {}
        }
        Ok(secrets)
    }
}

/// The names, and nothing that is in the files.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Credentials").field(&self.files).finish()
    }
}

/// What was made of one or several files when they last made sense.
struct Cached<T> {
    /// Held for a moment, never while reading.
    known: Mutex<Known<T>>,
    /// Somebody has read.
    done: Condvar,
    /// How long to wait for another thread that reads. Reading may take for ever.
    patience: Duration,
}

struct Known<T> {
    value: Option<T>,
    /// When the last reading began; `None` when another one is due in any case.
    read: Option<Instant>,
    /// It goes on.
    reading: bool,
    /// Why the last one failed.
    trouble: Option<String>,
    /// The owner knows of the trouble.
    told: bool,
}

impl<T> Default for Cached<T> {
    fn default() -> Self {
        let known = Known { value: None, read: None, reading: false, trouble: None, told: false };
        Self { known: Mutex::new(known), done: Condvar::new(), patience: ONCE }
    }
}

impl<T: Clone> Cached<T> {
    /// The value, and why it may be out of date. It is read first when it is time.
    fn get(
        &self,
        now: Instant,
        read: impl FnOnce() -> Result<T, String>,
    ) -> Result<(T, Option<String>), String> {
        if let Some(reading) = self.begin(now) {
            let outcome = read();
            self.known().take(outcome);
            drop(reading);
        }
        let known = self.known();
        match (&known.value, &known.trouble) {
            (Some(value), trouble) => Ok((value.clone(), trouble.clone())),
            (None, Some(trouble)) => Err(trouble.clone()),
            (None, None) => Err("a file is still being read for another connection".into()),
        }
    }

    /// Says when it is time to read, and once for each time. If another thread is
    /// about it, its outcome is awaited.
    fn begin(&self, now: Instant) -> Option<Reading<'_, T>> {
        let known = self.known();
        let waited = self.done.wait_timeout_while(known, self.patience, |known| known.reading);
        let (mut known, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let due = known.read.is_none_or(|at| now.saturating_duration_since(at) >= ONCE);
        if known.reading || !due {
            return None;
        }
        (known.read, known.reading) = (Some(now), true);
        Some(Reading(self))
    }
}

impl<T> Cached<T> {
    fn refresh(&self) {
        let mut known = self.known();
        (known.read, known.trouble) = (None, None);
    }

    fn complaint(&self) -> Option<String> {
        let mut known = self.known();
        if std::mem::replace(&mut known.told, true) { None } else { known.trouble.clone() }
    }

    fn known(&self) -> MutexGuard<'_, Known<T>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Known<T> {
    fn take(&mut self, outcome: Result<T, String>) {
        let trouble = match outcome {
            Ok(value) => {
                self.value = Some(value);
                None
            }
            Err(why) if self.value.is_some() => Some(format!("{why}; what it held before is used")),
            Err(why) => Some(why),
        };
        if self.trouble != trouble {
            (self.trouble, self.told) = (trouble, false);
        }
    }
}

/// Ends a reading when dropped, be it in a panic.
struct Reading<'a, T>(&'a Cached<T>);

impl<T> Drop for Reading<'_, T> {
    fn drop(&mut self) {
        self.0.known().reading = false;
        self.0.done.notify_all();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::fs;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn files_are_read_at_most_once_a_second() {
        let (cached, read) = (Cached::default(), Cell::new(0));
        let begin = Instant::now();
        let at = |ms: u32| {
            let get = cached.get(begin.checked_add(MS.saturating_mul(ms)).unwrap(), || {
                read.set(read.get() + 1);
                // Whether it goes well or not.
                if read.get() % 2 == 0 { Err("away".into()) } else { Ok(read.get()) }
            });
            (get.unwrap().0, read.get())
        };
        for (ms, value, reads) in [
            (0, 1, 1),
            (0, 1, 1),
            (999, 1, 1),
            (1_000, 1, 2),
            (1_999, 1, 2),
            // Time that seems to go back is no time.
            (500, 1, 2),
            (2_000, 3, 3),
            (9_000, 3, 4),
            (9_999, 3, 4),
            (10_000, 5, 5),
        ] {
            assert_eq!(at(ms), (value, reads), "at {ms} ms");
        }
        cached.refresh();
        assert_eq!(at(10_001), (5, 6));
        assert_eq!(at(10_002), (5, 6));
    }

    #[test]
    fn what_is_wrong_is_told_once() {
        let cached = Cached::default();
        let mut now = Instant::now();
        let mut get = |outcome: Result<u8, &str>| {
            now = now.checked_add(ONCE).unwrap();
            cached.get(now, || outcome.map_err(str::to_owned))
        };
        assert_eq!(cached.complaint(), None);
        // Nothing is known yet.
        assert_eq!(get(Err("away")), Err("away".into()));
        assert_eq!(get(Err("away")), Err("away".into()));
        assert_eq!(cached.complaint().as_deref(), Some("away"));
        assert_eq!(get(Err("away")), Err("away".into()));
        assert_eq!(cached.complaint(), None);
        // It heals, and what is known stays.
        assert_eq!(get(Ok(1)), Ok((1, None)));
        assert_eq!(cached.complaint(), None);
        let kept = "away; what it held before is used";
        for _ in 0..2 {
            assert_eq!(get(Err("away")), Ok((1, Some(kept.into()))));
        }
        assert_eq!(cached.complaint().as_deref(), Some(kept));
        assert_eq!(cached.complaint(), None);
        assert_eq!(get(Ok(2)), Ok((2, None)));
        // Who has it read again is told again.
        assert!(get(Err("away")).is_ok());
        assert_eq!(cached.complaint().as_deref(), Some(kept));
        cached.refresh();
        assert_eq!(cached.complaint(), None);
        assert!(get(Err("away")).is_ok());
        assert_eq!(cached.complaint().as_deref(), Some(kept));
    }

    #[test]
    fn who_comes_while_a_file_is_read_goes_by_what_comes_of_it() {
        let cached = Cached::default();
        let now = Instant::now();
        let (cached, other) = (&cached, std::sync::Barrier::new(2));
        std::thread::scope(|scope| {
            let first = cached.get(now, || {
                scope.spawn(|| {
                    other.wait();
                    assert_eq!(cached.get(now, || panic!("read again")), Ok((1, None)));
                });
                other.wait();
                Ok(1)
            });
            assert_eq!(first, Ok((1, None)));
        });
    }

    #[test]
    fn nobody_waits_for_ever_for_a_file_that_hangs() {
        let cached = Cached { patience: Duration::ZERO, ..Cached::default() };
        let begin = Instant::now();
        let later = |n| begin.checked_add(ONCE.saturating_mul(n)).unwrap();
        let during = |now, value| {
            let meanwhile = Cell::new(None);
            let got = cached.get(now, || {
                meanwhile.set(Some(cached.get(later(9), || panic!("read again"))));
                Ok(value)
            });
            assert_eq!(got, Ok((value, None)));
            meanwhile.take().unwrap()
        };
        let error = during(begin, 1).unwrap_err();
        assert!(error.contains("still being read"), "{error}");
        assert_eq!(during(later(1), 2), Ok((1, None)));
        // A panic is no reading that goes on.
        let panics = std::panic::AssertUnwindSafe(|| cached.get(later(2), || panic!("read again")));
        assert!(std::panic::catch_unwind(panics).is_err());
        assert_eq!(cached.get(later(3), || Ok(3)), Ok((3, None)));
    }

    #[test]
    fn what_is_set_anew_while_a_file_is_read_is_read_again() {
        let cached = Cached::default();
        let now = Instant::now();
        let first = cached.get(now, || {
            cached.refresh();
            Ok(1)
        });
        assert_eq!((first, cached.get(now, || Ok(2))), (Ok((1, None)), Ok((2, None))));
    }

    #[test]
    fn neither_text_shows_a_password() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        fs::write(&path, "hunter2").unwrap();
        let credentials =
            Credentials::new(Files { password: Some(path.clone()), ..Files::default() });
        let url = |text| PeerUrl::parse(text).unwrap();
        let password = |text| credentials.of(&url(text)).map(|secrets| secrets.password);
        assert_eq!(password("redis://u@h").unwrap().as_deref(), Some("hunter2"));
        assert_eq!(password("redis://h").unwrap().as_deref(), Some("hunter2"));
        assert_eq!(password("redis://u:own@h").unwrap().as_deref(), Some("own"));
        let shown = format!("{credentials:?}");
        assert!(shown.contains("password") && !shown.contains("hunter2"), "{shown}");
        let none = Credentials::default();
        assert!(none.of(&url("redis://u@h")).is_err());
        assert!(none.of(&url("redis://h")).unwrap().password.is_none());
    }
}

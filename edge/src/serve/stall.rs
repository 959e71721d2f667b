//! A socket whose other end has to begin to speak, and to take what it is sent.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How many bytes a client sends before the server knows for sure which protocol it speaks:
/// those by which HTTP/2 begins. Until then neither protocol's own bounds of time hold.
const PREFACE: usize = 24;

/// A stream on which it is an error when nothing comes at first, or when a write makes no
/// progress, for a time.
#[derive(Debug)]
pub struct Stalling<S> {
    stream: S,
    patience: Duration,
    /// Runs until so many bytes have come.
    opening: Option<Pin<Box<Sleep>>>,
    read: usize,
    /// Runs while a write waits.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<S> Stalling<S> {
    /// `stream`, whose other end is waited for as long as `patience`.
    pub fn new(stream: S, patience: Duration) -> Self {
        let opening = Some(Box::pin(sleep(patience)));
        Self { stream, patience, opening, read: 0, timer: None }
    }

    /// What a write came to, unless it has waited too long.
    fn checked<T>(
        &mut self,
        result: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.timer = None;
            return result;
        }
        let patience = self.patience;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(timer.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stalling<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        let Some(opening) = &mut self.opening else { return result };
        if result.is_pending() {
            ready!(opening.as_mut().poll(context));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        self.read = self.read.saturating_add(buffer.filled().len().saturating_sub(before));
        if self.read >= PREFACE {
            self.opening = None;
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stalling<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, buffer);
        self.checked(result, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, buffers);
        self.checked(result, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::unwrap_used)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::runtime::Builder;
    use tokio::time::timeout;

    use super::*;

    #[test]
    fn a_client_has_to_begin_and_may_then_be_silent() {
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let patience = Duration::from_secs(30);
            for (bytes, is_late) in [(0, true), (PREFACE - 1, true), (PREFACE, false)] {
                let (ours, mut theirs) = duplex(64);
                let mut stream = Stalling::new(ours, patience);
                theirs.write_all(&vec![1; bytes]).await.unwrap();
                stream.read_exact(&mut vec![0; bytes]).await.unwrap();
                let more = timeout(patience * 2, stream.read_u8()).await;
                assert_eq!(more.is_ok_and(|read| read.is_err()), is_late, "{bytes}");
            }
        });
    }

    #[test]
    fn a_write_waits_for_a_slow_reader_and_not_for_one_that_has_stopped() {
        let patience = Duration::from_millis(200);
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (ours, mut theirs) = duplex(16);
            let mut stream = Stalling::new(ours, patience);
            let reader = tokio::spawn(async move {
                let mut read = [0; 16];
                for _ in 0..8 {
                    sleep(Duration::from_millis(50)).await;
                    theirs.read_exact(&mut read).await.unwrap();
                }
                theirs
            });
            // Longer in all than it is patient, but never without progress for so long.
            stream.write_all(&[1; 128]).await.unwrap();
            let _theirs = reader.await.unwrap();
            let stuck =
                timeout(Duration::from_secs(10), stream.write_all(&[1; 128])).await.unwrap();
            assert_eq!(stuck.unwrap_err().kind(), io::ErrorKind::TimedOut);
        });
    }
}

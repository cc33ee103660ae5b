//! The socket under a connection. It knows whether anything moves, and it outlives HTTP/2: a socket that is closed while the
//! peer still talks is reset, and what it had not delivered by then is lost.

use crate::stream::STILL;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::{Notify, oneshot},
    time::{Instant, Sleep, sleep_until, timeout},
};

/// How long a peer may be silent while it reads what was written last, before it closes; and how long all of that may take.
/// It knows that nothing more will come.
const LINGER: Duration = Duration::from_secs(3);
const LINGER_MOST: Duration = Duration::from_secs(6);

/// What HTTP/2 reads and writes.
pub(crate) struct Line<S> {
    /// Always there, until it is dropped.
    stream: Option<TokioIo<S>>,
    written: Arc<Notify>,
    /// While the peer takes nothing: until when it may.
    blocked: Option<Pin<Box<Sleep>>>,
    back: Option<oneshot::Sender<S>>,
}

/// What is left of it when HTTP/2 is done.
pub(crate) struct End<S> {
    written: Arc<Notify>,
    stream: oneshot::Receiver<S>,
}

/// A socket and its end.
pub(crate) fn new<S>(stream: S) -> (Line<S>, End<S>) {
    let (back, returned) = oneshot::channel();
    let written = Arc::new(Notify::new());
    let end = End { written: written.clone(), stream: returned };
    let stream = Some(TokioIo::new(stream));
    (Line { stream, written, blocked: None, back: Some(back) }, end)
}

impl<S: AsyncRead + AsyncWrite + Unpin> End<S> {
    /// Waits until nothing was written for so long.
    pub(crate) async fn stands_still(&self, time: Duration) {
        while timeout(time, self.written.notified()).await.is_ok() {}
    }

    /// Closes as soon as the peer does, once the [`Line`] is dropped.
    pub(crate) async fn close(self) {
        let Ok(mut stream) = self.stream.await else { return };
        let _closes = timeout(LINGER_MOST, async {
            stream.shutdown().await?;
            let mut unread = [0; 1024];
            while timeout(LINGER, stream.read(&mut unread)).await?? > 0 {}
            io::Result::Ok(())
        })
        .await;
    }
}

impl<S: Unpin> Line<S> {
    fn stream(&mut self) -> Pin<&mut TokioIo<S>> {
        Pin::new(self.stream.as_mut().expect("it is not dropped yet"))
    }

    /// Tells that something is written. A flush is none: it happens without anything to write, too.
    fn tell(&self, written: &Poll<io::Result<usize>>) {
        if written.is_ready() {
            self.written.notify_one();
        }
    }

    /// Breaks the line when the peer takes nothing for as long as a reader may stand still: HTTP/2 would wait for ever, with
    /// all that it holds.
    fn watch<T>(
        &mut self,
        taken: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if taken.is_ready() {
            self.blocked = None;
            return taken;
        }
        let still = || Box::pin(sleep_until(Instant::now() + STILL));
        ready!(self.blocked.get_or_insert_with(still).as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S> Drop for Line<S> {
    fn drop(&mut self) {
        if let (Some(stream), Some(back)) = (self.stream.take(), self.back.take()) {
            let _cut_off = back.send(stream.into_inner());
        }
    }
}

impl<S: AsyncRead + Unpin> Read for Line<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream().poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> Write for Line<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.stream().poll_write(context, bytes);
        self.tell(&written);
        self.watch(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.stream().poll_write_vectored(context, buffers);
        self.tell(&written);
        self.watch(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(Write::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // TLS takes what it has room for, and waits here
        let flushed = self.stream().poll_flush(context);
        self.watch(flushed, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::io::{BufWriter, duplex};

    #[tokio::test(start_paused = true)]
    async fn what_is_written_and_cannot_be_flushed_breaks_the_line() {
        let (ours, _takes_nothing) = duplex(1);
        let (mut line, _end) = new(BufWriter::new(ours));
        let begun = Instant::now();
        let written = poll_fn(|context| Pin::new(&mut line).poll_write(context, b"ab")).await;
        assert_eq!(written.expect("there is room in between"), 2);
        let flushed = poll_fn(|context| Pin::new(&mut line).poll_flush(context)).await;
        let error = flushed.expect_err("nobody takes it");
        assert_eq!((error.kind(), begun.elapsed()), (io::ErrorKind::TimedOut, STILL));
    }
}

//! The socket under a connection. It knows whether anything moves, and it outlives HTTP/2: a socket that is closed while the
//! peer still talks is reset, and what it had not delivered by then is lost.

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::oneshot,
    time::timeout,
};

/// How long a peer may take to read what was written last, and to close. It knows that nothing more will come.
const LINGER: Duration = Duration::from_secs(1);

/// What HTTP/2 reads and writes.
pub(crate) struct Line {
    /// Always there, until it is dropped.
    stream: Option<TokioIo<TcpStream>>,
    written: Arc<AtomicU64>,
    back: Option<oneshot::Sender<TcpStream>>,
}

/// What is left of it when HTTP/2 is done.
pub(crate) struct End {
    written: Arc<AtomicU64>,
    stream: oneshot::Receiver<TcpStream>,
}

/// A socket and its end.
pub(crate) fn new(stream: TcpStream) -> (Line, End) {
    let (back, returned) = oneshot::channel();
    let written = Arc::new(AtomicU64::new(0));
    let end = End { written: written.clone(), stream: returned };
    (Line { stream: Some(TokioIo::new(stream)), written, back: Some(back) }, end)
}

impl End {
    /// Grows with each write.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Relaxed)
    }

    /// Closes as soon as the peer does, once the [`Line`] is dropped.
    pub(crate) async fn close(self) {
        let Ok(mut stream) = self.stream.await else { return };
        let _closes = timeout(LINGER, async {
            stream.shutdown().await?;
            let mut unread = [0; 1024];
            while stream.read(&mut unread).await? > 0 {}
            io::Result::Ok(())
        })
        .await;
    }
}

impl Line {
    fn stream(&mut self) -> Pin<&mut TokioIo<TcpStream>> {
        Pin::new(self.stream.as_mut().expect("it is not dropped yet"))
    }

    fn count(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(1..)) = written {
            self.written.fetch_add(1, Relaxed);
        }
        written
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let (Some(stream), Some(back)) = (self.stream.take(), self.back.take()) {
            let _cut_off = back.send(stream.into_inner());
        }
    }
}

impl Read for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream().poll_read(context, buffer)
    }
}

impl Write for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.stream().poll_write(context, bytes);
        self.count(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.stream().poll_write_vectored(context, buffers);
        self.count(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(Write::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(context)
    }
}

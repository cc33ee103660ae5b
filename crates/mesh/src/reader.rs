//! Readers: an answer is handed over piece by piece, and a reader who does not take a piece for long gets no more.
//!
//! HTTP/2 asks for a frame, waits until the reader has room for it, and asks for nothing meanwhile: the answer cannot see
//! how long that takes, but the task that sends it can.

use crate::stream::STILL;
use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture};
use http_body::{Frame, SizeHint};
use std::{
    cell::Cell,
    future::{pending, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Status, body::Body};

/// What is handed over at once: a frame of HTTP/2, as most peers take them. More would leave our sight before it is taken.
const PIECE: usize = 16 * 1024;
/// How long a reader may stand still once the process drains, which has 8 s for all. A slow one moves within a second or two.
pub(crate) const LAST_CALL: Duration = Duration::from_secs(3);

tokio::task_local! {
    /// Since when this task's answer has waited for its reader, if it does.
    static HANDED: Cell<Option<Instant>>;
}

/// An answer's body in pieces. It tells the task that sends it when one is handed over, and when it was taken.
#[derive(Debug)]
pub(crate) struct Pieces {
    body: Body,
    rest: Bytes,
}

impl Pieces {
    pub(crate) fn new(body: Body) -> Self {
        Self { body, rest: Bytes::new() }
    }
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        handed(None);
        if self.rest.is_empty() {
            let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => self.rest = data,
                Some(Ok(Err(trailers))) => return Poll::Ready(Some(Ok(trailers))),
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                None => return Poll::Ready(None),
            }
        }
        handed(Some(Instant::now()));
        let len = self.rest.len().min(PIECE);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(len)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // asked for before the first piece, if ever
        self.body.size_hint()
    }
}

fn handed(since: Option<Instant>) {
    let _nobody_attends = HANDED.try_with(|handed| handed.set(since));
}

/// Runs the task that sends an answer, and drops it when its reader stands still: HTTP/2 resets the stream then, and frees
/// what it holds of it.
pub(crate) async fn attend(task: impl Future<Output = ()>, draining: CancellationToken) {
    let mut task = pin!(task);
    let mut patience: Option<(Instant, BoxFuture<'static, ()>)> = None;
    let attended = poll_fn(|context| {
        if task.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        let Some(since) = HANDED.with(Cell::get) else {
            patience = None;
            return Poll::Pending;
        };
        match &mut patience {
            Some((of, patience)) if *of == since => patience.poll_unpin(context),
            other => {
                let patience = lose_patience(since, draining.clone()).boxed();
                other.insert((since, patience)).1.poll_unpin(context)
            }
        }
    });
    HANDED.scope(Cell::new(None), attended).await;
}

async fn lose_patience(since: Instant, draining: CancellationToken) {
    let last_call = async {
        draining.cancelled().await;
        let _passed = timeout(LAST_CALL, pending::<()>()).await;
    };
    tokio::select! {
        () = sleep_until(since + STILL) => tracing::debug!("a reader stood still and was given up"),
        () = last_call => tracing::debug!("a reader stood still while draining"),
    }
}

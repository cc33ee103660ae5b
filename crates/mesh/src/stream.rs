//! Watch streams: work that goes on telling until it is done, the reader goes away, or the process stops.

use crate::Problem;
use chassis::Host;
use futures::{FutureExt as _, Stream};
use std::{
    panic::AssertUnwindSafe,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tonic::{Response, Status};

/// Messages that may wait for a reader. A watch shows the newest: what is not taken yet is better made later.
const WAITING: usize = 1;
/// How long a reader may stand still. Longer than a phone in a tunnel; what waits for it is held all the while.
pub(crate) const STILL: Duration = Duration::from_secs(30);

/// What a reader is told: the response of a server-streaming method.
#[derive(Debug)]
pub struct Watch<T> {
    messages: mpsc::Receiver<T>,
    /// How it ended. Beside the messages, because it must not wait for the reader.
    end: oneshot::Receiver<Result<(), Status>>,
    ended: bool,
}

/// Where the work tells what it has to tell.
#[derive(Debug)]
pub struct Feed<T> {
    domain: &'static str,
    messages: mpsc::Sender<T>,
}

/// Runs `make`'s work as a task of the host, and shows the reader what it tells. Its end is the stream's: OK or an error.
/// Before that the stream ends with UNAVAILABLE, DRAINING when the process stops; the work is dropped then, and also when the
/// reader goes away.
pub fn watch<T, F>(
    host: &Host,
    domain: &'static str,
    make: impl FnOnce(Feed<T>) -> F,
) -> Response<Watch<T>>
where
    T: Send + 'static,
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    let (messages, receiver) = mpsc::channel(WAITING);
    let (tell_end, end) = oneshot::channel();
    let (reader, draining) = (messages.clone(), host.draining());
    let work = AssertUnwindSafe(make(Feed { domain, messages })).catch_unwind();
    host.track(async move {
        let ended = tokio::select! {
            ended = work => ended.unwrap_or_else(|_logged| {
                Err(Problem::internal(domain).into())
            }),
            () = reader.closed() => return,
            () = draining.cancelled() => Err(Problem::draining(domain).into()),
        };
        // before the last sender is dropped, so that the stream knows it when the messages end
        let _gone = tell_end.send(ended);
        drop(reader);
    });
    Response::new(Watch { messages: receiver, end, ended: false })
}

impl<T> Feed<T> {
    /// Tells the reader, as soon as it has taken what was told before.
    ///
    /// # Errors
    /// The reader is gone, or has not read anything for 30 s. The work should end with that error.
    pub async fn send(&mut self, message: T) -> Result<(), Status> {
        match timeout(STILL, self.messages.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_closed)) => Err(Status::cancelled("the reader is gone")),
            Err(_elapsed) => {
                let message = "the reader has not read for 30 s";
                Err(Problem::overloaded(self.domain, message).into())
            }
        }
    }
}

impl<T> Stream for Watch<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Some(message) = ready!(self.messages.poll_recv(context)) {
            return Poll::Ready(Some(Ok(message)));
        }
        let end = ready!(self.end.poll_unpin(context));
        self.ended = true;
        match end {
            Ok(end) => Poll::Ready(end.err().map(Err)),
            Err(_cut_off) => Poll::Ready(Some(Err(Status::unavailable("the watch was cut off")))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt as _;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_reader_who_stands_still_is_given_up() {
        let begun = Instant::now();
        let (tell, told) = oneshot::channel();
        let watch = watch(&Host::new(), "example.org", |mut feed| async move {
            feed.send(1).await?;
            let given_up = feed.send(2).await;
            let _told = tell.send(begun.elapsed());
            given_up
        });
        assert_eq!(told.await, Ok(STILL));
        let mut watch = watch.into_inner();
        assert!(matches!(watch.next().await, Some(Ok(1))), "what waited is told");
        let status = watch.next().await.expect("it ends").expect_err("it was given up");
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        assert_eq!(crate::reason(&status).as_deref(), Some("OVERLOADED"));
        assert!(watch.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_is_waited_for() {
        let watch = watch(&Host::new(), "example.org", |mut feed| async move {
            for message in 0..3 {
                feed.send(message).await?;
            }
            Ok(())
        });
        let mut watch = watch.into_inner();
        for message in 0..3 {
            tokio::time::advance(STILL - Duration::from_secs(1)).await;
            let told = watch.next().await.expect("it goes on").expect("it is well");
            assert_eq!(told, message);
        }
        assert!(watch.next().await.is_none());
    }
}

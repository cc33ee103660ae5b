//! Calls under way: none begins while the process drains, each is counted until its answer is sent, and no answer is larger
//! than its reader takes.

use crate::{
    Problem,
    around::{Around, Next, refuse},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Frame, SizeHint};
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};
use tonic::{Code, Status, body::Body};

/// The largest message that is sent: what gRPC clients take unless they are told otherwise.
const MOST: usize = 4 * 1024 * 1024;
/// When a call may be tried again that a draining process refused, in milliseconds: as soon as the client has heard that this
/// connection takes no more, for there may be another replica. People are told to wait for longer, until there is one again.
const ELSEWHERE: HeaderValue = HeaderValue::from_static("20");
/// One byte of flags and four of length come before a message.
const PREFIX: usize = 5;

/// Counts calls, and refuses them once the process drains.
#[derive(Clone)]
pub(crate) struct Calls {
    pub(crate) domain: &'static str,
    pub(crate) draining: CancellationToken,
    pub(crate) under_way: TaskTracker,
}

impl Around for Calls {
    async fn around(self, request: Request<Body>, mut next: impl Next) -> Response<Body> {
        // counted first: either the drain waits for this call, or this call sees the drain
        let call = self.under_way.token();
        if self.draining.is_cancelled() {
            let mut refusal = refuse(Problem::draining(self.domain));
            refusal.headers_mut().insert("grpc-retry-pushback-ms", ELSEWHERE);
            return refusal;
        }
        let answer = next.call(request).await;
        answer.map(|body| Body::new(Answer { body, domain: self.domain, _call: call }))
    }
}

/// An answer on its way; when it is dropped it was sent, or nobody waits for it.
struct Answer {
    body: Body,
    domain: &'static str,
    _call: TaskTrackerToken,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
        if data.is_some_and(|data| is_too_large(data)) {
            self.body = Body::empty();
            return Poll::Ready(Some(too_large(self.domain).map(Frame::trailers)));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Whether one of the messages is: tonic sends them whole, sometimes several at once.
fn is_too_large(mut data: &[u8]) -> bool {
    while let Some(([_flags, len @ ..], rest)) = data.split_first_chunk::<PREFIX>() {
        let len = usize::try_from(u32::from_be_bytes(*len)).unwrap_or(usize::MAX);
        if len > MOST {
            return true;
        }
        data = rest.get(len..).unwrap_or_default();
    }
    false
}

/// Says so instead of the message: the status that ends the answer.
fn too_large(domain: &'static str) -> Result<HeaderMap, Status> {
    let message = "the answer is larger than 4 MiB: ask for less at a time";
    let problem = Problem::new(domain, Code::ResourceExhausted, "ANSWER_TOO_LARGE", message);
    let mut trailers = HeaderMap::new();
    Status::from(problem).add_header(&mut trailers)?;
    Ok(trailers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tower::service_fn;

    #[tokio::test]
    async fn what_comes_too_late_is_told_when_to_come_again() {
        let draining = CancellationToken::new();
        let under_way = TaskTracker::new();
        let calls = Calls { domain: "example.org", draining, under_way };
        let service = service_fn(async |_| Ok(Response::new(Body::empty())));
        let call = async || calls.clone().around(Request::default(), service).await;
        assert_eq!(
            Status::from_header_map(call().await.headers()).map(|status| status.code()),
            None
        );
        calls.draining.cancel();
        let late = Status::from_header_map(call().await.headers()).expect("it is refused");
        assert_eq!(late.code(), Code::Unavailable);
        assert_eq!(crate::reason(&late).as_deref(), Some("DRAINING"));
        let details = tonic_types::StatusExt::get_details_retry_info(&late);
        assert!(details.is_some(), "it says when");
        assert!(calls.under_way.is_empty(), "nobody waits for it");
    }

    #[tokio::test]
    async fn a_call_is_under_way_until_its_answer_is_gone() {
        let (draining, under_way) = (CancellationToken::new(), TaskTracker::new());
        let calls = Calls { domain: "example.org", draining, under_way };
        let body = || Body::new(http_body_util::Full::new(Bytes::from_static(b"slow")));
        let service = service_fn(move |_| async move { Ok(Response::new(body())) });
        let answer = calls.clone().around(Request::default(), service).await;
        assert_eq!(calls.under_way.len(), 1);
        drop(answer);
        assert!(calls.under_way.is_empty());
    }

    #[test]
    fn each_message_is_measured() {
        let message =
            |len: u32, sent: usize| [&[0], len.to_be_bytes().as_slice(), &vec![7; sent]].concat();
        let most = u32::try_from(MOST).expect("it is a small number");
        assert!(!is_too_large(&message(most, MOST)));
        assert!(is_too_large(&message(most + 1, 0)));
        assert!(is_too_large(&[message(3, 3), message(0, 0), message(most + 1, 9)].concat()));
        assert!(!is_too_large(&[]));
    }
}

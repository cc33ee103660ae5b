//! A call as it is sent, as often as it takes: the request that is kept, the time that each attempt has, the headers that say
//! so, and the answer, whole where a method has one.

use super::{
    Answered, MARGIN, USEFUL,
    balance::{Balance, Tried},
    failure::{broken, expired, unsent},
    policy::{Method, Shape},
};
use crate::deadline;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, request};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt as _, Full};
use std::{
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Status, body::Body};

/// The largest answer that is read: what gRPC clients take unless they are told otherwise, and its five bytes of frame.
const MOST: usize = 4 * 1024 * 1024 + 5;
/// Who sets no deadline waits this long: for ever, as far as anybody can tell.
const FOREVER: Duration = Duration::from_secs(365 * 86_400);

/// A call, to be sent.
pub(super) struct Call {
    parts: request::Parts,
    body: Kept,
    /// Where it was sent.
    tried: Tried,
    /// By when it is to be answered.
    end: Instant,
    /// Whether the server is told how much time it has.
    timed: bool,
}

enum Kept {
    Whole(Bytes),
    /// A stream, which can be sent once.
    Once(Option<Body>),
}

/// How an attempt ended.
pub(super) struct Answer {
    pub(super) result: Answered,
    /// The error that was answered with. It is in the response, too.
    pub(super) refusal: Option<Status>,
    /// How long it took.
    pub(super) took: Duration,
    /// Whether that it was late would say something about the service: with a fraction of the usual time, its caller was.
    pub(super) telling: bool,
}

/// How long an attempt may usually take, in microseconds: what callers give, as far as the policy lets them have it. The longest counts, and is
/// forgotten slowly, so that who is in a hurry now and then does not set the measure; who always is does.
#[derive(Default)]
pub(super) struct Usual(AtomicU64);

impl Usual {
    /// Takes down what a call gives. Says what is usual for such a call, of which an attempt may take `most`.
    pub(super) fn note(&self, given: Duration, most: Duration) -> Duration {
        let given = u64::try_from(given.min(most).as_micros()).unwrap_or(u64::MAX);
        let was = self.0.load(Relaxed);
        // a quarter is left after 90 calls: more than are in a hurry by chance
        let longest = given.max(was - was / 64);
        if longest != was {
            self.0.store(longest, Relaxed);
        }
        Duration::from_micros(longest).min(most)
    }
}

impl Call {
    /// Sets the call's deadline, and keeps its request.
    ///
    /// # Errors
    /// There is no time to begin, or it cannot be told how much; nothing was sent.
    pub(super) async fn read(request: Request<Body>, method: &Method) -> Result<Self, Status> {
        let asked = match deadline::read(request.headers()) {
            Ok(asked) => asked,
            Err(malformed) => return Err(unsent(Status::internal(malformed.to_string()), None)),
        };
        let time = asked.into_iter().chain(method.timeout).min();
        if time.is_some_and(|time| time < USEFUL) {
            return Err(unsent(expired(), None));
        }
        let end = Instant::now() + time.unwrap_or(FOREVER).min(FOREVER);
        let (parts, body) = request.into_parts();
        let body = match method.facts.shape {
            Shape::Open => Kept::Once(Some(body)),
            Shape::Unary | Shape::Stream => match timeout_at(end, body.collect()).await {
                Ok(body) => Kept::Whole(body?.to_bytes()),
                Err(_elapsed) => return Err(unsent(expired(), None)),
            },
        };
        // the life of a stream is bounded by whoever asks for it, not by us
        let timed = asked.is_some() || (method.facts.shape == Shape::Unary && time.is_some());
        Ok(Self { parts, body, tried: Tried::default(), end, timed })
    }

    pub(super) fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// Whether it can be sent again.
    pub(super) fn repeats(&self) -> bool {
        matches!(self.body, Kept::Whole(_))
    }

    /// Sends it to one of the endpoints. `made` attempts came before.
    pub(super) async fn attempt(
        &mut self,
        to: &Balance,
        method: &Method,
        usual: Duration,
        made: u32,
    ) -> Answer {
        let begun = Instant::now();
        let left = self.end.saturating_duration_since(begun);
        let time = method.attempt_timeout.map_or(left, |most| most.min(left));
        let telling = time >= usual / 4;
        let unary = method.facts.shape == Shape::Unary;
        let mut request = self.request(made);
        if self.timed {
            // a stream outlives the attempt; a server that knows before us can still say so
            let time = if unary { time } else { left };
            request.headers_mut().insert("grpc-timeout", header(time.saturating_sub(MARGIN)));
        }
        let answered = to.send(request, (time, telling), &mut self.tried).await;
        let (result, refusal) = match answered {
            Ok(response) if unary => match timeout_at(begun + time, whole(response)).await {
                Ok(Ok((response, refusal))) => (Ok(response), refusal),
                Ok(Err(status)) => (Err(status), None),
                Err(_elapsed) => (Err(expired()), None),
            },
            Ok(response) => {
                let refusal = refused_by(&response);
                (Ok(response), refusal)
            }
            Err(status) => (Err(status), None),
        };
        Answer { result, refusal, took: begun.elapsed(), telling }
    }

    fn request(&mut self, made: u32) -> Request<Body> {
        let body = match &mut self.body {
            Kept::Whole(body) => Body::new(Full::new(body.clone())),
            Kept::Once(body) => body.take().unwrap_or_default(),
        };
        let mut request = Request::from_parts(self.parts.clone(), body);
        if made > 0 {
            request.headers_mut().insert("grpc-previous-rpc-attempts", made.into());
        }
        request
    }
}

/// As `grpc-timeout` says it, in at most eight digits.
fn header(time: Duration) -> HeaderValue {
    const DIGITS: u128 = 100_000_000;
    let text = match (time.as_micros(), time.as_millis()) {
        (micros, _) if micros < DIGITS => format!("{micros}u"),
        (_, millis) if millis < DIGITS => format!("{millis}m"),
        _ => format!("{}S", time.as_secs()),
    };
    HeaderValue::from_maybe_shared(Bytes::from(text)).expect("digits and a letter")
}

/// The error in an answer's headers or trailers.
fn refusal(headers: &HeaderMap) -> Option<Status> {
    // nearly every answer: nothing is to be copied
    if headers.get("grpc-status").is_none_or(|status| status == "0") {
        return None;
    }
    Status::from_header_map(headers)
}

/// As [`refusal`]; an answer in HTTP's words is a proxy's. (gRPC's `http-grpc-status-mapping.md`.)
fn refused_by(answer: &Response<Body>) -> Option<Status> {
    let told = refusal(answer.headers());
    if told.is_some() || answer.status() == StatusCode::OK {
        return told;
    }
    let message = format!("a proxy answers {}", answer.status());
    Some(match answer.status().as_u16() {
        429 | 502..=504 => Status::unavailable(message),
        401 => Status::unauthenticated(message),
        403 => Status::permission_denied(message),
        404 => Status::unimplemented(message),
        _ => Status::unknown(message),
    })
}

/// Reads an answer to its end: only then is it known what it is.
async fn whole(response: Response<Body>) -> Result<(Response<Body>, Option<Status>), Status> {
    let in_headers = refused_by(&response);
    let (parts, mut body) = response.into_parts();
    let (mut first, mut rest, mut trailers) = (Bytes::new(), BytesMut::new(), None);
    while let Some(frame) = body.frame().await {
        match frame.map_err(cut_off)?.into_data() {
            Ok(data) if first.is_empty() => first = data,
            Ok(data) => {
                if rest.is_empty() {
                    rest.extend_from_slice(&first);
                }
                rest.extend_from_slice(&data);
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
        if first.len().max(rest.len()) > MOST {
            let message = "the answer is larger than 4 MiB: ask for less at a time";
            return Err(Status::out_of_range(message));
        }
    }
    let data = if rest.is_empty() { first } else { rest.freeze() };
    let refusal = in_headers.or_else(|| trailers.as_ref().and_then(refusal));
    let body = Body::new(Whole { data, trailers });
    Ok((Response::from_parts(parts, body), refusal))
}

/// The connection broke under an answer.
fn cut_off(status: Status) -> Status {
    match status.code() {
        Code::Cancelled | Code::Unknown => broken("the connection broke", status),
        _ => status,
    }
}

/// An answer that is there.
struct Whole {
    data: Bytes,
    trailers: Option<HeaderMap>,
}

impl http_body::Body for Whole {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if !self.data.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.data)))));
        }
        Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_empty() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(u64::try_from(self.data.len()).unwrap_or(u64::MAX))
    }
}

//! What a request must be: one message, framed as gRPC frames it, well-formed, and as the rules in its proto say. A handler
//! sees nothing else.

mod rule;
mod schema;
#[cfg(test)]
mod tests;
mod walk;
mod wire;

pub(crate) use schema::Schema;

use crate::{
    Problem,
    around::{Around, Next, refuse},
};
use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use std::{pin::pin, sync::Arc};
use tonic::{Code, body::Body};
use walk::Refusal;
use wire::Malformed;

/// The largest message that is taken. Requests are small, and each call under way may hold as much memory as this.
pub(crate) const MOST: usize = 64 * 1024;
/// One byte of flags and four of length come before a message.
const PREFIX: usize = 5;
const TOO_DEEP: Malformed = Malformed("is nested too deep");

/// Reads and checks each request before it is handled.
#[derive(Clone)]
pub(crate) struct Validation {
    pub(crate) domain: &'static str,
    pub(crate) schema: Arc<Schema>,
}

impl Around for Validation {
    async fn around(self, request: Request<Body>, mut next: impl Next) -> Response<Body> {
        let Some(message) = self.schema.request(request.uri().path()) else {
            // no such method: the service says so
            return next.call(request).await;
        };
        let (head, body) = request.into_parts();
        let checked = match self.read(body).await {
            Ok(framed) => self.check(message, &framed[PREFIX..]).map(|()| framed),
            Err(problem) => Err(problem),
        };
        match checked {
            Ok(framed) => next.call(Request::from_parts(head, Body::new(Full::new(framed)))).await,
            Err(problem) => refuse(problem),
        }
    }
}

impl Validation {
    /// The message with its prefix, as it was sent.
    async fn read(&self, body: Body) -> Result<Bytes, Problem> {
        let mut body = pin!(body);
        let mut read = Bytes::new();
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                return Err(self.invalid("the request broke off"));
            };
            let Ok(data) = frame.into_data() else { continue };
            read = join(read, data);
            if let Some(len) = self.len(&read)?
                && read.len() > len
            {
                return Err(self.invalid("there is more than one message"));
            }
        }
        match self.len(&read)? {
            Some(len) if read.len() == len => Ok(read),
            _ if read.is_empty() => Err(self.invalid("there is no message")),
            _ => Err(self.invalid("the message is cut off")),
        }
    }

    /// How many bytes the message has with its prefix, as soon as that is known.
    fn len(&self, read: &[u8]) -> Result<Option<usize>, Problem> {
        let Some(([flags, len @ ..], _)) = read.split_first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        if *flags != 0 {
            // INTERNAL is what gRPC asks for
            let message = "the message claims to be compressed, and grpc-encoding says it is not";
            return Err(self.problem(Code::Internal, message));
        }
        // before anything is allocated for it
        match usize::try_from(u32::from_be_bytes(*len)) {
            Ok(len) if len <= MOST => Ok(Some(PREFIX + len)),
            _ => {
                let message = format!("the message is larger than {} KiB", MOST / 1024);
                Err(self.problem(Code::ResourceExhausted, message))
            }
        }
    }

    fn check(&self, message: usize, bytes: &[u8]) -> Result<(), Problem> {
        match walk::check(&self.schema, message, bytes) {
            Ok(()) => Ok(()),
            Err(Refusal::Malformed(field, Malformed(why))) => {
                let name = &self.schema.message(message).name;
                if field.is_empty() {
                    return Err(self.invalid(format!("this is no {name}: it {why}")));
                }
                let problem = self.invalid(format!("this is no {name}: {field} {why}"));
                Err(problem.with_violation(field, why))
            }
            Err(Refusal::Broken(violations)) => {
                let message = match &*violations {
                    [(field, broken)] => format!("{field} {broken}"),
                    [(field, broken), more @ ..] => {
                        format!("{field} {broken}; and {} more", more.len())
                    }
                    [] => String::new(),
                };
                Err(self.invalid(message).with_violations(violations))
            }
        }
    }

    fn invalid(&self, message: impl Into<String>) -> Problem {
        self.problem(Code::InvalidArgument, message)
    }

    fn problem(&self, code: Code, message: impl Into<String>) -> Problem {
        Problem::new(self.domain, code, "VALIDATION", message)
    }
}

/// Mostly a request is one frame, and nothing is copied.
fn join(read: Bytes, data: Bytes) -> Bytes {
    if read.is_empty() {
        return data;
    }
    let mut joined = read.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&*shared));
    joined.extend_from_slice(&data);
    joined.freeze()
}

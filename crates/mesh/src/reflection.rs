//! Reflection's calls are conversations: no deadline bounds them, but none goes on for ever.

use crate::around::{Around, Next};
use futures::{StreamExt as _, TryStreamExt as _};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

/// How long questions are listened to. A tool asks all it wants in a second, and asks anew when it is hung up on; whoever
/// sends half a question holds a message's memory until then.
const LONGEST: Duration = Duration::from_secs(60);

/// Ends the questions of whoever goes on asking, and of everybody when the process drains. The answers end with them.
#[derive(Clone)]
pub(crate) struct Conversation {
    pub(crate) draining: CancellationToken,
}

impl Around for Conversation {
    async fn around(self, request: Request<Body>, mut next: impl Next) -> Response<Body> {
        let over = async move {
            let _drained = timeout(LONGEST, self.draining.cancelled()).await;
        };
        let questions = |body: Body| body.into_data_stream().map_ok(Frame::data).take_until(over);
        next.call(request.map(|body| Body::new(StreamBody::new(questions(body))))).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use tokio::time::Instant;
    use tower::service_fn;

    #[tokio::test(start_paused = true)]
    async fn nobody_asks_for_ever() {
        let asked = async |draining| {
            let begun = Instant::now();
            let silent = futures::stream::pending::<Result<Frame<bytes::Bytes>, Infallible>>();
            let service = service_fn(async |request: Request<Body>| {
                let questions = request.into_body().collect().await;
                assert!(questions.is_ok_and(|questions| questions.to_bytes().is_empty()));
                Ok(Response::new(Body::empty()))
            });
            let request = Request::new(Body::new(StreamBody::new(silent)));
            Conversation { draining }.around(request, service).await;
            begun.elapsed()
        };
        assert_eq!(asked(CancellationToken::new()).await, LONGEST);
        let draining = CancellationToken::new();
        draining.cancel();
        assert_eq!(asked(draining).await, Duration::ZERO);
    }
}

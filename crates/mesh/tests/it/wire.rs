//! A client that sends whatever it is told to, over HTTP/2.

use crate::house::spawn;
use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use http::{HeaderMap, Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{convert::Infallible, net::SocketAddr};
use tokio::net::TcpStream;
use tonic::{Status, body::Body};

#[derive(Clone)]
pub(crate) struct Wire(SendRequest<Body>);

/// What came back.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Wire {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("somebody listens");
        let (client, connection) =
            handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("they speak HTTP/2");
        spawn(connection);
        Self(client)
    }

    /// Sends the frames, and the end.
    pub(crate) async fn send(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        frames: &[&[u8]],
    ) -> Answered {
        let frames: Vec<_> = frames.iter().map(|frame| Bytes::copy_from_slice(frame)).collect();
        self.stream(path, headers, stream::iter(frames)).await
    }

    /// Sends the frames, and nothing more.
    pub(crate) async fn hang(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        frames: &[&[u8]],
    ) -> Answered {
        let frames: Vec<_> = frames.iter().map(|frame| Bytes::copy_from_slice(frame)).collect();
        self.stream(path, headers, stream::iter(frames).chain(stream::pending())).await
    }

    async fn stream(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        frames: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Answered {
        let body = StreamBody::new(frames.map(|frame| Ok::<_, Infallible>(Frame::data(frame))));
        let mut request = Request::post(format!("http://localhost{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::new(body)).expect("it is a request");
        let answer = self.0.clone().send_request(request).await.expect("there is an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["content-type"], "application/grpc");
        let (head, body) = answer.into_parts();
        let body = body.collect().await.expect("the answer ends");
        let trailers = body.trailers().cloned();
        Answered { headers: head.headers, body: body.to_bytes(), trailers }
    }
}

impl Answered {
    /// The error that it is, all of it in the headers.
    pub(crate) fn refusal(&self) -> Status {
        assert_eq!((self.body.len(), &self.trailers), (0, &None));
        Status::from_header_map(&self.headers).expect("it has a status")
    }

    /// The status at its end.
    pub(crate) fn status(&self) -> Status {
        let trailers = self.trailers.as_ref().unwrap_or(&self.headers);
        Status::from_header_map(trailers).expect("it has a status")
    }
}

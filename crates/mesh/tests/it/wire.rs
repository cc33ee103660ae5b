//! A client that sends whatever it is told to, over HTTP/2.

use crate::house::spawn;
use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{
    body::Incoming,
    client::conn::http2::{SendRequest, handshake},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{convert::Infallible, net::SocketAddr};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
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

    /// Sends what may be no call at all.
    pub(crate) async fn request(
        &self,
        request: Request<Body>,
    ) -> hyper::Result<Response<Incoming>> {
        self.0.clone().send_request(request).await
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
        let answer = self.request(request).await.expect("there is an answer");
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

/// Frames of HTTP/2, byte by byte: what no client library would send.
pub(crate) struct Frames(TcpStream);

/// A frame that came back.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) kind: u8,
    pub(crate) stream: u32,
    pub(crate) content: Vec<u8>,
}

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

impl Frames {
    /// Connects, and says hello.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).await.expect("somebody listens");
        let hello = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &*frame(4, 0, 0, &[])].concat();
        stream.write_all(&hello).await.expect("it is taken");
        Self(stream)
    }

    /// A call's headers: POST, http, a path without more compression than that, an authority, the content type.
    pub(crate) fn call(path: &str) -> Vec<u8> {
        let len = u8::try_from(path.len()).expect("it is short");
        let rest = [&[0x01, 1, b'a', 0x0f, 0x10, 16][..], b"application/grpc"].concat();
        [&[0x83, 0x86, 0x04, len][..], path.as_bytes(), &rest].concat()
    }

    /// Sends until it is hung up on, and reads until the frame that is looked for.
    pub(crate) async fn until(
        self,
        sent: Vec<u8>,
        mut found: impl FnMut(&Received) -> bool,
    ) -> Received {
        let (mut read, mut write) = self.0.into_split();
        let writing = spawn(async move {
            let _hung_up = write.write_all(&sent).await;
            write
        });
        let found = read_until(&mut read, &mut found).await;
        drop(writing.await);
        found
    }

    /// Sends, and reads until the frame that is looked for; there may be more to say afterwards.
    pub(crate) async fn exchange(
        &mut self,
        sent: &[u8],
        mut found: impl FnMut(&Received) -> bool,
    ) -> Received {
        self.0.write_all(sent).await.expect("it is taken");
        read_until(&mut self.0, &mut found).await
    }

    pub(crate) async fn send(&mut self, sent: &[u8]) {
        self.0.write_all(sent).await.expect("it is taken");
    }

    pub(crate) async fn receive(&mut self) -> Received {
        receive(&mut self.0).await
    }
}

async fn read_until(
    read: &mut (impl AsyncRead + Unpin),
    found: &mut impl FnMut(&Received) -> bool,
) -> Received {
    loop {
        let frame = receive(read).await;
        if found(&frame) {
            break frame;
        }
    }
}

async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> Received {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.expect("it comes before the end");
    let [a, b, c, kind, _flags, id @ ..] = head;
    let mut content = vec![0; usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)];
    stream.read_exact(&mut content).await.expect("it comes whole");
    Received { kind, stream: u32::from_be_bytes(id), content }
}

impl Received {
    /// Of a reset or a goodbye.
    pub(crate) fn error(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        let error = self.content[at..].first_chunk().expect("it has one");
        u32::from_be_bytes(*error)
    }
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
    let len = u32::try_from(content.len()).expect("it is short").to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), content].concat()
}

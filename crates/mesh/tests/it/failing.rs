//! Handlers that fail in ways they should not.

use crate::{
    house::{House, ask, follow, reason},
    probe::{ASK, framed, question},
    wire::Wire,
};
use prost::Message as _;
use std::{cell::RefCell, io};
use tonic::Code;

thread_local! {
    /// What was logged on this thread, which is all that a test has. A subscriber of each thread's own would miss what another
    /// thread came upon first, at a moment when nobody listened.
    static LOG: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

struct Log;

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.with_borrow_mut(|log| log.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_panic_is_an_internal_error_and_its_log_is_left_to_the_process() {
    tracing_subscriber::fmt().with_ansi(false).with_writer(|| Log).init();
    let house = House::open().await;
    let channel = house.channel();
    let status = ask(&channel, question("panic")).await.expect_err("it panics");
    assert_eq!(reason(&status), (Code::Internal, "INTERNAL".to_owned()));
    assert_eq!(status.message(), "internal error", "nobody learns more");
    assert!(ask(&channel, question("good")).await.is_ok(), "the process lives on");
    let mut watch = follow(&channel, question("panic")).await.expect("it begins");
    assert_eq!(watch.message().await.expect("all is well").expect("more comes").text, "first");
    assert_eq!(watch.message().await.expect_err("it panics").code(), Code::Internal);
    house.close().await;
    let log = String::from_utf8(LOG.take()).expect("it is text");
    // the panic hook of a process logs it with its place; this would be the second time
    assert!(!log.contains("the teapot broke") && !log.contains("the kettle broke"), "{log}");
    assert!(log.contains("stopping"), "what is logged is seen here: {log}");
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_not_sent() {
    let house = House::open().await;
    let wire = Wire::connect(house.serving.address).await;
    let answer = wire.send(ASK, &[], &[&framed(&question("be too large").encode_to_vec())]).await;
    assert_eq!(answer.body.len(), 0);
    let too_large = (Code::ResourceExhausted, "ANSWER_TOO_LARGE".to_owned());
    assert_eq!(reason(&answer.status()), too_large);
    house.close().await;
}

//! What was logged, for tests of what people are told.

use std::{
    fmt,
    sync::{Mutex, Once},
};
use testbed::until;
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

use crate::tally::SOON;

static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// From now on what the process says is kept. All tests of the process say it here.
pub(crate) fn listen() {
    static LISTENING: Once = Once::new();
    LISTENING.call_once(|| {
        tracing::subscriber::set_global_default(Ear).expect("nobody else listens");
    });
}

/// Waits until a line has been logged that contains all of these; how many there are.
pub(crate) async fn hears(parts: &[&str]) -> usize {
    let heard = async || Some(count(parts)).filter(|count| *count > 0);
    until(&parts.join(" … "), SOON, heard).await.expect("it is said in time")
}

/// How many lines contain all of these.
pub(crate) fn count(parts: &[&str]) -> usize {
    let said = SAID.lock().expect("no panic while locked");
    said.iter().filter(|line| parts.iter().all(|part| line.contains(part))).count()
}

struct Ear;

impl Subscriber for Ear {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("journal")
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        SAID.lock().expect("no panic while locked").push(line.0);
    }

    fn new_span(&self, _span: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _span: &span::Id, _values: &span::Record<'_>) {}

    fn record_follows_from(&self, _span: &span::Id, _follows: &span::Id) {}

    fn enter(&self, _span: &span::Id) {}

    fn exit(&self, _span: &span::Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, _field: &Field, value: &dyn fmt::Debug) {
        self.0.push_str(&format!(" {value:?}"));
    }
}

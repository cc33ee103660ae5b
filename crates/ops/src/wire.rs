//! Events and dead letters as they go over the wire, and events as they come back.

use contract::{
    ids,
    ops::v1::{DeadLetter, Event},
};
use journal::{Envelope, Letter, Malformed, Time, record::Entry};
use prost_types::Any;

/// What comes before a message's name in the type of an `Any`.
const TYPE_URL: &str = "type.googleapis.com/";

pub(crate) fn event(Entry { event, published }: &Entry) -> Event {
    to_wire(event, *published)
}

pub(crate) fn letter(service: &str, letter: &Letter) -> DeadLetter {
    DeadLetter {
        dead_letter_id: letter.id.to_string(),
        // it came over the bus
        event: Some(to_wire(&letter.event(), true)),
        reason: letter.error.clone(),
        attempts: letter.attempts,
        create_time: Some(letter.dead_time.into()),
        service: service.to_owned(),
    }
}

fn to_wire(event: &Envelope, published: bool) -> Event {
    let data = Any { type_url: format!("{TYPE_URL}{}", event.kind), value: event.payload.to_vec() };
    Event {
        event_id: event.id.to_string(),
        r#type: event.kind.to_string(),
        source: event.source.to_string(),
        order_id: event.subject.to_string(),
        event_time: Some(event.time.into()),
        correlation_id: event.correlation_id.to_string(),
        causation_id: event.causation_id.to_string(),
        traceparent: event.traceparent.as_deref().unwrap_or_default().to_owned(),
        published,
        data: Some(data),
    }
}

/// An event as its publisher told it.
///
/// # Errors
/// It is none of ours: something is missing, or no id.
pub fn of_wire(event: Event) -> Result<Envelope, Malformed> {
    let time = event.event_time.ok_or_else(|| Malformed::missing("event_time"))?;
    let data = event.data.ok_or_else(|| Malformed::missing("data"))?;
    Ok(Envelope {
        id: ids::parse(&event.event_id)?,
        kind: event.r#type.into(),
        source: event.source.into(),
        subject: ids::parse(&event.order_id)?,
        time: Time::try_from(&time).map_err(|error| Malformed::new(error.to_string()))?,
        correlation_id: ids::parse(&event.correlation_id)?,
        causation_id: ids::parse(&event.causation_id)?,
        traceparent: Some(event.traceparent).filter(|it| !it.is_empty()).map(Into::into),
        tracestate: None,
        payload: data.value.into(),
        audience: None,
        edition: None,
    })
}

//! Events, dead letters and calls to others as they go over the wire, and events as they come back.

use contract::{
    ids,
    ops::v1::{BreakerState, CallCounts, DeadLetter, EndpointState, Event, MethodPolicy, Upstream},
};
use journal::{Envelope, Letter, Malformed, Time, record::Entry};
use mesh::client::{self, Snapshot};
use prost_types::Any;
use uuid::Uuid;

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

/// How the calls of a service to another one fare.
pub(crate) fn upstream(service: &str, snapshot: Snapshot) -> Upstream {
    let Snapshot { name, service: called, endpoints, breaker, budget, methods, counts } = snapshot;
    let endpoint_states: Vec<_> = endpoints.into_iter().map(endpoint).collect();
    Upstream {
        name: name.to_owned(),
        endpoints: endpoint_states.iter().map(|it| it.endpoint.clone()).collect(),
        breaker_state: breaker_state(breaker.stage).into(),
        breaker_change_time: Some(breaker.since.into()),
        retry_budget: count(budget),
        policies: methods.into_iter().map(|method| policy(called, method)).collect(),
        service: service.to_owned(),
        endpoint_states,
        counts: Some(CallCounts {
            calls: count(counts.calls),
            attempts: count(counts.attempts),
            retries: count(counts.retries),
            refusals: count(counts.refused),
            openings: count(counts.opened),
        }),
        breaker_off: !breaker.enabled,
        breaker_calls: breaker.calls.into(),
        breaker_failures: breaker.failed.into(),
    }
}

fn breaker_state(stage: client::Stage) -> BreakerState {
    match stage {
        client::Stage::Closed => BreakerState::Closed,
        client::Stage::Open => BreakerState::Open,
        client::Stage::HalfOpen => BreakerState::HalfOpen,
    }
}

fn endpoint(state: client::EndpointState) -> EndpointState {
    let client::EndpointState { address, out, under_way } = state;
    let in_use = out.is_none();
    let (reason, since) = out.unzip();
    EndpointState {
        endpoint: address.to_string(),
        in_use,
        reason: reason.unwrap_or_default(),
        change_time: since.map(Into::into),
        calls_under_way: i64::try_from(under_way).unwrap_or(i64::MAX),
    }
}

fn policy(service: &str, policy: client::MethodPolicy) -> MethodPolicy {
    let client::MethodPolicy { name, idempotent, timeout, attempt_timeout, attempts } = policy;
    let time = |time: Option<std::time::Duration>| time.and_then(|time| time.try_into().ok());
    MethodPolicy {
        method: format!("{service}/{name}"),
        timeout: time(timeout),
        attempt_timeout: time(attempt_timeout),
        max_attempts: i32::try_from(attempts).unwrap_or(i32::MAX),
        idempotent,
    }
}

fn count(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn to_wire(event: &Envelope, published: bool) -> Event {
    let data = Any { type_url: format!("{TYPE_URL}{}", event.kind), value: event.payload.to_vec() };
    Event {
        event_id: event.id.to_string(),
        r#type: event.kind.to_string(),
        source: event.source.to_string(),
        order_id: id(event.subject),
        event_time: Some(event.time.into()),
        correlation_id: id(event.correlation_id),
        causation_id: id(event.causation_id),
        traceparent: event.traceparent.as_deref().unwrap_or_default().to_owned(),
        published,
        data: Some(data),
    }
}

/// Empty where there is none, as in an event that says too little of itself.
fn id(id: Uuid) -> String {
    if id.is_nil() { String::new() } else { id.to_string() }
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
        correlation_id: ids::parse_filter(&event.correlation_id)?.unwrap_or_default(),
        causation_id: ids::parse_filter(&event.causation_id)?.unwrap_or_default(),
        traceparent: Some(event.traceparent).filter(|it| !it.is_empty()).map(Into::into),
        tracestate: None,
        payload: data.value.into(),
        audience: None,
        edition: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_is_none_is_empty() {
        let nil = Envelope {
            subject: Uuid::nil(),
            correlation_id: Uuid::nil(),
            causation_id: Uuid::nil(),
            ..Envelope::of("/shop", Uuid::nil(), &prost_types::Duration::default())
        };
        let shown = to_wire(&nil, true);
        assert_eq!((&*shown.order_id, &*shown.correlation_id, &*shown.causation_id), ("", "", ""));
        let other = Envelope { subject: Uuid::from_u128(7), ..nil };
        assert_eq!(of_wire(to_wire(&other, true)), Ok(other));
    }
}

//! Events as NATS messages: CloudEvents 1.0 in binary mode, what is told beside an event in headers, the event as the payload.

use std::sync::Arc;

use async_nats::{HeaderMap, header::NATS_MESSAGE_ID};
use prost_types::Timestamp;
use uuid::Uuid;

use crate::{Envelope, Malformed, Time};

const SPEC_VERSION: &str = "1.0";
const CONTENT_TYPE: &str = "application/protobuf";
const AUDIENCE: &str = "ce-audience";
const EDITION: &str = "ce-edition";

pub(crate) fn write(event: &Envelope) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut put = |name: &'static str, value: &str| headers.insert(name, encode(value));
    put("ce-specversion", SPEC_VERSION);
    put("ce-id", &event.id.to_string());
    put("ce-source", &event.source);
    put("ce-type", &event.kind);
    put("ce-subject", &event.subject.to_string());
    put("ce-time", &event.time.to_string());
    put("ce-datacontenttype", CONTENT_TYPE);
    put("ce-correlationid", &event.correlation_id.to_string());
    put("ce-causationid", &event.causation_id.to_string());
    let told = [
        ("traceparent", &event.traceparent),
        ("tracestate", &event.tracestate),
        (EDITION, &event.edition),
        (AUDIENCE, &event.audience),
    ];
    for (name, value) in told {
        if let Some(value) = value {
            put(name, value);
        }
    }
    headers.insert(NATS_MESSAGE_ID, event.message_id());
    headers
}

/// The event that a message carries; if it cannot be read, what could be, and why. `nameless` is its id when it tells none.
pub(crate) fn read(
    message: &async_nats::Message,
    nameless: Uuid,
) -> (Envelope, Result<(), Malformed>) {
    let empty = HeaderMap::new();
    let headers = message.headers.as_ref().unwrap_or(&empty);
    let mut wrong = None;
    let mut text = |name: &'static str| match headers.get(name).map(|value| decode(value.as_str()))
    {
        Some(Some(text)) => text,
        Some(None) => {
            wrong.get_or_insert(format!("{name} is no text"));
            String::new()
        }
        None => {
            wrong.get_or_insert(format!("{name} is missing"));
            String::new()
        }
    };
    let version = text("ce-specversion");
    let (source, kind) = (text("ce-source"), text("ce-type"));
    let time = text("ce-time").parse::<Timestamp>().ok();
    let content_type = text("ce-datacontenttype");
    let names = ["ce-id", "ce-subject", "ce-correlationid", "ce-causationid"];
    let [id, subject, correlation_id, causation_id] =
        names.map(|name| (name, Uuid::parse_str(&text(name)).ok()));
    for (name, value) in [&id, &subject, &correlation_id, &causation_id] {
        if value.is_none() {
            wrong.get_or_insert(format!("{name} is no UUID"));
        }
    }
    let time = time.and_then(|time| Time::try_from(&time).ok());
    if version != SPEC_VERSION {
        wrong.get_or_insert(format!("ce-specversion is {version:?}, not {SPEC_VERSION}"));
    } else if content_type != CONTENT_TYPE {
        wrong.get_or_insert(format!("ce-datacontenttype is {content_type:?}, not {CONTENT_TYPE}"));
    } else if time.is_none() {
        wrong.get_or_insert("ce-time is no time".to_owned());
    } else if kind != *message.subject {
        wrong.get_or_insert(format!("ce-type is {kind:?}, and the subject another"));
    } else if !publishes(&source, &kind) {
        wrong.get_or_insert(format!("{source} does not publish such events"));
    }
    let told = |name: &'static str| {
        headers.get(name).and_then(|value| decode(value.as_str())).map(Arc::from)
    };
    let event = Envelope {
        id: id.1.unwrap_or(nameless),
        kind: message.subject.as_str().into(),
        source: source.into(),
        subject: subject.1.unwrap_or_default(),
        time: time.unwrap_or_else(Time::now),
        correlation_id: correlation_id.1.unwrap_or_default(),
        causation_id: causation_id.1.unwrap_or_default(),
        traceparent: told("traceparent"),
        tracestate: told("tracestate"),
        edition: told(EDITION),
        audience: told(AUDIENCE),
        payload: message.payload.clone(),
    };
    (event, wrong.map_or(Ok(()), |why| Err(Malformed::new(why))))
}

/// Events live in the package of who publishes them: `/shop/till` publishes `shop.till.v1.Paid`.
fn publishes(source: &str, kind: &str) -> bool {
    let package = source.strip_prefix('/').unwrap_or_default().replace('/', ".");
    !package.is_empty() && kind.strip_prefix(&package).is_some_and(|rest| rest.starts_with('.'))
}

/// As the NATS binding of CloudEvents says: a header is printable ASCII, all else is percent-encoded.
fn encode(value: &str) -> String {
    let mut encoded = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b' ' | b'"' | b'%' => encoded.push_str(&format!("%{byte:02X}")),
            0x21..=0x7E => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// None: it is not UTF-8.
pub(super) fn decode(value: &str) -> Option<String> {
    let (mut decoded, mut rest) = (Vec::with_capacity(value.len()), value.as_bytes());
    while let [first, others @ ..] = rest {
        let hex = others.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        rest = match (first, byte) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                &others[2..]
            }
            _ => {
                decoded.push(*first);
                others
            }
        };
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(event: &Envelope) -> async_nats::Message {
        async_nats::Message {
            subject: event.kind.to_string().into(),
            reply: None,
            payload: event.payload.clone(),
            headers: Some(write(event)),
            status: None,
            description: None,
            length: 0,
        }
    }

    fn event() -> Envelope {
        let traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
        let tracestate = Some("vendor=\"50 %\" é".into());
        let event = Envelope::of("/google/protobuf", Uuid::now_v7(), &Timestamp::default());
        Envelope { traceparent, tracestate, ..event }
    }

    #[test]
    fn an_event_comes_back_as_it_went() {
        let event = event();
        let message = message(&event);
        let headers = message.headers.as_ref().expect("they were written");
        let shown = |name| headers.get(name).expect("it is there").as_str();
        assert_eq!(shown("ce-type"), "google.protobuf.Timestamp");
        assert_eq!(shown("tracestate"), "vendor=%2250%20%25%22%20%C3%A9");
        assert_eq!(shown("Nats-Msg-Id"), event.id.to_string());
        assert_eq!(read(&message, Uuid::nil()), (event, Ok(())));
    }

    #[test]
    fn another_publication_is_another_message_with_the_same_event() {
        let (edition, audience) = (Some("2".into()), Some("till".into()));
        let event = Envelope { edition, audience, ..event() };
        let message = message(&event);
        let id = message.headers.as_ref().and_then(|headers| headers.get("Nats-Msg-Id"));
        assert_eq!(id.expect("it has one").as_str(), format!("{}.2", event.id));
        assert_eq!(read(&message, Uuid::nil()), (event, Ok(())));
    }

    #[test]
    fn what_cannot_be_read_keeps_what_can_be_and_says_why() {
        let break_it: [(&str, fn(&mut async_nats::Message)); 6] = [
            ("ce-specversion is missing", |message| message.headers = None),
            ("ce-id is no UUID", |message| headers_of(message).insert("ce-id", "seven")),
            ("ce-time is no time", |message| headers_of(message).insert("ce-time", "noon")),
            ("and the subject another", |message| headers_of(message).insert("ce-type", "a.B")),
            ("/a/b does not publish such events", |message| {
                headers_of(message).insert("ce-source", "/a/b");
            }),
            ("ce-source is no text", |message| headers_of(message).insert("ce-source", "%FF")),
        ];
        for (why, break_it) in break_it {
            let event = event();
            let mut message = message(&event);
            break_it(&mut message);
            let (read, result) = read(&message, Uuid::max());
            let error = result.expect_err("it is broken").to_string();
            assert!(error.ends_with(why), "{error}");
            assert_eq!((read.kind, read.payload), (event.kind, event.payload));
        }
    }

    fn headers_of(message: &mut async_nats::Message) -> &mut HeaderMap {
        message.headers.as_mut().expect("they were written")
    }
}

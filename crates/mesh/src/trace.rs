//! W3C trace context: which trace a request is part of, as its headers say.
//!
//! Headers are anybody's: what is malformed is no trace, and nothing of it is stored or passed on.

use std::sync::Arc;
use tonic::metadata::MetadataMap;

/// The length of a `traceparent`. Later versions may append to it; nobody has to pass that on, and it has no limit.
const PARENT_LEN: usize = 55;
/// The most that the specification lets a `tracestate` hold.
const STATE_MEMBERS: usize = 32;
/// What the specification asks everybody to pass on; nobody has to take more.
const STATE_LEN: usize = 512;

/// Where a request belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The `traceparent` header, 55 characters.
    pub traceparent: Arc<str>,
    /// The `tracestate` header.
    pub tracestate: Option<Arc<str>>,
}

/// The trace that a request is part of; none if it says nothing, or nothing that can be read.
#[must_use]
pub fn read(metadata: &MetadataMap) -> Option<Trace> {
    let mut parents = metadata.get_all("traceparent").iter();
    let traceparent = parents.next()?.to_str().ok().filter(|parent| is_parent(parent))?;
    let traceparent = traceparent.get(..PARENT_LEN)?;
    if parents.next().is_some() {
        return None; // it cannot have two
    }
    let states = metadata.get_all("tracestate").iter().map(|state| state.to_str().ok());
    let state = states.collect::<Option<Vec<_>>>().unwrap_or_default().join(",");
    let tracestate = Some(state).filter(|state| is_state(state)).map(Arc::from);
    Some(Trace { traceparent: Arc::from(traceparent), tracestate })
}

/// `version-trace_id-parent_id-flags`; later versions may append.
fn is_parent(text: &str) -> bool {
    let mut parts = text.splitn(5, '-');
    let mut hex = |len: usize| {
        parts.next().filter(|part| {
            part.len() == len && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        })
    };
    let (Some(version), Some(trace), Some(parent), Some(_flags)) =
        (hex(2), hex(32), hex(16), hex(2))
    else {
        return false;
    };
    let some = |id: &str| id.bytes().any(|byte| byte != b'0');
    version != "ff" && some(trace) && some(parent) && (version != "00" || parts.next().is_none())
}

/// `key=value,key=value`, in the order of who wrote last.
fn is_state(text: &str) -> bool {
    let member = |member: &str| match member.trim().split_once('=') {
        Some((key, value)) => {
            let key_byte =
                |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@');
            let value_byte = |byte| matches!(byte, b' '..=b'~') && byte != b',' && byte != b'=';
            (1..=256).contains(&key.len())
                && key.bytes().all(key_byte)
                && (1..=256).contains(&value.len())
                && value.bytes().all(value_byte)
        }
        None => member.trim().is_empty(),
    };
    (1..=STATE_LEN).contains(&text.len())
        && text.split(',').count() <= STATE_MEMBERS
        && text.split(',').all(member)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn trace(headers: &[(&'static str, &str)]) -> Option<Trace> {
        let mut metadata = MetadataMap::new();
        for (key, value) in headers {
            metadata.append(*key, value.parse().expect("it is ASCII"));
        }
        read(&metadata)
    }

    #[test]
    fn a_trace_is_read_as_it_was_sent() {
        let parent = |traceparent: &str| trace(&[("traceparent", traceparent)]);
        let later = format!("cc{}", &PARENT[2..]);
        let longer = format!("{later}-{}", "what-comes".repeat(1_000));
        for (sent, kept) in [(PARENT, PARENT), (&later, &later), (&longer, &later)] {
            let read = parent(sent).expect("it is well-formed");
            assert_eq!((&*read.traceparent, read.tracestate), (kept, None));
        }
    }

    #[test]
    fn what_is_malformed_is_no_trace() {
        let zero_trace = PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32));
        let zero_parent = PARENT.replace("00f067aa0ba902b7", &"0".repeat(16));
        let more = format!("{PARENT}-00");
        let unknown = format!("ff{}", &PARENT[2..]);
        let upper = PARENT.to_uppercase();
        let glued = format!("cc{}0", &PARENT[2..]);
        for malformed in
            ["", "00", &PARENT[1..], &zero_trace, &zero_parent, &more, &unknown, &upper, &glued]
        {
            assert_eq!(trace(&[("traceparent", malformed)]), None, "{malformed}");
        }
        assert_eq!(trace(&[("traceparent", PARENT), ("traceparent", PARENT)]), None);
        assert_eq!(trace(&[("tracestate", "a=1")]), None, "it is nothing alone");
    }

    #[test]
    fn a_state_goes_with_its_trace_unless_it_is_malformed() {
        let state = |states: &[&str]| {
            let states = states.iter().map(|state| ("tracestate", *state));
            let headers: Vec<_> = [("traceparent", PARENT)].into_iter().chain(states).collect();
            trace(&headers).expect("the trace stands alone").tracestate
        };
        assert_eq!(state(&["a=1,b@c=two words"]).as_deref(), Some("a=1,b@c=two words"));
        assert_eq!(state(&["a=1", "b=2"]).as_deref(), Some("a=1,b=2"));
        let long = format!("a={}", "1".repeat(511));
        let many = vec!["a=1"; 33].join(",");
        for malformed in ["", "a", "A=1", "a=", "=1", "a=1=2", &long, &many] {
            assert_eq!(state(&[malformed]), None, "{malformed}");
        }
    }
}

//! How a command fails: one line on stderr, and an exit code by the class of the failure.

use super::{say, shop::Peer};
use chassis::{Chain, Printable};
use mesh::{client::not_sent, tls};
use std::{error::Error, fmt::Write as _, io, process::ExitCode, time::Duration};
use tonic::{Code, ConnectError, Status};
use tonic_types::StatusExt as _;

const FAILED: u8 = 1;
const MALFORMED: u8 = 2;
const NOT_FOUND: u8 = 3;
const REFUSED: u8 = 4;
const NOT_NOW: u8 = 5;

/// Why a command ends without success.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Whoever read our output has gone: `| head` has seen enough.
    Unheard,
    /// Something to tell.
    Told {
        /// The class.
        exit: u8,
        /// The line, printable.
        line: String,
    },
}

impl Failure {
    /// The command line is malformed in a way that its parser does not know.
    pub(super) fn malformed(error: &(dyn Error + 'static)) -> Self {
        Self::Told { exit: MALFORMED, line: Chain(error).to_string() }
    }

    /// There is no such thing.
    pub(super) fn not_found(line: impl Into<String>) -> Self {
        Self::Told { exit: NOT_FOUND, line: line.into() }
    }

    /// It is no longer possible.
    pub(super) fn refused(line: impl Into<String>) -> Self {
        Self::Told { exit: REFUSED, line: line.into() }
    }

    /// A service does not do what it should, now.
    pub(super) fn not_now(line: impl Into<String>) -> Self {
        Self::Told { exit: NOT_NOW, line: line.into() }
    }

    /// A service's error, or that of the way to it.
    pub(super) fn of(status: &Status, peer: Peer<'_>) -> Self {
        let Peer { name, url, set_by, .. } = peer;
        if not_sent(status) && status.code() == Code::Unavailable {
            return Self::not_now(match tls::refusal(status) {
                Some(why) => format!("cannot talk with {name} at {url} ({set_by}): {why}"),
                None => format!("cannot reach {name} at {url} ({set_by}); is it running?"),
            });
        }
        let line = match status.get_details_error_info() {
            Some(_said_by_the_service) => told(status),
            // made on the way: where that leads is worth knowing
            None => format!("{name} at {url} ({set_by}): {}", told(status)),
        };
        Self::Told { exit: exit(status.code()), line }
    }

    /// With what to do about it.
    pub(super) fn hint(mut self, hint: &str) -> Self {
        if let Self::Told { line, .. } = &mut self {
            line.push_str("; ");
            line.push_str(hint);
        }
        self
    }

    /// Whether it may succeed later.
    pub(super) fn is_not_now(&self) -> bool {
        matches!(self, Self::Told { exit: NOT_NOW, .. })
    }

    /// Tells it, where the command goes on.
    pub(super) fn warn(&self) {
        if let Self::Told { line, .. } = self {
            say(&format!("warning: {line}"));
        }
    }

    /// Tells it, and with what code to exit.
    pub(crate) fn tell(self) -> ExitCode {
        match self {
            Self::Unheard => ExitCode::SUCCESS,
            Self::Told { exit, line } => {
                say(&format!("error: {line}"));
                ExitCode::from(exit)
            }
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Unheard,
            _ => Self::Told { exit: FAILED, line: format!("cannot write the answer: {error}") },
        }
    }
}

/// An error of something that is no single call; if a call is behind it, its class counts.
impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        let Some(status) = error.chain().find_map(|cause| cause.downcast_ref::<Status>()) else {
            return Self::Told { exit: FAILED, line: Chain(error.as_ref()).to_string() };
        };
        let before = error.chain().take_while(|cause| !cause.is::<Status>());
        let mut line: String = before.map(|cause| format!("{}: ", Printable(cause))).collect();
        line.push_str(&told(status));
        if error.chain().any(<dyn Error>::is::<ConnectError>) {
            line.push_str("; is it running?");
        }
        Self::Told { exit: exit(status.code()), line }
    }
}

fn exit(code: Code) -> u8 {
    match code {
        Code::NotFound => NOT_FOUND,
        Code::InvalidArgument
        | Code::OutOfRange
        | Code::FailedPrecondition
        | Code::AlreadyExists
        | Code::Aborted
        | Code::PermissionDenied
        | Code::Unauthenticated => REFUSED,
        Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted => NOT_NOW,
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::Unimplemented
        | Code::Internal
        | Code::DataLoss => FAILED,
    }
}

/// The reason, the message, each field at fault, and when to try again.
fn told(status: &Status) -> String {
    let info = status.get_details_error_info();
    let reason = info.map_or_else(|| name(status.code()), |info| info.reason);
    let mut line = match status.message() {
        "" => reason,
        message => format!("{reason}: {message}"),
    };
    let violations = status.get_details_bad_request().map(|bad| bad.field_violations);
    for violation in violations.unwrap_or_default() {
        let violation = format!("{} {}", violation.field, violation.description);
        // the message may have told the first of them
        if !line.contains(&violation) {
            write!(line, "; {violation}").expect("a String takes all");
        }
    }
    let retry = status.get_details_retry_info().and_then(|info| info.retry_delay);
    if let Some(after) = retry {
        // to the millisecond: people do not count nanoseconds
        let after = Duration::from_millis(u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
        write!(line, "; try again in {}", humantime::format_duration(after))
            .expect("a String takes all");
    }
    Printable(line).to_string()
}

/// gRPC's name of a code: `DEADLINE_EXCEEDED`.
pub(super) fn name(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.extend(letter.to_uppercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls;
    use std::collections::HashMap;
    use tonic_types::ErrorDetails;

    const ORDER: Peer<'_> = Peer {
        name: "Order",
        url: "http://127.0.0.1:8081",
        flag: "--order-url",
        set_by: "--order-url, STARCOFFEE_ORDER_URL",
        tls: &tls::Args { tls_ca: None, tls_cert: None, tls_key: None },
    };

    fn told(failure: Failure) -> (u8, String) {
        match failure {
            Failure::Told { exit, line } => (exit, line),
            Failure::Unheard => panic!("there is something to tell"),
        }
    }

    #[test]
    fn a_refusal_names_its_reason_and_each_field_in_one_line() {
        let mut details =
            ErrorDetails::with_error_info("VALIDATION", contract::ERROR_DOMAIN, HashMap::new());
        details.add_bad_request_violation("lines[0].quantity", "must be at least 1");
        details.add_bad_request_violation("customer_id", "is \u{1b}[2Jmalformed");
        let message = "lines[0].quantity must be at least 1; and 1 more";
        let status = Status::with_error_details(Code::InvalidArgument, message, details);
        let line = "VALIDATION: lines[0].quantity must be at least 1; and 1 more; \
                    customer_id is \\u{1b}[2Jmalformed";
        assert_eq!(told(Failure::of(&status, ORDER)), (REFUSED, line.to_owned()));
    }

    #[test]
    fn what_can_be_tried_again_says_when() {
        let mut details =
            ErrorDetails::with_error_info("DRAINING", contract::ERROR_DOMAIN, HashMap::new());
        details.set_retry_info(Some(Duration::from_secs(1)));
        let status = Status::with_error_details(Code::Unavailable, "it closes", details);
        let failure = Failure::of(&status, ORDER);
        assert!(failure.is_not_now());
        let line = "DRAINING: it closes; try again in 1s";
        assert_eq!(told(failure), (NOT_NOW, line.to_owned()));
    }

    #[test]
    fn an_error_made_on_the_way_says_where_that_leads() {
        let (exit, line) = told(Failure::of(&Status::deadline_exceeded("too late"), ORDER));
        assert_eq!(exit, NOT_NOW);
        let begin = "Order at http://127.0.0.1:8081 (--order-url, STARCOFFEE_ORDER_URL): ";
        assert_eq!(line, format!("{begin}DEADLINE_EXCEEDED: too late"));
        let error = anyhow::Error::from(Status::not_found("gone")).context("no menu");
        assert_eq!(told(error.into()), (NOT_FOUND, "no menu: NOT_FOUND: gone".to_owned()));
    }

    #[test]
    fn a_reader_who_has_gone_is_no_failure() {
        let gone = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(matches!(gone, Failure::Unheard));
    }
}

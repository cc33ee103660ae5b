//! Errors as callers see them: a code, a reason to switch on, and details to act on.

use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

/// When a caller may try again what cannot be done now: a restart, and most overloads, take about as long.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// An error on its way to the caller, as `google.rpc.Status` with details: `ErrorInfo` always, `BadRequest` and `RetryInfo`
/// where they help.
#[derive(Clone, Debug)]
#[must_use]
pub struct Problem(Box<Inner>); // boxed: it is the error of many results

#[derive(Clone, Debug)]
struct Inner {
    domain: &'static str,
    code: Code,
    reason: &'static str,
    message: String,
    metadata: Vec<(String, String)>,
    violations: Vec<FieldViolation>,
    retry_after: Option<Duration>,
}

impl Problem {
    /// An error with its reason: callers switch on it, never on the message. The domain says whose reason it is.
    pub fn new(
        domain: &'static str,
        code: Code,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self(Box::new(Inner {
            domain,
            code,
            reason,
            message: message.into(),
            metadata: Vec::new(),
            violations: Vec::new(),
            retry_after: None,
        }))
    }

    /// A field of the request breaks a rule.
    pub fn invalid(domain: &'static str, field: &str, description: &str) -> Self {
        Self::new(domain, Code::InvalidArgument, "VALIDATION", format!("{field}: {description}"))
            .with_violation(field, description)
    }

    /// More is asked than can be done now; nothing happened.
    pub fn overloaded(domain: &'static str, message: impl Into<String>) -> Self {
        Self::new(domain, Code::ResourceExhausted, "OVERLOADED", message)
            .with_retry_after(RETRY_AFTER)
    }

    /// The service cannot use its database now.
    pub fn unstored(domain: &'static str) -> Self {
        let message = "the service's database cannot be used now";
        Self::new(domain, Code::Unavailable, "STORE_UNAVAILABLE", message)
            .with_retry_after(RETRY_AFTER)
    }

    /// The service is stopping; another one, or the next, may be asked.
    pub fn draining(domain: &'static str) -> Self {
        Self::new(domain, Code::Unavailable, "DRAINING", "the service is stopping")
            .with_retry_after(RETRY_AFTER)
    }

    /// A bug, or something as unforeseen. Whoever called can do nothing about it, and learns nothing of it.
    pub fn internal(domain: &'static str) -> Self {
        Self::new(domain, Code::Internal, "INTERNAL", "internal error")
    }

    /// Names a field of the request, such as `lines[0].quantity`, and what is wrong with it.
    pub fn with_violation(
        mut self,
        field: impl Into<String>,
        description: impl Into<String>,
    ) -> Self {
        self.0.violations.push(FieldViolation::new(field, description));
        self
    }

    /// Names several fields, and what is wrong with each.
    pub fn with_violations(self, violations: impl IntoIterator<Item = (String, String)>) -> Self {
        violations
            .into_iter()
            .fold(self, |problem, (field, description)| problem.with_violation(field, description))
    }

    /// Says when the same request may succeed.
    pub fn with_retry_after(mut self, delay: Duration) -> Self {
        self.0.retry_after = Some(delay);
        self
    }

    /// Says more to machines.
    pub fn with_metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.metadata.push((key.into(), value.into()));
        self
    }
}

impl From<Problem> for Status {
    fn from(problem: Problem) -> Self {
        let Inner { domain, code, reason, message, metadata, violations, retry_after } = *problem.0;
        let metadata: std::collections::HashMap<_, _> = metadata.into_iter().collect();
        let mut details = ErrorDetails::with_error_info(reason, domain, metadata);
        if !violations.is_empty() {
            details.set_bad_request(violations);
        }
        if retry_after.is_some() {
            details.set_retry_info(retry_after);
        }
        Self::with_error_details(code, message, details)
    }
}

/// The reason of an error, if it came with one.
#[must_use]
pub fn reason(status: &Status) -> Option<String> {
    status.get_details_error_info().map(|info| info.reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_tells_its_reason_and_its_details() {
        let problem =
            Problem::new("example.org", Code::InvalidArgument, "VALIDATION", "two are wrong")
                .with_violation("a", "it is too long")
                .with_violations([("b[1].c".to_owned(), "it is missing".to_owned())])
                .with_metadata("limit", "3");
        let status = Status::from(problem);
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "two are wrong"));
        assert_eq!(reason(&status).as_deref(), Some("VALIDATION"));
        let details = status.get_error_details();
        let info = details.error_info().expect("it has a reason");
        assert_eq!((&*info.domain, &*info.metadata["limit"]), ("example.org", "3"));
        let violations = &details.bad_request().expect("it names fields").field_violations;
        let fields: Vec<_> = violations.iter().map(|violation| &*violation.field).collect();
        assert_eq!(fields, ["a", "b[1].c"]);
        assert!(details.retry_info().is_none(), "nobody said when");
    }

    #[test]
    fn a_problem_that_passes_says_when() {
        let problem = Problem::new("example.org", Code::Unavailable, "DRAINING", "it is stopping");
        let status = Status::from(problem.with_retry_after(Duration::from_secs(1)));
        let retry = status.get_details_retry_info().expect("it says when");
        assert_eq!(retry.retry_delay, Some(Duration::from_secs(1)));
        assert!(status.get_details_bad_request().is_none());
    }

    #[test]
    fn an_error_of_somebody_else_has_no_reason() {
        assert_eq!(reason(&Status::unavailable("no route to host")), None);
    }
}

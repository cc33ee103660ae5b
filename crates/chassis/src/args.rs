//! Values of settings, as people write them.

use std::time::Duration;

/// Reads a duration such as `250ms`, `2s` or `1h 30m`; for clap's `value_parser`.
///
/// # Errors
/// What a duration looks like, for other text.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| {
        format!("a duration is a number with its unit, such as 250ms, 2s or 1h: {error}")
    })
}

/// Reads a duration that is the time between two looks: longer than none.
///
/// # Errors
/// As [`duration`], and for none.
pub fn period(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("it must be longer than 0s".to_owned()),
        period => Ok(period),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_unit() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        for malformed in ["", "5", "-1s", "soon"] {
            assert!(duration(malformed).is_err_and(|error| error.contains("250ms")), "{malformed}");
        }
        assert_eq!(period("2s"), Ok(Duration::from_secs(2)));
        assert!(period("0s").is_err());
    }
}

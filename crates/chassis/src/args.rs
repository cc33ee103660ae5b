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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_unit() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        for malformed in ["", "5", "-1s", "soon"] {
            assert!(duration(malformed).is_err_and(|error| error.contains("250ms")), "{malformed}");
        }
    }
}

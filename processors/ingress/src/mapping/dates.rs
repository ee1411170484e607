//! Dates as the mapping's formats say, to milliseconds.

use chrono::{
    DateTime, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, TimeZone,
    format::{Item, StrftimeItems},
};
use claims_schemas::Timestamp;

/// One format of dates or times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DateFormat {
    pattern: Pattern,
    /// The zone of times that name none.
    offset: FixedOffset,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    /// With a zone of its own.
    Zoned(String),
    /// Date and time.
    Local(String),
    /// A date alone: midnight.
    Date(String),
    Rfc3339,
    UnixSeconds,
    UnixMillis,
}

impl DateFormat {
    /// A `strftime` pattern, or one of the words `rfc3339`, `unix-seconds`, `unix-millis`.
    pub fn new(format: &str, offset: FixedOffset) -> Result<Self, String> {
        let pattern = match format {
            "rfc3339" => Pattern::Rfc3339,
            "unix-seconds" => Pattern::UnixSeconds,
            "unix-millis" => Pattern::UnixMillis,
            _ => classify(format)?,
        };
        Ok(Self { pattern, offset })
    }

    /// The moment that `text` means; `None`: not in this format, or no such date.
    pub fn parse(&self, text: &str) -> Option<Timestamp> {
        let local = |at: NaiveDateTime| self.offset.from_local_datetime(&at).single();
        let at = match &self.pattern {
            Pattern::Zoned(pattern) => DateTime::parse_from_str(text, pattern).ok()?,
            Pattern::Local(pattern) => local(NaiveDateTime::parse_from_str(text, pattern).ok()?)?,
            Pattern::Date(pattern) => {
                local(NaiveDate::parse_from_str(text, pattern).ok()?.and_time(NaiveTime::MIN))?
            }
            Pattern::Rfc3339 => DateTime::parse_from_rfc3339(text).ok()?,
            Pattern::UnixSeconds => {
                return text.parse::<i64>().ok()?.checked_mul(1_000).map(Timestamp);
            }
            Pattern::UnixMillis => return text.parse().ok().map(Timestamp),
        };
        Some(Timestamp(at.timestamp_millis()))
    }
}

/// What a pattern holds is found out by writing a moment with it and reading that again.
fn classify(format: &str) -> Result<Pattern, String> {
    if StrftimeItems::new(format).any(|item| item == Item::Error) {
        return Err(format!("{format:?} is no strftime pattern"));
    }
    let sample = DateTime::from_timestamp(1_456_708_980, 0).unwrap_or_default().fixed_offset();
    let written = sample.format(format).to_string();
    if DateTime::parse_from_str(&written, format).is_ok() {
        return Ok(Pattern::Zoned(format.to_owned()));
    }
    if NaiveDateTime::parse_from_str(&written, format).is_ok() {
        return Ok(Pattern::Local(format.to_owned()));
    }
    if NaiveDate::parse_from_str(&written, format).is_ok() {
        return Ok(Pattern::Date(format.to_owned()));
    }
    Err(format!("{format:?} doesn't say a whole date"))
}

/// The zone `+01:00`, `-05:30`, `Z`.
pub fn parse_offset(text: &str) -> Option<FixedOffset> {
    if matches!(text, "Z" | "UTC") {
        return FixedOffset::east_opt(0);
    }
    let at = DateTime::parse_from_rfc3339(&format!("2000-01-01T00:00:00{text}")).ok()?;
    Some(*at.offset())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn millis(format: &str, text: &str) -> Option<i64> {
        DateFormat::new(format, parse_offset("+00:00").unwrap()).unwrap().parse(text).map(|at| at.0)
    }

    #[test]
    fn dates_without_padding_and_dates_that_do_not_exist() {
        assert_eq!(millis("%d/%m/%Y %H:%M", "29/2/2016 01:23"), Some(1_456_708_980_000));
        assert_eq!(millis("%d/%m/%Y %H:%M", "31/2/2016 01:23"), None);
        assert_eq!(millis("%d/%m/%Y %H:%M", "29/2/2015 01:23"), None);
        assert_eq!(millis("%d/%m/%Y %H:%M", "29/2/2016 25:00"), None);
        assert_eq!(millis("%d/%m/%Y %H:%M", "29/2/2016 01:23 and more"), None);
        assert_eq!(millis("%Y-%m-%d", "2016-02-29"), Some(1_456_704_000_000));
        assert_eq!(millis("%Y-%m-%d", ""), None);
    }

    #[test]
    fn zones() {
        assert_eq!(millis("rfc3339", "2016-02-29T02:23:00+01:00"), Some(1_456_708_980_000));
        assert_eq!(millis("%Y-%m-%d %H:%M:%S %z", "2016-02-29 02:23:00 +0100"), Some(1_456_708_980_000));
        let paris = DateFormat::new("%Y-%m-%d %H:%M", parse_offset("+01:00").unwrap()).unwrap();
        assert_eq!(paris.parse("2016-02-29 02:23"), Some(Timestamp(1_456_708_980_000)));
        assert_eq!(millis("unix-seconds", "1456708980"), Some(1_456_708_980_000));
        assert_eq!(millis("unix-seconds", "9223372036854775807"), None);
        assert_eq!(parse_offset("Paris"), None);
    }

    #[test]
    fn patterns_that_say_no_date_are_refused() {
        let utc = parse_offset("Z").unwrap();
        for bad in ["%Q", "%H:%M", "%m/%Y", ""] {
            assert!(DateFormat::new(bad, utc).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in ".{0,40}") {
            for format in ["%d/%m/%Y %H:%M", "rfc3339", "unix-seconds", "unix-millis", "%Y-%m-%d"] {
                let _ = millis(format, &text);
            }
        }
    }
}

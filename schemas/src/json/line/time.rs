//! The usual spelling of a moment, read without a general parser.

use crate::events::Timestamp;

const MILLIS_PER_DAY: i64 = 86_400_000;

/// `2025-07-08T14:30:00Z` or `2025-07-08T14:30:00.123Z`; `None`: any other spelling, or no such moment.
pub(super) fn plain_rfc3339(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let millis = match bytes.len() {
        20 => 0,
        24 if bytes[19] == b'.' => number(&bytes[20..23])?,
        _ => return None,
    };
    let marks = [bytes[4], bytes[7], bytes[10], bytes[13], bytes[16], bytes[bytes.len() - 1]];
    (marks == *b"--T::Z").then_some(())?;
    let (year, month, day) = (number(&bytes[..4])?, number(&bytes[5..7])?, number(&bytes[8..10])?);
    let (hour, minute, second) = (number(&bytes[11..13])?, number(&bytes[14..16])?, number(&bytes[17..19])?);
    let exists = (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    let of_day = ((hour * 60 + minute) * 60 + second) * 1_000 + millis;
    exists.then(|| Timestamp(days_since_1970(year, month, day) * MILLIS_PER_DAY + of_day))
}

fn number(digits: &[u8]) -> Option<i64> {
    digits
        .iter()
        .try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0')))
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The proleptic Gregorian calendar, counted from March, so that the leap day is a year's last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{DateTime, Datelike, Days, NaiveDate};
    use proptest::prelude::*;

    fn by_chrono(text: &str) -> Option<Timestamp> {
        DateTime::parse_from_rfc3339(text).ok().map(|at| Timestamp(at.timestamp_millis()))
    }

    #[test]
    fn days_are_where_chrono_has_them() {
        // Every day of February, and every 26th day of the rest.
        let mut day = NaiveDate::from_ymd_opt(0, 1, 1);
        while let Some(date) = day.filter(|date| *date <= NaiveDate::from_ymd_opt(9999, 12, 31).unwrap()) {
            let text = format!("{date}T23:59:59.999Z");
            assert_eq!(plain_rfc3339(&text), by_chrono(&text), "{text}");
            day = date.checked_add_days(Days::new(if date.month() == 2 { 1 } else { 26 }));
        }
    }

    proptest! {
        /// Whatever is read here is read so by chrono too.
        #[test]
        fn nothing_is_read_otherwise(
            text in "[0-2][0-9]{3}-[01][0-9]-[0-3][0-9][Tt ][0-2][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{3})?[Zz]",
            hit in any::<proptest::sample::Index>(),
            other in any::<Option<char>>(),
        ) {
            let mut chars: Vec<char> = text.chars().collect();
            if let Some(other) = other {
                let at = hit.index(chars.len());
                chars[at] = other;
            }
            let text: String = chars.into_iter().collect();
            if let Some(at) = plain_rfc3339(&text) {
                prop_assert_eq!(Some(at), by_chrono(&text));
            }
        }
    }
}

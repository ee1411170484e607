//! What every event must hold to.

use crate::samples::{event, one_of_each};
use claims_schemas::{
    Event, Timestamp,
    events::*,
    validate::{self, ValidationError, reason, validate},
};
use rust_decimal::Decimal;

const NOW: Timestamp = Timestamp(1_751_990_000_000);

fn refusal(change: impl FnOnce(&mut Event)) -> Option<(&'static str, &'static str)> {
    let mut event = one_of_each().remove(0);
    change(&mut event);
    validate(&event, NOW).err().map(|ValidationError { field, reason }| (field, reason))
}

fn created(change: impl FnOnce(&mut ClaimCreated)) -> Option<(&'static str, &'static str)> {
    refusal(|event| {
        let EventData::ClaimCreated(data) = &mut event.data else { panic!("the first sample is a creation") };
        change(data);
    })
}

fn claimed(amount: Decimal, currency: Option<&str>) -> Option<(&'static str, &'static str)> {
    created(|data| data.claimed = Some(Money { amount, currency: currency.map(Into::into) }))
}

#[test]
fn every_sample_is_valid() {
    for event in one_of_each() {
        assert_eq!(validate(&event, NOW), Ok(()), "{}", event.event_type());
    }
}

#[test]
fn ids_are_short_and_plain() {
    assert_eq!(refusal(|e| e.claim_id.clear()), Some(("claim_id", reason::EMPTY)));
    assert_eq!(refusal(|e| e.claim_id = "x".repeat(256)), None);
    assert_eq!(refusal(|e| e.claim_id = "x".repeat(257)), Some(("claim_id", reason::TOO_LONG)));
    assert_eq!(refusal(|e| e.claim_id = "a\u{7}".into()), Some(("claim_id", reason::CONTROL_CHARACTER)));
    assert_eq!(refusal(|e| e.claim_id = "case:7".into()), None);
    assert_eq!(refusal(|e| e.tenant_id = "a:b".into()), Some(("tenant_id", reason::COLON)));
    assert_eq!(refusal(|e| e.user_id = Some(String::new())), Some(("user_id", reason::EMPTY)));
    assert_eq!(
        created(|d| d.customer_id = "\n".into()),
        Some(("data.customer_id", reason::CONTROL_CHARACTER))
    );
    assert_eq!(created(|d| d.claim_type.clear()), Some(("data.claim_type", reason::EMPTY)));
}

#[test]
fn control_characters_of_every_kind_are_refused_and_nothing_else() {
    for character in (0..0x3000).chain([0xFFFD, 0x1_F600]).filter_map(char::from_u32) {
        let expected = character.is_control().then_some(("user_id", reason::CONTROL_CHARACTER));
        assert_eq!(refusal(|e| e.user_id = Some(format!("é{character}Â"))), expected, "{character:?}");
    }
}

#[test]
fn texts_are_bounded() {
    let longest = "é".repeat(validate::MAX_TEXT_BYTES / 2);
    assert_eq!(created(|d| d.description = longest.clone()), None);
    let too_long = Some(("data.description", reason::TOO_LONG));
    assert_eq!(created(|d| d.description = longest.clone() + "x"), too_long);
    assert_eq!(created(|d| d.description = "two\nlines".into()), None);
}

#[test]
fn versions_and_times_are_in_range() {
    let out_of_range = Some(("version", reason::VERSION_OUT_OF_RANGE));
    assert_eq!(refusal(|e| e.version = 0), out_of_range);
    assert_eq!(refusal(|e| e.version = validate::MAX_VERSION), None);
    assert_eq!(refusal(|e| e.version = validate::MAX_VERSION + 1), out_of_range);

    let century_ms = 100 * 365 * validate::MAX_AHEAD_MS;
    let too_late = Some(("occurred_at", reason::TOO_LATE));
    assert_eq!(refusal(|e| e.occurred_at.0 = NOW.0 + century_ms), too_late);
    assert_eq!(refusal(|e| e.occurred_at.0 = NOW.0 + validate::MAX_AHEAD_MS), None);
    assert_eq!(refusal(|e| e.occurred_at.0 = NOW.0 + validate::MAX_AHEAD_MS + 1), too_late);
    assert_eq!(refusal(|e| e.occurred_at.0 = validate::MIN_TIME_MS), None);
    assert_eq!(refusal(|e| e.occurred_at.0 = i64::MIN), Some(("occurred_at", reason::TOO_EARLY)));
    assert_eq!(refusal(|e| e.recorded_at.0 = i64::MAX), Some(("recorded_at", reason::TOO_LATE)));
    // The clock may be anything.
    assert!(validate(&closed(), Timestamp(i64::MAX)).is_ok());

    let mut assigned = one_of_each().remove(1);
    let EventData::ClaimAssigned(data) = &mut assigned.data else { panic!("the second is an assignment") };
    data.estimated_resolution_time = Some(Timestamp(validate::MAX_TIME_MS + 1));
    assert_eq!(validate(&assigned, NOW).unwrap_err().field, "data.estimated_resolution_time");
}

#[test]
fn the_bounds_of_time_are_the_years_they_claim() {
    let year = |ms| Timestamp(ms).to_datetime().unwrap().to_rfc3339();
    assert_eq!(year(validate::MIN_TIME_MS), "1900-01-01T00:00:00+00:00");
    assert_eq!(year(validate::MAX_TIME_MS), "2200-01-01T00:00:00+00:00");
}

#[test]
fn amounts_fit_the_schema() {
    assert_eq!(claimed(Decimal::ZERO, None), None);
    assert_eq!(claimed(Decimal::new(999_999_999_999_999_999, 4), Some("USD")), None);
    assert_eq!(claimed(Decimal::new(-1, 2), None), Some(("data.claimed.amount", reason::NEGATIVE)));
    let too_many = Some(("data.claimed.amount", reason::TOO_MANY_DIGITS));
    assert_eq!(claimed(Decimal::new(100_000_000_000_000, 0), None), too_many);
    assert_eq!(claimed(Decimal::new(1, 5), None), too_many);
    assert_eq!(claimed(Decimal::new(100_000, 9), None), None, "zeros at the end don't count");
    assert_eq!(claimed(Decimal::MAX, None), too_many);
    for bad in ["eur", "EURO", "", "E1R", "ÉU"] {
        let expected = Some(("data.claimed.currency", reason::NOT_A_CURRENCY));
        assert_eq!(claimed(Decimal::ONE, Some(bad)), expected, "{bad}");
    }
}

fn closed() -> Event {
    event(3, ClaimClosed::default())
}

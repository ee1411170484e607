//! Events on the wire: Confluent framing (magic byte 0, schema id as big-endian u32, Avro body).
//!
//! - [`encode`] writes with this build's schema, which the module of that name knows by heart;
//!   [`SchemaCache::decode`] reads with the writer's.
//! - `wire`: the Avro record as serde sees it.
//! - `plain`: the short way for records of this build's own schema.
//! - `evolution`: compares a writer's schema with ours, once per schema.
//! - `inspect`: looks for unknown content in a record of a newer writer, before it is decoded.
//! - [`encode_state`], [`SchemaCache::decode_state`]: the same for a claim's current state.

mod cache;
mod encode;
mod evolution;
mod inspect;
mod plain;
mod state_record;
mod wire;

pub use cache::SchemaCache;
pub use state_record::StateRecord;

use crate::{
    events::{Event, Money},
    state::ClaimState,
    view::{DataView, EventView},
};
use rust_decimal::Decimal;
use serde::Serialize;
use serde_avro_fast::{Schema, ser::SerializerConfig};
use std::{cell::RefCell, sync::LazyLock};

/// Why a payload could not be turned into an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are not what they claim to be: bad data, for the dead letters.
    #[error("{0}")]
    Malformed(String),
    /// The writer's schema is not in the cache yet: resolve it and decode again.
    #[error("schema {0} is not in the cache")]
    SchemaMissing(u32),
    /// The record uses something that this build doesn't know: not bad data; wait for the upgrade.
    #[error("written by a newer build: {0}; upgrade this processor")]
    UpgradeNeeded(String),
}

/// Why an event could not be encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event can't be encoded: {0}")]
pub struct EncodeError(pub String);

/// The schema that this build writes events with, as JSON.
pub const CLAIM_EVENT_SCHEMA: &str = include_str!("../../avro/claim_event.avsc");

/// The schema that this build writes current states with (topic `claims.state.v1`), as JSON.
pub const CLAIM_STATE_SCHEMA: &str = include_str!("../../avro/claim_state.avsc");

/// Length in bytes of what precedes the Avro body: the magic byte and the schema id.
pub const FRAME_BYTES: usize = 5;

/// Digits of an amount in all (Avro decimal).
pub const AMOUNT_PRECISION: u32 = 18;

/// Digits of an amount after the point (Avro decimal).
pub const AMOUNT_SCALE: u32 = 4;

/// Deepest nesting of a record that is read; ours is 5 deep. Keeps a hostile record off the stack's end.
const MAX_DEPTH: usize = 64;

const TRAILING_BYTES: &str = "bytes follow the end of the Avro datum";

/// The value of `aggregate_type` in every claim event.
const AGGREGATE_TYPE: &str = "claim";

/// Parsed once. The error can only come from a broken `.avsc` of this build, which the tests would show.
static EVENT_WRITER: LazyLock<Result<Schema, String>> = LazyLock::new(|| parse(CLAIM_EVENT_SCHEMA));
static STATE_WRITER: LazyLock<Result<Schema, String>> = LazyLock::new(|| parse(CLAIM_STATE_SCHEMA));

fn parse(schema_json: &str) -> Result<Schema, String> {
    schema_json.parse().map_err(|e: serde_avro_fast::schema::SchemaError| e.to_string())
}

type Serializer = RefCell<Option<SerializerConfig<'static>>>;

thread_local! {
    // The serialiser's buffers, kept from one record to the next.
    static EVENT_SERIALIZER: Serializer = const { RefCell::new(None) };
    static STATE_SERIALIZER: Serializer = const { RefCell::new(None) };
}

/// Appends the framed event to `out`, written with [`CLAIM_EVENT_SCHEMA`] registered as `schema_id`.
///
/// On an error (an amount that the schema can't hold, a version beyond 2^63 - 1) `out` is as before.
pub fn encode(event: &Event, schema_id: u32, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    encode_view(&EventView::from(event), schema_id, out)
}

/// The same for an event whose texts stand elsewhere.
pub fn encode_view(event: &EventView<'_>, schema_id: u32, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    match &event.data {
        DataView::ClaimCreated(data) => check_amount("claimed", data.claimed.map(|money| money.amount))?,
        DataView::ClaimResolved(data) => check_amount("settled", data.settled.map(|money| money.amount))?,
        _ => {}
    }
    if encode::KNOWS_THE_SCHEMA {
        return encode::event(event, schema_id, out);
    }
    let schema = EVENT_WRITER.as_ref().map_err(|e| EncodeError(e.clone()))?;
    let event = event.to_event();
    EVENT_SERIALIZER.with_borrow_mut(|slot| {
        let config = slot.get_or_insert_with(|| SerializerConfig::new(schema));
        write_framed(&wire::EventRef::from(&event), schema_id, config, out)
    })
}

/// Appends the framed current state to `out`, written with [`CLAIM_STATE_SCHEMA`] registered as `schema_id`.
/// On an error `out` is as before.
pub fn encode_state(state: &ClaimState, schema_id: u32, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let amount = |money: &Option<Money>| money.as_ref().map(|money| money.amount);
    check_amount("claimed", amount(&state.claimed.value))?;
    check_amount("settled", amount(&state.settled.value))?;
    let schema = STATE_WRITER.as_ref().map_err(|e| EncodeError(e.clone()))?;
    STATE_SERIALIZER.with_borrow_mut(|slot| {
        let config = slot.get_or_insert_with(|| SerializerConfig::new(schema));
        write_framed(&StateRecord::<&str>::from(state), schema_id, config, out)
    })
}

/// Refuses amounts that the writer would round or that readers could not hold.
fn check_amount(field: &str, amount: Option<Decimal>) -> Result<(), EncodeError> {
    match amount {
        Some(amount) if !amount_fits(amount) => Err(EncodeError(format!(
            "the amount of {field} has more than {AMOUNT_PRECISION} digits, or more than {AMOUNT_SCALE} after the point"
        ))),
        _ => Ok(()),
    }
}

/// Appends magic byte, schema id and Avro body; takes everything back on an error.
fn write_framed<T: Serialize>(
    value: &T,
    schema_id: u32,
    config: &mut SerializerConfig<'_>,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let start = out.len();
    out.push(0);
    out.extend_from_slice(&schema_id.to_be_bytes());
    serde_avro_fast::to_datum(value, &mut *out, config).map(drop).map_err(|e| {
        out.truncate(start);
        EncodeError(e.to_string())
    })
}

/// The schema id in a framed value; `None` if it is not framed.
pub fn schema_id(value: &[u8]) -> Option<u32> {
    match value {
        [0, a, b, c, d, ..] => Some(u32::from_be_bytes([*a, *b, *c, *d])),
        _ => None,
    }
}

/// Whether an amount fits the schema's decimal: at most 18 digits, 4 of them after the point.
pub fn amount_fits(amount: Decimal) -> bool {
    // The Avro writer would round silently, so what can't be written exactly is refused.
    ten_thousandths(amount).is_some()
}

/// The amount as the schema's decimal holds it: a whole number of ten-thousandths. `None`: it doesn't fit.
fn ten_thousandths(amount: Decimal) -> Option<i64> {
    let (mantissa, scale) = (amount.mantissa(), amount.scale());
    let scaled = if scale <= AMOUNT_SCALE {
        mantissa.checked_mul(10_i128.pow(AMOUNT_SCALE - scale))?
    } else {
        let divisor = 10_i128.checked_pow(scale - AMOUNT_SCALE)?;
        (mantissa % divisor == 0).then_some(mantissa / divisor)?
    };
    (scaled.unsigned_abs() < 10_u128.pow(AMOUNT_PRECISION)).then(|| i64::try_from(scaled).ok())?
}

/// Splits a framed value into schema id and Avro body.
fn unframe(value: &[u8]) -> Result<(u32, &[u8]), DecodeError> {
    match value {
        [0, a, b, c, d, body @ ..] => Ok((u32::from_be_bytes([*a, *b, *c, *d]), body)),
        [0, ..] => Err(DecodeError::Malformed(format!(
            "{} bytes are too short for the Confluent framing of {FRAME_BYTES} bytes",
            value.len()
        ))),
        [magic, ..] => {
            Err(DecodeError::Malformed(format!("magic byte is {magic}, not 0: no Confluent framing")))
        }
        [] => Err(DecodeError::Malformed("the value is empty".to_owned())),
    }
}

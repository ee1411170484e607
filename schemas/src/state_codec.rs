//! The binary form of a [`ClaimState`] in a local store: compact, and cheap to write and read for every event.
//!
//! A byte with the version of the format, then the fields in the order of the struct: numbers as LEB128, signed ones
//! zigzagged, texts with their length in bytes before them, optional values behind a 0 or 1. Not for exchange: other
//! teams read `claims.state.v1`.

use crate::{
    Text,
    events::{Money, Timestamp, Urgency},
    state::{ClaimState, SeenVersion, SeenVersions, Status, Versioned},
};
use rust_decimal::Decimal;

/// The version of the format; a change of the fields or their order needs the next one.
pub const STATE_FORMAT: u8 = 1;

/// Bytes reserved for a state before it is written: most claims fit.
const TYPICAL_STATE_BYTES: usize = 512;

/// Why stored bytes are not a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StateBytesError {
    /// Written by another build: the store has to be built anew.
    #[error("stored state has format {found}, this build reads format {STATE_FORMAT}; rebuild the store")]
    UnknownFormat {
        /// The format's version in the bytes.
        found: u8,
    },
    /// Cut off, or not a state at all.
    #[error("stored state is damaged; rebuild the store")]
    Damaged,
}

/// One macro for both directions, so that no field is forgotten and the order is one.
macro_rules! fields {
    ($($field:ident),* $(,)?) => {
        impl ClaimState {
            /// The state in its binary form.
            pub fn to_bytes(&self) -> Vec<u8> {
                let mut out = Vec::with_capacity(TYPICAL_STATE_BYTES);
                self.write_bytes(&mut out);
                out
            }

            /// Appends the state in its binary form.
            pub fn write_bytes(&self, out: &mut Vec<u8>) {
                let ClaimState { $($field),* } = self;
                out.push(STATE_FORMAT);
                $($field.put(out);)*
            }

            /// The state from what [`to_bytes`](Self::to_bytes) made.
            pub fn from_bytes(bytes: &[u8]) -> Result<Self, StateBytesError> {
                let (format, mut rest) = bytes.split_first().ok_or(StateBytesError::Damaged)?;
                if *format != STATE_FORMAT {
                    return Err(StateBytesError::UnknownFormat { found: *format });
                }
                // The fields of a struct expression are evaluated in the order they are written.
                let read = |rest: &mut &[u8]| Some(ClaimState { $($field: Field::take(rest)?),* });
                let state = read(&mut rest).ok_or(StateBytesError::Damaged)?;
                if rest.is_empty() { Ok(state) } else { Err(StateBytesError::Damaged) }
            }
        }
    };
}

fields!(
    tenant_id,
    claim_id,
    seen,
    status,
    status_since,
    source,
    customer_id,
    customer_name,
    customer_email,
    claim_type,
    title,
    description,
    product_id,
    order_id,
    urgency,
    claimed,
    agent_id,
    agent_name,
    estimated_resolution_at,
    resolution,
    resolution_type,
    customer_satisfaction,
    follow_up_required,
    replacement_tracking,
    settled,
    created_at,
    resolved_at,
    closed_at,
    updated_at,
    reopen_count,
    reassignment_count,
    note_count,
);

/// Something with a binary form. `take` gives `None` when the bytes don't hold one, and never reads past them.
trait Field: Sized {
    fn put(&self, out: &mut Vec<u8>);
    fn take(input: &mut &[u8]) -> Option<Self>;
}

impl Field for u64 {
    fn put(&self, out: &mut Vec<u8>) {
        let mut rest = *self;
        while rest >= 0x80 {
            out.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        out.push(rest as u8);
    }

    fn take(input: &mut &[u8]) -> Option<Self> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = input.split_first()?;
            *input = rest;
            let bits = u64::from(byte & 0x7F);
            if (bits << shift) >> shift != bits {
                return None;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

impl Field for u32 {
    fn put(&self, out: &mut Vec<u8>) {
        u64::from(*self).put(out);
    }

    fn take(input: &mut &[u8]) -> Option<Self> {
        u64::take(input)?.try_into().ok()
    }
}

impl Field for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn take(input: &mut &[u8]) -> Option<Self> {
        match take_array(input)? {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }
}

impl Field for Text {
    fn put(&self, out: &mut Vec<u8>) {
        (self.len() as u64).put(out);
        out.extend_from_slice(self.as_bytes());
    }

    fn take(input: &mut &[u8]) -> Option<Self> {
        let len = u64::take(input)?.try_into().ok()?;
        let (text, rest) = input.split_at_checked(len)?;
        *input = rest;
        std::str::from_utf8(text).ok().map(Text::new)
    }
}

impl Field for Timestamp {
    fn put(&self, out: &mut Vec<u8>) {
        (((self.0 << 1) ^ (self.0 >> 63)) as u64).put(out);
    }

    fn take(input: &mut &[u8]) -> Option<Self> {
        let zigzag = u64::take(input)?;
        Some(Timestamp((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64)))
    }
}

impl Field for Money {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.amount.serialize());
        self.currency.put(out);
    }

    fn take(input: &mut &[u8]) -> Option<Self> {
        let amount = Decimal::deserialize(take_array(input)?);
        Some(Money { amount, currency: Field::take(input)? })
    }
}

impl Field for Status {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(match self {
            Status::Unknown => 0,
            Status::Created => 1,
            Status::Assigned => 2,
            Status::Processing => 3,
            Status::Resolved => 4,
            Status::Closed => 5,
            Status::Erased => 6,
        });
    }

    fn take(input: &mut &[u8]) -> Option<Self> {
        let [index] = take_array(input)?;
        Status::ALL.get(usize::from(index)).copied()
    }
}

impl Field for Urgency {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(match self {
            Urgency::Low => 0,
            Urgency::Medium => 1,
            Urgency::High => 2,
            Urgency::Critical => 3,
        });
    }

    fn take(input: &mut &[u8]) -> Option<Self> {
        match take_array(input)? {
            [0] => Some(Urgency::Low),
            [1] => Some(Urgency::Medium),
            [2] => Some(Urgency::High),
            [3] => Some(Urgency::Critical),
            _ => None,
        }
    }
}

impl<T: Field> Field for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }

    fn take(input: &mut &[u8]) -> Option<Self> {
        if bool::take(input)? { T::take(input).map(Some) } else { Some(None) }
    }
}

impl<T: Field> Field for Versioned<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.version.put(out);
        self.value.put(out);
    }

    fn take(input: &mut &[u8]) -> Option<Self> {
        Some(Versioned { version: Field::take(input)?, value: Field::take(input)? })
    }
}

impl Field for SeenVersions {
    /// Versions as steps from the one before: they ascend.
    fn put(&self, out: &mut Vec<u8>) {
        (self.len() as u64).put(out);
        let mut before = 0;
        for seen in self {
            seen.version.wrapping_sub(before).put(out);
            out.extend_from_slice(&seen.event_id_fingerprint.to_le_bytes());
            before = seen.version;
        }
    }

    fn take(input: &mut &[u8]) -> Option<Self> {
        let len = u64::take(input)?.try_into().ok()?;
        // An entry has nine bytes at least: a length beyond that is damage, and must not allocate.
        if len > input.len() / 9 {
            return None;
        }
        let mut all = SeenVersions::with_capacity(len);
        let mut version = 0_u64;
        for _ in 0..len {
            version = version.wrapping_add(u64::take(input)?);
            let event_id_fingerprint = u64::from_le_bytes(take_array(input)?);
            all.push(SeenVersion { version, event_id_fingerprint });
        }
        Some(all)
    }
}

fn take_array<const N: usize>(input: &mut &[u8]) -> Option<[u8; N]> {
    let (array, rest) = input.split_first_chunk::<N>()?;
    *input = rest;
    Some(*array)
}

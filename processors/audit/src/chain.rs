//! The hash chain: which bytes are hashed, and in which order. Pure.
//!
//! The exact bytes are written down in `docs/audit.md`, so that an auditor can recompute a chain without this code.
//! A change here is a new format: the domain strings carry its number.

use crate::record::{Content, Entry};
use sha2::{Digest as _, Sha256};

const CONTENT_DOMAIN: &[u8] = b"claimstream/audit/content/1\n";
const RECORD_DOMAIN: &[u8] = b"claimstream/audit/record/1\n";
const GENESIS_DOMAIN: &[u8] = b"claimstream/audit/genesis/1\n";
const LINK_DOMAIN: &[u8] = b"claimstream/audit/link/1\n";

/// Length of a salt.
pub const SALT_BYTES: usize = 16;

/// What keeps a content's hash from being guessed once the content is erased.
pub type Salt = [u8; SALT_BYTES];

/// A SHA-256 hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Not 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a SHA-256 hash in hexadecimal")]
pub struct NotADigest;

impl std::str::FromStr for Digest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(NotADigest);
        }
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| NotADigest)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| NotADigest)?;
        }
        Ok(Self(bytes))
    }
}

/// Hashes fields so that no two different lists of fields give the same bytes: an absent field is `00`; a present one is
/// `01`, then for bytes and text the length (8 bytes, big-endian) and the bytes, for a number 8 bytes, big-endian.
struct Encoder(Sha256);

impl Encoder {
    fn new(domain: &[u8]) -> Self {
        Self(Sha256::new_with_prefix(domain))
    }

    fn bytes(&mut self, field: Option<&[u8]>) -> &mut Self {
        match field {
            None => self.0.update([0]),
            Some(bytes) => {
                let mut head = [1; 9];
                head[1..].copy_from_slice(&(bytes.len() as u64).to_be_bytes());
                self.0.update(head);
                self.0.update(bytes);
            }
        }
        self
    }

    fn text(&mut self, field: Option<&str>) -> &mut Self {
        self.bytes(field.map(str::as_bytes))
    }

    fn number(&mut self, field: Option<i64>) -> &mut Self {
        match field {
            None => self.0.update([0]),
            Some(number) => {
                let mut field = [1; 9];
                field[1..].copy_from_slice(&number.to_be_bytes());
                self.0.update(field);
            }
        }
        self
    }

    fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

/// The salted hash of a record's erasable content.
pub fn content_hash(salt: &Salt, content: &Content) -> Digest {
    content_hash_of_raw(salt, content, content.key.as_deref(), content.value.as_deref())
}

/// The same, with key and value from elsewhere: a replayed record is compared with a stored one without reading the
/// stored value.
pub fn content_hash_of_raw(
    salt: &Salt,
    content: &Content,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
) -> Digest {
    let mut encoder = Encoder::new(CONTENT_DOMAIN);
    encoder.0.update(salt);
    encoder
        .bytes(key)
        .bytes(value)
        .number(content.schema_id.map(i64::from))
        .text(content.event_id.as_deref())
        .number(content.occurred_at_ms)
        .number(content.recorded_at_ms)
        .text(content.correlation_id.as_deref())
        .text(content.causation_id.as_deref())
        .text(content.user_id.as_deref())
        .text(content.source.as_deref())
        .text(content.traceparent.as_deref());
    encoder.finish()
}

/// The hash of a record in its place: what stays of it, and the hash of what may go.
pub fn record_hash(
    topic: &str,
    position: u64,
    processed_at_ms: i64,
    entry: &Entry,
    content_hash: &Digest,
) -> Digest {
    let mut encoder = Encoder::new(RECORD_DOMAIN);
    encoder
        .number(Some(position.cast_signed()))
        .text(Some(topic))
        .number(Some(i64::from(entry.partition)))
        .number(Some(entry.offset))
        .number(Some(entry.appended_at_ms))
        .number(Some(processed_at_ms))
        .text(Some(entry.kind.as_str()))
        .text(entry.tenant_id.as_deref())
        .text(entry.claim_id.as_deref())
        .text(entry.event_type.as_deref())
        .number(entry.version);
    encoder.0.update(content_hash.0);
    encoder.finish()
}

/// The hash before the first record of a partition's chain.
pub fn genesis(topic: &str, partition: i32) -> Digest {
    let mut encoder = Encoder::new(GENESIS_DOMAIN);
    encoder.text(Some(topic)).number(Some(i64::from(partition)));
    encoder.finish()
}

/// The chain's hash after one more record.
pub fn link(previous: &Digest, record_hash: &Digest) -> Digest {
    let mut hasher = Sha256::new_with_prefix(LINK_DOMAIN);
    hasher.update(previous.0);
    hasher.update(record_hash.0);
    Digest(hasher.finalize().into())
}

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;

//! The hash chain: which bytes are hashed, and in which order. Pure.
//!
//! The exact bytes are written down in `docs/audit.md`, so that an auditor can recompute a chain without this code.
//! A change here is a new format: the domain strings carry its number.

use crate::record::{Content, ContentRef, Entry, EntryRef};
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

/// Puts fields one after the other so that no two different lists of fields give the same bytes: an absent field is
/// `00`; a present one is `01`, then for bytes and text the length (8 bytes, big-endian) and the bytes, for a number 8
/// bytes, big-endian. Its memory is used again for the next list: many records are hashed with one.
#[derive(Debug, Default)]
pub struct Encoder(Vec<u8>);

impl Encoder {
    fn begin(&mut self, domain: &[u8]) -> &mut Self {
        self.0.clear();
        self.raw(domain)
    }

    fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn bytes(&mut self, field: Option<&[u8]>) -> &mut Self {
        match field {
            None => self.raw(&[0]),
            Some(bytes) => self.number(Some((bytes.len() as u64).cast_signed())).raw(bytes),
        }
    }

    fn text(&mut self, field: Option<&str>) -> &mut Self {
        self.bytes(field.map(str::as_bytes))
    }

    fn number(&mut self, field: Option<i64>) -> &mut Self {
        match field {
            None => self.raw(&[0]),
            Some(number) => {
                let mut field = [1; 9];
                field[1..].copy_from_slice(&number.to_be_bytes());
                self.raw(&field)
            }
        }
    }

    fn hash(&self) -> Digest {
        Digest(Sha256::digest(&self.0).into())
    }

    /// The salted hash of a record's erasable content.
    pub fn content_hash(&mut self, salt: &Salt, content: &ContentRef<'_>) -> Digest {
        self.begin(CONTENT_DOMAIN)
            .raw(salt)
            .bytes(content.key)
            .bytes(content.value)
            .number(content.schema_id)
            .text(content.event_id)
            .number(content.occurred_at_ms)
            .number(content.recorded_at_ms)
            .text(content.correlation_id)
            .text(content.causation_id)
            .text(content.user_id)
            .text(content.source)
            .text(content.traceparent)
            .hash()
    }

    /// The hash of a record in its place: what stays of it, and the hash of what may go.
    pub fn record_hash(
        &mut self,
        topic: &str,
        position: u64,
        processed_at_ms: i64,
        entry: &EntryRef<'_>,
        content_hash: &Digest,
    ) -> Digest {
        self.begin(RECORD_DOMAIN)
            .number(Some(position.cast_signed()))
            .text(Some(topic))
            .number(Some(i64::from(entry.partition)))
            .number(Some(entry.offset))
            .number(Some(entry.appended_at_ms))
            .number(Some(processed_at_ms))
            .text(Some(entry.kind.as_str()))
            .text(entry.tenant_id)
            .text(entry.claim_id)
            .text(entry.event_type)
            .number(entry.version)
            .raw(&content_hash.0)
            .hash()
    }

    /// The chain's hash after one more record.
    pub fn link(&mut self, previous: &Digest, record_hash: &Digest) -> Digest {
        self.begin(LINK_DOMAIN).raw(&previous.0).raw(&record_hash.0).hash()
    }
}

/// The salted hash of a record's erasable content.
pub fn content_hash(salt: &Salt, content: &Content) -> Digest {
    Encoder::default().content_hash(salt, &content.as_ref())
}

/// The same, with key and value from elsewhere: a replayed record is compared with a stored one without reading the
/// stored value.
pub fn content_hash_of_raw(
    salt: &Salt,
    content: &Content,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
) -> Digest {
    Encoder::default().content_hash(salt, &ContentRef { key, value, ..content.as_ref() })
}

/// The hash of a record in its place: what stays of it, and the hash of what may go.
pub fn record_hash(
    topic: &str,
    position: u64,
    processed_at_ms: i64,
    entry: &Entry,
    content_hash: &Digest,
) -> Digest {
    Encoder::default().record_hash(topic, position, processed_at_ms, &entry.as_ref(), content_hash)
}

/// The hash before the first record of a partition's chain.
pub fn genesis(topic: &str, partition: i32) -> Digest {
    Encoder::default().begin(GENESIS_DOMAIN).text(Some(topic)).number(Some(i64::from(partition))).hash()
}

/// The chain's hash after one more record.
pub fn link(previous: &Digest, record_hash: &Digest) -> Digest {
    Encoder::default().link(previous, record_hash)
}

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;

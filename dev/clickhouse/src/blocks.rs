//! ClickHouse's compressed blocks (`decompress=1`): checksum, method, two sizes, data.

use std::borrow::Cow;

/// 16 bytes of checksum, then method (1), size of the rest with its header (4), size once unpacked (4).
const CHECKSUM_BYTES: usize = 16;
const HEADER_BYTES: usize = 9;
const METHOD_NONE: u8 = 0x02;
const METHOD_LZ4: u8 = 0x82;
/// No client here sends larger blocks; a larger one is a damaged size.
const MAX_BLOCK_BYTES: usize = 64 << 20;

/// Takes bytes as they arrive and gives back whole unpacked blocks.
#[derive(Debug, Default)]
pub struct BlockReader {
    pending: Vec<u8>,
}

impl BlockReader {
    /// Adds what arrived, and calls `with` for every block that is now whole.
    pub fn push<E: From<String>>(
        &mut self,
        data: &[u8],
        mut with: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.pending.extend_from_slice(data);
        let mut start = 0;
        while let Some(block) = next_block(&self.pending[start..])? {
            with(&block.content)?;
            start += block.packed_bytes;
        }
        self.pending.drain(..start);
        Ok(())
    }

    /// Whether nothing is left over.
    pub fn is_complete(&self) -> bool {
        self.pending.is_empty()
    }
}

/// A whole block.
struct Block<'a> {
    /// What it takes on the wire, checksum and header included.
    packed_bytes: usize,
    content: Cow<'a, [u8]>,
}

/// The first block of `data`; `None` when it is not whole yet.
fn next_block(data: &[u8]) -> Result<Option<Block<'_>>, String> {
    let Some(header) = data.get(CHECKSUM_BYTES..CHECKSUM_BYTES + HEADER_BYTES) else {
        return Ok(None);
    };
    let packed = u32_at(header, 1);
    let unpacked = u32_at(header, 5);
    if !(HEADER_BYTES..=MAX_BLOCK_BYTES).contains(&packed) || unpacked > MAX_BLOCK_BYTES {
        return Err(format!(
            "Code: 271. DB::Exception: compressed block with impossible sizes {packed} and {unpacked}. (CANNOT_DECOMPRESS)"
        ));
    }
    let length = CHECKSUM_BYTES + packed;
    let Some(body) = data.get(CHECKSUM_BYTES..length) else {
        return Ok(None);
    };
    if data[..CHECKSUM_BYTES] != checksum(body) {
        return Err(
            "Code: 40. DB::Exception: checksum of a compressed block does not match. (CHECKSUM_DOESNT_MATCH)"
                .to_owned(),
        );
    }
    let content = &body[HEADER_BYTES..];
    let block = match header[0] {
        METHOD_NONE => Cow::Borrowed(content),
        METHOD_LZ4 => Cow::Owned(lz4_flex::block::decompress(content, unpacked).map_err(|error| {
            format!("Code: 271. DB::Exception: damaged LZ4 block: {error}. (CANNOT_DECOMPRESS)")
        })?),
        other => {
            return Err(format!(
                "Code: 89. DB::Exception: compression method {other:#x} is not supported by the development server, use LZ4. (UNKNOWN_COMPRESSION_METHOD)"
            ));
        }
    };
    if block.len() != unpacked {
        return Err(
            "Code: 271. DB::Exception: a block unpacks to another size than it says. (CANNOT_DECOMPRESS)"
                .to_owned(),
        );
    }
    Ok(Some(Block { packed_bytes: length, content: block }))
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    let mut number = [0_u8; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    usize::try_from(u32::from_le_bytes(number)).unwrap_or(usize::MAX)
}

/// CityHash128 (of the version ClickHouse froze), high half first.
fn checksum(body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = cityhash_rs::cityhash_102_128(body);
    let mut bytes = [0_u8; CHECKSUM_BYTES];
    bytes[..8].copy_from_slice(&hash.to_le_bytes()[8..]);
    bytes[8..].copy_from_slice(&hash.to_le_bytes()[..8]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(content: &[u8], method: u8) -> Vec<u8> {
        let packed = if method == METHOD_LZ4 { lz4_flex::block::compress(content) } else { content.to_vec() };
        let mut body = vec![method];
        body.extend_from_slice(&((packed.len() + HEADER_BYTES) as u32).to_le_bytes());
        body.extend_from_slice(&(content.len() as u32).to_le_bytes());
        body.extend_from_slice(&packed);
        let mut block = checksum(&body).to_vec();
        block.extend_from_slice(&body);
        block
    }

    #[test]
    fn blocks_cut_anywhere_are_put_together() {
        let mut bytes = pack(b"hello hello hello hello", METHOD_LZ4);
        bytes.extend(pack(b" and plain", METHOD_NONE));
        for size in 1..bytes.len() {
            let mut reader = BlockReader::default();
            let mut out = Vec::new();
            for part in bytes.chunks(size) {
                reader
                    .push::<String>(part, |block| {
                        out.extend_from_slice(block);
                        Ok(())
                    })
                    .unwrap();
            }
            assert_eq!(out, b"hello hello hello hello and plain");
            assert!(reader.is_complete());
        }
    }

    #[test]
    fn damage_is_refused() {
        let good = pack(b"hello hello hello hello", METHOD_LZ4);
        let refuse = |bytes: &[u8]| BlockReader::default().push::<String>(bytes, |_| Ok(())).unwrap_err();
        let mut flipped = good.clone();
        *flipped.last_mut().unwrap() ^= 1;
        assert!(refuse(&flipped).contains("CHECKSUM"));
        let mut huge = good.clone();
        huge[17..21].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(refuse(&huge).contains("impossible sizes"));
        assert!(refuse(&pack(b"x", 0x90)).contains("not supported"));
        let mut reader = BlockReader::default();
        reader.push::<String>(&good[..good.len() - 1], |_| Ok(())).unwrap();
        assert!(!reader.is_complete());
    }
}

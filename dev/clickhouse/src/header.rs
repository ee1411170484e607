//! The names and types at the head of `RowBinaryWithNamesAndTypes`: the engine repeats them in every piece of a
//! streamed result, a client expects them once.

/// Drops the repetitions.
#[derive(Debug, Default)]
pub struct HeaderOnce {
    header: Option<Vec<u8>>,
}

impl HeaderOnce {
    /// What to send of this piece.
    pub fn strip<'a>(&mut self, piece: &'a [u8]) -> &'a [u8] {
        match &self.header {
            None => {
                self.header = Some(piece[..header_length(piece).unwrap_or(0)].to_vec());
                piece
            }
            Some(header) => piece.strip_prefix(header.as_slice()).unwrap_or(piece),
        }
    }
}

/// The header's length: a count of columns, then so many names and so many types, each with its length before it.
fn header_length(piece: &[u8]) -> Option<usize> {
    let (columns, mut at) = varint(piece, 0)?;
    for _ in 0..columns.checked_mul(2)? {
        let (length, start) = varint(piece, at)?;
        at = start.checked_add(length)?;
        if at > piece.len() {
            return None;
        }
    }
    Some(at)
}

/// An LEB128 number at `at`, and the position after it.
fn varint(bytes: &[u8], mut at: usize) -> Option<(usize, usize)> {
    let mut number = 0_usize;
    for shift in (0..usize::BITS).step_by(7) {
        let byte = *bytes.get(at)?;
        at += 1;
        number |= usize::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some((number, at));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_kept_once() {
        let header = b"\x02\x01a\x02bb\x05UInt8\x06String";
        let mut once = HeaderOnce::default();
        let first = [header.as_slice(), b"\x01\x01x"].concat();
        assert_eq!(once.strip(&first), first);
        let second = [header.as_slice(), b"\x02\x01y"].concat();
        assert_eq!(once.strip(&second), b"\x02\x01y");
        assert_eq!(once.strip(b"\x03\x01z"), b"\x03\x01z");
    }

    #[test]
    fn a_cut_off_header_is_not_taken_for_one() {
        assert_eq!(header_length(b"\x02\x01a"), None);
        assert_eq!(header_length(b""), None);
        assert_eq!(header_length(b"\x00rest"), Some(1));
        assert_eq!(header_length(&[0xff; 16]), None);
    }
}

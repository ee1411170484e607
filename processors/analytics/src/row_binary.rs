//! ClickHouse's format RowBinary: the values of a row one after the other, without names or types. What the `clickhouse`
//! crate would write of the same row, which it keeps to itself; a test holds one to the other.

use uuid::Uuid;

/// A value of a column.
pub(crate) trait RowBinary {
    /// Appends the value.
    fn put(&self, out: &mut Vec<u8>);
}

macro_rules! little_endian {
    ($($number:ty),*) => {$(
        impl RowBinary for $number {
            #[inline]
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
        }
    )*};
}

// `DateTime64(3)` is an `Int64` of milliseconds, `Decimal(18, 4)` one of units of 10⁻⁴.
little_endian!(u64, i64, i32);

/// `Bool`.
impl RowBinary for bool {
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
}

/// `UUID`: the high half first, each of them little-endian.
impl RowBinary for Uuid {
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        let (high, low) = self.as_u64_pair();
        high.put(out);
        low.put(out);
    }
}

/// `String`: its length in bytes, as LEB128, and the bytes. `LowCardinality(String)` is no other.
impl RowBinary for &str {
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        let mut length = self.len();
        while length >= 0x80 {
            out.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        out.push(length as u8);
        out.extend_from_slice(self.as_bytes());
    }
}

/// `Nullable`: 1 for NULL; or 0, and the value.
impl<T: RowBinary> RowBinary for Option<T> {
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.is_none()));
        if let Some(value) = self {
            value.put(out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(value: &impl RowBinary) -> Vec<u8> {
        let mut out = vec![];
        value.put(&mut out);
        out
    }

    /// After <https://clickhouse.com/docs/interfaces/formats/RowBinary>.
    #[test]
    fn values_are_as_clickhouse_documents_them() {
        assert_eq!(encoded(&0x0102_0304_0506_0708_u64), [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(encoded(&-2_i64), [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(encoded(&258_i32), [2, 1, 0, 0]);
        assert_eq!((encoded(&true), encoded(&false)), (vec![1], vec![0]));
        assert_eq!(encoded(&"h\u{e9}"), [3, b'h', 0xc3, 0xa9]);
        assert_eq!(encoded(&""), [0]);
        assert_eq!((encoded(&None::<&str>), encoded(&Some("a"))), (vec![1], vec![0, 1, b'a']));
        let id = Uuid::parse_str("61f0c404-5cb3-11e7-907b-a6006ad3dba0").expect("an id");
        assert_eq!(
            encoded(&id),
            [0xe7, 0x11, 0xb3, 0x5c, 0x04, 0xc4, 0xf0, 0x61, 0xa0, 0xdb, 0xd3, 0x6a, 0x00, 0xa6, 0x7b, 0x90]
        );
    }

    #[test]
    fn lengths_are_leb128() {
        for (length, prefix) in
            [(127, &[0x7f][..]), (128, &[0x80, 0x01]), (16_383, &[0xff, 0x7f]), (16_384, &[0x80, 0x80, 0x01])]
        {
            let text = "x".repeat(length);
            assert_eq!(encoded(&text.as_str()), [prefix, text.as_bytes()].concat(), "{length}");
        }
    }
}

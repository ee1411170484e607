//! JSON byte by byte: only what a whole, well-formed line may hold; `None` for anything else.

use super::Value;

/// Digits of a number that is read here: any number of so many fits an `i64`.
const MAX_DIGITS: usize = 18;

/// Where a text stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
    /// In the unescaped texts, not in the line.
    pub(super) unescaped: bool,
}

/// A whole number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Number {
    pub(super) negative: bool,
    pub(super) digits: u64,
}

pub(super) struct Cursor<'l, 'u> {
    line: &'l str,
    bytes: &'l [u8],
    at: usize,
    unescaped: &'u mut String,
}

impl<'l, 'u> Cursor<'l, 'u> {
    pub(super) fn new(line: &'l str, unescaped: &'u mut String) -> Self {
        Self { line, bytes: line.as_bytes(), at: 0, unescaped }
    }

    /// The next byte that is no white space, which stays.
    fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = *self.bytes.get(self.at)?;
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// Nothing but white space follows.
    pub(super) fn end(&mut self) -> Option<()> {
        self.peek().is_none().then_some(())
    }

    pub(super) fn is_object(&mut self) -> bool {
        self.peek() == Some(b'{')
    }

    /// An object; `member` reads the value behind each key. Keys with escapes are left to others.
    pub(super) fn object(&mut self, mut member: impl FnMut(&mut Self, &'l [u8]) -> Option<()>) -> Option<()> {
        self.expect(b'{')?;
        if self.peek()? == b'}' {
            self.at += 1;
            return Some(());
        }
        loop {
            let key = self.text()?;
            if key.unescaped {
                return None;
            }
            self.expect(b':')?;
            let bytes = self.bytes;
            member(self, &bytes[key.start..key.end])?;
            match self.peek()? {
                b',' => self.at += 1,
                b'}' => {
                    self.at += 1;
                    return Some(());
                }
                _ => return None,
            }
        }
    }

    /// A value that is neither an object nor an array.
    pub(super) fn scalar(&mut self) -> Option<Value> {
        match self.peek()? {
            b'"' => self.text().map(Value::Text),
            b'n' => self.word(b"null", Value::Null),
            b't' => self.word(b"true", Value::Bool(true)),
            b'f' => self.word(b"false", Value::Bool(false)),
            _ => self.number().map(Value::Number),
        }
    }

    /// A longer word that begins so fails where the next comma is expected.
    fn word(&mut self, word: &[u8], value: Value) -> Option<Value> {
        self.bytes[self.at..].starts_with(word).then(|| {
            self.at += word.len();
            value
        })
    }

    /// A whole number; a fraction or an exponent fails where the next comma is expected.
    fn number(&mut self) -> Option<Number> {
        let negative = self.bytes[self.at] == b'-';
        let start = self.at + usize::from(negative);
        let rest = &self.bytes[start..];
        let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let number = rest[..length]
            .iter()
            .fold(0_u64, |number, digit| number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')));
        // Zeros in front are no JSON, and -0 is no whole number.
        let plain = (1..=MAX_DIGITS).contains(&length) && (rest[0] != b'0' || length == 1 && !negative);
        self.at = start + length;
        plain.then_some(Number { negative, digits: number })
    }

    /// A text in quotes.
    fn text(&mut self) -> Option<Span> {
        self.expect(b'"')?;
        let start = self.at;
        let end = start + plain_length(&self.bytes[start..]);
        match self.bytes.get(end)? {
            b'"' => {
                self.at = end + 1;
                Some(Span { start, end, unescaped: false })
            }
            b'\\' => self.escaped_text(start, end),
            _ => None,
        }
    }

    /// A text that begins at `start` and has its first escape at `escape`.
    fn escaped_text(&mut self, start: usize, escape: usize) -> Option<Span> {
        let mut end = escape;
        while self.bytes.get(end)? == &b'\\' {
            // What is escaped may itself be a quote or a backslash.
            end += 2;
            end += plain_length(self.bytes.get(end..)?);
        }
        (self.bytes[end] == b'"').then_some(())?;
        let text: String = serde_json::from_str(self.line.get(start - 1..=end)?).ok()?;
        self.at = end + 1;
        let start = self.unescaped.len();
        self.unescaped.push_str(&text);
        Some(Span { start, end: self.unescaped.len(), unescaped: true })
    }
}

/// How many bytes come before the first quote, backslash or control character.
fn plain_length(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGHS: u64 = ONES << 7;
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    let mut words = bytes.chunks_exact(8);
    let mut length = 0;
    for word in words.by_ref() {
        let word =
            u64::from_le_bytes([word[0], word[1], word[2], word[3], word[4], word[5], word[6], word[7]]);
        let quote = zeros(word ^ (ONES * b'"' as u64));
        let backslash = zeros(word ^ (ONES * b'\\' as u64));
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
        // Bits above the first found may be wrong; the first one is right.
        let found = quote | backslash | control;
        if found != 0 {
            return length + found.trailing_zeros() as usize / 8;
        }
        length += 8;
    }
    let special = |byte: &u8| matches!(byte, b'"' | b'\\' | ..0x20);
    length + words.remainder().iter().position(special).unwrap_or(words.remainder().len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_first_special_byte_is_found(
            bytes in proptest::collection::vec(prop_oneof![8 => 0x20..=0xff_u8, 1 => any::<u8>()], 0..40),
        ) {
            let first = bytes.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f));
            prop_assert_eq!(plain_length(&bytes), first.unwrap_or(bytes.len()));
        }
    }
}

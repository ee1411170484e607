//! Bytes to lines, with a bound on the length of a line. Fed by files and by HTTP bodies alike.

/// Of a line that is too long, this much is kept for the dead letter.
const KEPT_OF_TOO_LONG_BYTES: usize = 4 * 1024;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// One line without its line feed.
#[derive(Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// From 1.
    pub number: u64,
    /// The line's bytes, a carriage return at its end included; only the beginning if it was too long.
    pub bytes: &'a [u8],
    /// Its whole length in bytes.
    pub length: u64,
    /// Whether it is longer than the bound.
    pub too_long: bool,
    /// Whether a line feed ended it; only the last line may lack it.
    pub terminated: bool,
}

impl<'a> Line<'a> {
    /// The line without the carriage return that may end it.
    pub fn trimmed(&self) -> &'a [u8] {
        self.bytes.strip_suffix(b"\r").unwrap_or(self.bytes)
    }
}

/// Cuts what it is fed into lines. Holds at most one line and one piece fed.
#[derive(Debug)]
pub struct LineSplitter {
    max_line_bytes: usize,
    buffer: Vec<u8>,
    start: usize,
    /// Everything before it is known to hold no line feed.
    scanned: usize,
    lines: u64,
    /// Bytes thrown away of a too long line, of which `buffer[start..]` holds the beginning.
    skipped: u64,
    finished: bool,
    begun: bool,
}

impl LineSplitter {
    /// A splitter that refuses lines longer than `max_line_bytes`.
    pub fn new(max_line_bytes: usize) -> Self {
        Self {
            max_line_bytes,
            buffer: Vec::new(),
            start: 0,
            scanned: 0,
            lines: 0,
            skipped: 0,
            finished: false,
            begun: false,
        }
    }

    /// Takes the next bytes of the input. Take all lines out before feeding more.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.scanned -= self.start;
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The input has ended: what remains is the last line.
    pub fn finish(&mut self) {
        self.finished = true;
    }

    /// The next whole line; `None`: feed more (or the input has ended).
    pub fn next_line(&mut self) -> Option<Line<'_>> {
        let found = self.find()?;
        Some(self.line(found))
    }

    /// Like [`next_line`](Self::next_line), without borrowing.
    pub(crate) fn find(&mut self) -> Option<Found> {
        if !self.begun {
            if self.buffer.len() < BYTE_ORDER_MARK.len() && !self.finished {
                return None;
            }
            self.begun = true;
            if self.buffer.starts_with(BYTE_ORDER_MARK) {
                self.start = BYTE_ORDER_MARK.len();
                self.scanned = self.start;
            }
        }
        let end = self.buffer.len();
        if let Some(at) = memchr::memchr(b'\n', &self.buffer[self.scanned..]) {
            return Some(self.take(self.scanned + at, true));
        }
        if self.finished {
            let some = self.start < end || self.skipped > 0;
            return some.then(|| self.take(end, false));
        }
        self.scanned = end;
        let kept = self.start + KEPT_OF_TOO_LONG_BYTES.min(self.max_line_bytes);
        if self.skipped > 0 || end - self.start > self.max_line_bytes {
            self.skipped += (end - kept.min(end)) as u64;
            self.buffer.truncate(kept);
            self.scanned = self.buffer.len();
        }
        None
    }

    /// The line that was found; until more is fed.
    pub(crate) fn line(&self, found: Found) -> Line<'_> {
        let Found { number, from, to, length, too_long, terminated } = found;
        Line { number, bytes: &self.buffer[from..to], length, too_long, terminated }
    }

    /// Takes the line that ends at `end`, where the buffer ends or a line feed stands.
    fn take(&mut self, end: usize, terminated: bool) -> Found {
        let from = self.start;
        let length = (end - from) as u64 + self.skipped;
        let too_long = length > self.max_line_bytes as u64;
        let kept = if too_long { KEPT_OF_TOO_LONG_BYTES.min(self.max_line_bytes) } else { end - from };
        self.start = end + usize::from(terminated);
        self.scanned = self.start;
        self.skipped = 0;
        self.lines += 1;
        Found { number: self.lines, from, to: from + kept, length, too_long, terminated }
    }
}

/// Where a line stands in the buffer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    number: u64,
    from: usize,
    to: usize,
    length: u64,
    too_long: bool,
    terminated: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(pieces: &[&[u8]], max: usize) -> Vec<(u64, Vec<u8>, u64, bool, bool)> {
        let mut splitter = LineSplitter::new(max);
        let mut lines = Vec::new();
        let mut take = |splitter: &mut LineSplitter| {
            while let Some(line) = splitter.next_line() {
                lines.push((line.number, line.bytes.to_vec(), line.length, line.too_long, line.terminated));
            }
        };
        for piece in pieces {
            splitter.feed(piece);
            take(&mut splitter);
        }
        splitter.finish();
        take(&mut splitter);
        lines
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_line() {
        let lines = split(&[b"\xef", b"\xbb\xbfone\r\ntw", b"o"], 100);
        assert_eq!(lines[0], (1, b"one\r".to_vec(), 4, false, true));
        assert_eq!(lines[1], (2, b"two".to_vec(), 3, false, false));
        assert_eq!(lines.len(), 2);
    }

    #[test]
    fn a_line_of_ten_megabytes_costs_little_memory_and_loses_no_other() {
        let mut splitter = LineSplitter::new(1_000);
        let piece = vec![b'x'; 64 * 1024];
        splitter.feed(b"before\n");
        assert_eq!(splitter.next_line().unwrap().bytes, b"before");
        for _ in 0..160 {
            splitter.feed(&piece);
            assert_eq!(splitter.next_line(), None);
            assert!(splitter.buffer.len() <= piece.len() + KEPT_OF_TOO_LONG_BYTES);
        }
        splitter.feed(b"yy\nafter\n");
        let long = splitter.next_line().unwrap();
        assert!(long.too_long && long.terminated);
        assert_eq!((long.number, long.length, long.bytes.len()), (2, 160 * 64 * 1024 + 2, 1000));
        assert_eq!(splitter.next_line().unwrap().bytes, b"after");
    }

    proptest! {
        /// However the input is cut into pieces, the lines are those of the whole.
        #[test]
        fn pieces_make_no_difference(
            input in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), any::<u8>()], 0..200),
            cuts in proptest::collection::vec(0..200_usize, 0..8),
            max in 1..40_usize,
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(input.len())).collect();
            cuts.sort_unstable();
            let mut pieces: Vec<&[u8]> = Vec::new();
            let mut from = 0;
            for cut in cuts {
                pieces.push(&input[from..cut]);
                from = cut;
            }
            pieces.push(&input[from..]);
            prop_assert_eq!(split(&pieces, max), split(&[&input], max));
        }

        /// Short lines come out byte for byte, numbered from 1.
        #[test]
        fn nothing_is_lost(lines in proptest::collection::vec("[a-z,\"é]{0,30}", 1..20)) {
            let text = lines.join("\n") + "\n";
            let found = split(&[text.as_bytes()], 1_000);
            prop_assert_eq!(found.len(), lines.len());
            for (i, line) in lines.iter().enumerate() {
                prop_assert_eq!(&found[i].1, line.as_bytes());
                prop_assert_eq!(found[i].0, i as u64 + 1);
            }
        }
    }
}

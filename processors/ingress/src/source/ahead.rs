//! Reading ahead: the next batches are made on a thread of their own while one is handed over.

use super::{Batch, RowSource, SourceError, Step};
use std::{
    io,
    sync::mpsc::{Receiver, Sender, channel},
    thread::{self, JoinHandle},
};

/// Batches made and not yet taken, at most; each is bounded by the step.
const MAX_BATCHES_AHEAD: usize = 3;

/// A source whose rows are read on a thread of its own, in the same order and the same steps. Ends with that thread's
/// panic if it panics.
#[derive(Debug)]
pub struct ReadAhead {
    /// Empty batches for the thread to fill; never more than `MAX_BATCHES_AHEAD` are under way.
    empty: Sender<(Batch, Step)>,
    filled: Receiver<(Batch, Result<bool, SourceError>)>,
    thread: Option<JoinHandle<()>>,
    begun: bool,
}

impl ReadAhead {
    /// Starts the thread. It ends with the input, with a refused row where the step says so, or some time after
    /// this is dropped: as soon as its input lets go of it.
    pub fn new(mut source: Box<dyn RowSource>) -> io::Result<Self> {
        let (empty, requests) = channel::<(Batch, Step)>();
        let (answers, filled) = channel();
        let work = move || {
            for (mut batch, step) in requests {
                let goes_on = source.fill(&mut batch, step);
                let last = !matches!(goes_on, Ok(true)) || (step.stop_at_reject && !batch.rejects.is_empty());
                if answers.send((batch, goes_on)).is_err() || last {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("read-ahead".to_owned()).spawn(work)?;
        Ok(Self { empty, filled, thread: Some(thread), begun: false })
    }

    /// A thread that has ended takes no more, which its last answer tells.
    fn request(&self, batch: Batch, step: Step) {
        let _ = self.empty.send((batch, step));
    }
}

impl RowSource for ReadAhead {
    fn fill(&mut self, batch: &mut Batch, step: Step) -> Result<bool, SourceError> {
        if !self.begun {
            self.begun = true;
            for _ in 0..MAX_BATCHES_AHEAD {
                self.request(batch.another(), step);
            }
        }
        let Ok((filled, goes_on)) = self.filled.recv() else {
            if let Some(Err(panicked)) = self.thread.take().map(JoinHandle::join) {
                std::panic::resume_unwind(panicked);
            }
            return Ok(false);
        };
        let taken = std::mem::replace(batch, filled);
        self.request(taken, step);
        goes_on
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rejects::RowError;

    /// So many rows, some of them refused; then an error, or a panic, or the end.
    struct Rows {
        next: u64,
        end: u64,
        then: fn() -> Result<bool, SourceError>,
    }

    impl RowSource for Rows {
        fn fill(&mut self, batch: &mut Batch, step: Step) -> Result<bool, SourceError> {
            while !step.is_over(batch) {
                if self.next == self.end {
                    return (self.then)();
                }
                self.next += 1;
                batch.count_row(1);
                if self.next.is_multiple_of(10) {
                    batch.rejects.push(RowError::new("odd", "").at(self.next, b""));
                }
            }
            Ok(true)
        }
    }

    const STEP: Step = Step { max_rows: 7, max_row_bytes: 1_000, stop_at_reject: false };

    /// Rows and lines of refused rows, call by call, and how it ended.
    type Found = (Vec<(u64, Vec<u64>)>, Result<bool, String>);

    fn read(source: &mut dyn RowSource, step: Step) -> Found {
        let (mut batch, mut found) = (Batch::default(), Vec::new());
        loop {
            batch.clear();
            let goes_on = source.fill(&mut batch, step).map_err(|error| error.to_string());
            found.push((batch.rows_read, batch.rejects.iter().map(|reject| reject.line).collect()));
            if goes_on != Ok(true) || (step.stop_at_reject && !batch.rejects.is_empty()) {
                return (found, goes_on);
            }
        }
    }

    #[test]
    fn it_reads_the_same_in_the_same_steps() {
        let broken = || Err(SourceError::Unfit { name: "t".into(), detail: "broken".into() });
        let ends: [fn() -> Result<bool, SourceError>; 2] = [|| Ok(false), broken];
        for then in ends {
            for end in [0, 1, 7, 50, 1_000] {
                for stop_at_reject in [false, true] {
                    let step = Step { stop_at_reject, ..STEP };
                    let rows = || Rows { next: 0, end, then };
                    let mut ahead = ReadAhead::new(Box::new(rows())).unwrap();
                    assert_eq!(read(&mut ahead, step), read(&mut rows(), step));
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "the reader broke")]
    fn a_panic_comes_through() {
        let rows = Rows { next: 0, end: 20, then: || panic!("the reader broke") };
        let _ = read(&mut ReadAhead::new(Box::new(rows)).unwrap(), STEP);
    }
}

//! How everything that happens beside the consumer loop reaches it.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Many senders, one loop. Bounded by what the loop itself starts: every sender owes at most a few letters for each
/// batch, commit, lookup or schema that the loop has asked for.
#[derive(Debug)]
pub(crate) struct Mailbox<T> {
    state: Mutex<State<T>>,
    arrived: Condvar,
}

#[derive(Debug)]
struct State<T> {
    letters: VecDeque<T>,
    nudged: bool,
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Self { state: Mutex::new(State { letters: VecDeque::new(), nudged: false }), arrived: Condvar::new() }
    }
}

impl<T> Mailbox<T> {
    /// Leaves a letter and wakes the loop.
    pub fn post(&self, letter: T) {
        self.lock().letters.push_back(letter);
        self.arrived.notify_one();
    }

    /// Wakes the loop without a letter.
    pub fn nudge(&self) {
        self.lock().nudged = true;
        self.arrived.notify_one();
    }

    /// The next letter, if there is one.
    pub fn take(&self) -> Option<T> {
        self.lock().letters.pop_front()
    }

    /// Waits for a letter or a nudge, no longer than `timeout`. A nudge since the last wait counts.
    pub fn wait(&self, timeout: Duration) {
        let guard = self.lock();
        let waited = self
            .arrived
            .wait_timeout_while(guard, timeout, |state| state.letters.is_empty() && !state.nudged)
            .unwrap_or_else(PoisonError::into_inner);
        let (mut state, _) = waited;
        state.nudged = false;
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

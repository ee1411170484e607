//! Threads that hash and encode segments: as many as there are processors, and always the same ones.
//!
//! The allocator keeps what a thread has freed for that thread. The async runtime has a thread for everything that blocks
//! at the same moment, and takes now this one, now that one: each would come to hold what a segment takes to be encoded.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
};
use tokio::sync::{Semaphore, oneshot};

type Job = Box<dyn FnOnce() + Send>;

/// The threads. They end when this is dropped and what they have begun is done.
#[derive(Debug)]
pub(crate) struct Encoders {
    /// As many jobs as there are threads; more wait here, before what they need is in memory.
    turns: Arc<Semaphore>,
    jobs: Sender<Job>,
}

/// A turn at one of the threads.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    jobs: &'a Sender<Job>,
    permit: tokio::sync::OwnedSemaphorePermit,
}

/// There is no thread, or the work panicked.
#[derive(Debug, thiserror::Error)]
#[error("a segment was not encoded: that panicked, or there is no thread for it (see the log)")]
pub(crate) struct EncoderGone;

impl Encoders {
    /// Starts the threads.
    pub fn start() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let (jobs, receiver) = channel::<Job>();
        let receiver = Arc::new(Mutex::new(receiver));
        for number in 0..processors {
            let receiver = Arc::clone(&receiver);
            let thread = std::thread::Builder::new().name(format!("audit-encode-{number}"));
            if let Err(error) = thread.spawn(move || work(&receiver)) {
                tracing::error!(%error, "no thread to encode segments on");
            }
        }
        Self { turns: Arc::new(Semaphore::new(processors)), jobs }
    }

    /// Waits for a turn.
    pub async fn turn(&self) -> Result<Turn<'_>, EncoderGone> {
        let permit = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| EncoderGone)?;
        Ok(Turn { jobs: &self.jobs, permit })
    }
}

impl Turn<'_> {
    /// Does the work. The turn is over when that is done, also if nobody waits for it any more.
    pub async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, EncoderGone> {
        let (reply, result) = oneshot::channel();
        let permit = self.permit;
        let job = move || {
            let done = work();
            drop(permit);
            // Whoever asked may have been told to stop.
            let _ = reply.send(done);
        };
        self.jobs.send(Box::new(job)).map_err(|_| EncoderGone)?;
        result.await.map_err(|_| EncoderGone)
    }
}

fn work(jobs: &Mutex<Receiver<Job>>) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // The one who waits learns of it; the thread has others to serve.
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            tracing::error!("encoding a segment panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeSet, thread};

    #[tokio::test]
    async fn the_same_few_threads_do_all_the_work() {
        let encoders = Encoders::start();
        let mut names = BTreeSet::new();
        for _ in 0..100 {
            let turn = encoders.turn().await.unwrap();
            names.insert(turn.run(|| thread::current().name().map(str::to_owned)).await.unwrap().unwrap());
        }
        let processors = thread::available_parallelism().unwrap().get();
        assert!((1..=processors).contains(&names.len()), "{names:?}");
        assert!(names.iter().all(|name| name.starts_with("audit-encode-")));
    }

    #[tokio::test]
    async fn after_a_panic_others_are_served() {
        let encoders = Encoders::start();
        for _ in 0..10 {
            let turn = encoders.turn().await.unwrap();
            assert!(turn.run(|| panic!("on purpose")).await.is_err());
        }
        assert_eq!(encoders.turn().await.unwrap().run(|| 7).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn no_more_have_a_turn_than_there_are_threads() {
        let encoders = Encoders::start();
        let mut turns = Vec::new();
        for _ in 0..thread::available_parallelism().unwrap().get() {
            turns.push(encoders.turn().await.unwrap());
        }
        let soon = std::time::Duration::from_millis(50);
        assert!(tokio::time::timeout(soon, encoders.turn()).await.is_err());
        turns.pop();
        encoders.turn().await.unwrap();
    }
}

//! Who takes the delivery reports off the Kafka client: a thread of its own, which waits for them, or the thread that
//! hands over so many records that it had better do it in passing. Then a record's memory is freed where it was
//! allocated, which costs less than freeing another thread's, and no thread is woken for every few records.

use rdkafka::{
    client::Client,
    producer::{BaseProducer, Producer, ProducerContext},
};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// The thread waits for reports so long before it looks whether it is to end.
const WAIT_MS: u64 = 100;
/// While another thread takes them, it looks so often for what that one has left: its source may be slow.
const LEFT_OVER_INTERVAL_MS: u64 = 20;

/// A producer whose reports are taken.
pub(crate) struct ReportedProducer<C: ProducerContext + 'static> {
    producer: Arc<BaseProducer<C>>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Threads that take reports in passing.
    passing: AtomicUsize,
    is_over: AtomicBool,
}

/// For as long as it lives, whoever has it takes the reports.
#[derive(Debug)]
pub(crate) struct InPassing(Arc<Shared>);

impl Drop for InPassing {
    fn drop(&mut self) {
        self.0.passing.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<C: ProducerContext + 'static> ReportedProducer<C> {
    /// Starts the thread.
    pub(crate) fn start(producer: BaseProducer<C>) -> io::Result<Self> {
        let (producer, shared) = (Arc::new(producer), Arc::new(Shared::default()));
        let work = {
            let (producer, shared) = (Arc::clone(&producer), Arc::clone(&shared));
            move || {
                while !shared.is_over.load(Ordering::Relaxed) {
                    if shared.passing.load(Ordering::Relaxed) == 0 {
                        producer.poll(Duration::from_millis(WAIT_MS));
                    } else {
                        thread::sleep(Duration::from_millis(LEFT_OVER_INTERVAL_MS));
                        take_reports(&producer);
                    }
                }
            }
        };
        let thread = thread::Builder::new().name("delivery-reports".to_owned()).spawn(work)?;
        Ok(Self { producer, shared, thread: Some(thread) })
    }

    /// The producer.
    pub(crate) fn producer(&self) -> &BaseProducer<C> {
        &self.producer
    }

    /// The client within.
    pub(crate) fn client(&self) -> &Client<C> {
        self.producer.client()
    }

    /// Takes the reports that are there, without waiting.
    pub(crate) fn take_reports(&self) {
        take_reports(&self.producer);
    }

    /// From now on the caller [takes reports](Self::take_reports), again and again.
    pub(crate) fn in_passing(&self) -> InPassing {
        self.shared.passing.fetch_add(1, Ordering::Relaxed);
        InPassing(Arc::clone(&self.shared))
    }
}

/// A poll that doesn't wait takes the reports of one request's share of one partition, however few these are. With many
/// partitions or a slow source a poll now and then would leave more and more behind. What a poll has taken only the number
/// of records in flight tells; other threads that hand records over meanwhile may end this early, and the next look goes on.
fn take_reports<C: ProducerContext + 'static>(producer: &BaseProducer<C>) {
    let mut in_flight = producer.in_flight_count();
    while in_flight > 0 {
        producer.poll(Duration::ZERO);
        let left = producer.in_flight_count();
        if left >= in_flight {
            break;
        }
        in_flight = left;
    }
}

impl<C: ProducerContext + 'static> Drop for ReportedProducer<C> {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic in there was told by the panic itself; nobody is left to whom it matters.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::{
        ClientConfig, ClientContext,
        producer::{BaseRecord, DeliveryResult},
    };
    use std::time::Instant;

    /// Counts reports.
    #[derive(Clone, Default)]
    struct Count(Arc<AtomicUsize>);

    impl ClientContext for Count {}

    impl ProducerContext for Count {
        type DeliveryOpaque = ();

        fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Nobody listens there: a record fails by its timeout.
    fn unreachable() -> (Count, BaseProducer<Count>) {
        let count = Count::default();
        let producer = ClientConfig::new()
            .set("bootstrap.servers", "127.0.0.1:1")
            .set("message.timeout.ms", "50")
            .create_with_context(count.clone())
            .unwrap();
        (count, producer)
    }

    fn send(producer: &BaseProducer<Count>, topic: &str) {
        let record = BaseRecord::<(), str>::to(topic).payload("x");
        producer.send(record).map_err(|e| e.0).unwrap();
    }

    fn wait_for(count: &Count, wanted: usize, limit: Duration) {
        let begun = Instant::now();
        while count.0.load(Ordering::Relaxed) < wanted {
            assert!(begun.elapsed() < limit, "{} of {wanted} reports", count.0.load(Ordering::Relaxed));
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn every_report_is_taken_also_while_nobody_passes() {
        let (count, producer) = unreachable();
        let reported = ReportedProducer::start(producer).unwrap();
        let fails = |wanted: usize| {
            send(reported.producer(), "t");
            wait_for(&count, wanted, Duration::from_secs(30));
        };
        fails(1);
        let in_passing = reported.in_passing();
        fails(2);
        drop(in_passing);
        fails(3);
        assert_eq!(reported.shared.passing.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn many_small_shares_of_requests_leave_nothing_behind() {
        // Records for many topics fail in as many shares. A poll for each look would be too few.
        const TOPICS: usize = 500;
        const MOST_LOOKS: usize = TOPICS / 5;
        let (count, producer) = unreachable();
        for topic in 0..TOPICS {
            send(&producer, &format!("t{topic}"));
        }
        let taken = || count.0.load(Ordering::Relaxed);
        for _ in 0..MOST_LOOKS {
            thread::sleep(Duration::from_millis(200));
            take_reports(&producer);
            if taken() == TOPICS {
                break;
            }
        }
        assert_eq!(taken(), TOPICS);
    }
}

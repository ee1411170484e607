//! What became of the records handed to the Kafka client: counted by its delivery reports, never awaited one by one.

use metrics::Counter;
use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicU64, Ordering},
};
use tokio::sync::Notify;

/// Counts the records of one import or one request: handed over, acknowledged, failed.
#[derive(Debug, Default)]
pub struct Delivery {
    handed_over: AtomicU64,
    acknowledged: AtomicU64,
    failed: AtomicU64,
    first_error: OnceLock<String>,
    settled: Notify,
}

impl Delivery {
    /// Records that Kafka has acknowledged. It may lag by what one [`Receipt`] counts, until all are in.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Acquire)
    }

    /// Records that Kafka has not taken within the delivery timeout, or has refused.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Acquire)
    }

    /// Records handed over to the client.
    pub fn handed_over(&self) -> u64 {
        self.handed_over.load(Ordering::Acquire)
    }

    /// Why the first of the failed records failed.
    pub fn first_error(&self) -> Option<&str> {
        self.first_error.get().map(String::as_str)
    }

    /// Waits until every record handed over so far is acknowledged or has failed; the client's delivery timeout
    /// bounds it.
    pub async fn settled(&self) {
        loop {
            let settled = self.settled.notified();
            if self.is_settled() {
                return;
            }
            settled.await;
        }
    }

    /// Whether nothing is under way.
    pub fn is_settled(&self) -> bool {
        self.acknowledged() + self.failed() >= self.handed_over()
    }

    pub(crate) fn hand_over(&self) {
        self.handed_over.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn take_back(&self) {
        self.handed_over.fetch_sub(1, Ordering::AcqRel);
    }

    fn acknowledge(&self, records: u64) {
        self.acknowledged.fetch_add(records, Ordering::AcqRel);
        self.tell_if_settled();
    }

    fn fail(&self, error: String) {
        let _ = self.first_error.set(error);
        self.failed.fetch_add(1, Ordering::AcqRel);
        self.tell_if_settled();
    }

    fn tell_if_settled(&self) {
        if self.is_settled() {
            self.settled.notify_waiters();
        }
    }
}

/// What some records handed over one after the other have in common. Each takes a share of it along and its report
/// gives that back; with the last share the acknowledged ones are counted at once. So the thread that hands over and
/// the one that takes the reports seldom touch the same memory, which would cost either more than all its other work.
#[derive(Debug)]
pub struct Receipt {
    delivery: Arc<Delivery>,
    acknowledged: AtomicU64,
    published: Counter,
}

impl Receipt {
    pub(crate) fn new(delivery: &Arc<Delivery>, published: Counter) -> Arc<Self> {
        Arc::new(Self { delivery: Arc::clone(delivery), acknowledged: AtomicU64::new(0), published })
    }

    pub(crate) fn report(&self, error: Option<String>) {
        match error {
            None => {
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            // Told at once: whoever waits for room must learn that there won't be any.
            Some(error) => self.delivery.fail(error),
        }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        let acknowledged = *self.acknowledged.get_mut();
        if acknowledged > 0 {
            self.published.increment(acknowledged);
            self.delivery.acknowledge(acknowledged);
        }
    }
}

/// Whether the brokers can be reached, as the client last heard.
#[derive(Debug, Default)]
pub struct Reachability(AtomicBool);

impl Reachability {
    /// Whether all brokers were down when last heard of.
    pub fn is_down(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set_down(&self, down: bool) {
        // Read first: this is called for every delivery report, and a shared write would be the dearer one.
        if self.is_down() != down {
            self.0.store(down, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn settles_when_the_last_report_is_in() {
        let delivery = Arc::new(Delivery::default());
        delivery.settled().await;
        let mut receipt = Receipt::new(&delivery, Counter::noop());
        for _ in 0..3 {
            delivery.hand_over();
        }
        let waiting = tokio::spawn({
            let delivery = Arc::clone(&delivery);
            async move { delivery.settled().await }
        });
        let shares = [Arc::clone(&receipt), Arc::clone(&receipt)];
        receipt = Receipt::new(&delivery, Counter::noop());
        for share in shares {
            tokio::task::yield_now().await;
            assert!(!waiting.is_finished());
            assert_eq!(delivery.acknowledged(), 0);
            share.report(None);
        }
        assert_eq!(delivery.acknowledged(), 2);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        receipt.report(Some("timed out".into()));
        waiting.await.unwrap();
        assert_eq!((delivery.acknowledged(), delivery.failed()), (2, 1));
        assert_eq!(delivery.first_error(), Some("timed out"));
    }
}

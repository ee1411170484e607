//! What became of the records handed to the Kafka client: counted by its delivery reports, never awaited one by one.

use std::sync::{
    OnceLock,
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
    /// Records that Kafka has acknowledged.
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

    pub(crate) fn report(&self, error: Option<String>) {
        match error {
            None => {
                self.acknowledged.fetch_add(1, Ordering::AcqRel);
            }
            Some(error) => {
                let _ = self.first_error.set(error);
                self.failed.fetch_add(1, Ordering::AcqRel);
            }
        }
        if self.is_settled() {
            self.settled.notify_waiters();
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
    use std::sync::Arc;

    #[tokio::test]
    async fn settles_when_the_last_report_is_in() {
        let delivery = Arc::new(Delivery::default());
        delivery.settled().await;
        delivery.hand_over();
        delivery.hand_over();
        let waiting = tokio::spawn({
            let delivery = Arc::clone(&delivery);
            async move { delivery.settled().await }
        });
        delivery.report(None);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        delivery.report(Some("timed out".into()));
        waiting.await.unwrap();
        assert_eq!((delivery.acknowledged(), delivery.failed()), (1, 1));
        assert_eq!(delivery.first_error(), Some("timed out"));
    }
}

//! A sink asks whether its partitions are still its own.

use crate::fixture::*;
use claims_runtime::{Batch, RuntimeSettings, Sink, SinkError};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

const SESSION_TIMEOUT: Duration = Duration::from_secs(6);

/// Asks before it writes; holds on to `hold` until it is told to go on.
#[derive(Default)]
struct Careful {
    written: Mutex<Vec<String>>,
    refused: Mutex<Vec<String>>,
    is_holding: AtomicBool,
    may_go_on: AtomicBool,
}

impl Sink for Careful {
    type Row = String;

    async fn write(&self, batch: &Batch<String>) -> Result<(), SinkError> {
        if batch.rows.iter().any(|row| row == "hold") {
            self.is_holding.store(true, Ordering::SeqCst);
            while !self.may_go_on.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        match batch.membership.confirm().await {
            Ok(_) => self.written.lock().unwrap().extend_from_slice(&batch.rows),
            Err(error) => {
                self.refused.lock().unwrap().push(error.to_string());
                return Err(error);
            }
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_lost_its_partitions_without_knowing_is_not_confirmed() {
    let topic = Topic::new(1).await;
    let mut config = topic.config(RuntimeSettings { max_batch_records: 1, ..quick() });
    for name in ["max.poll.interval.ms", "session.timeout.ms"] {
        config.client_properties.push((name.into(), SESSION_TIMEOUT.as_millis().to_string()));
    }
    let sink = Arc::new(Careful::default());
    let first = Running::start(config, Plain::new(), &sink, Registry::none());
    topic.send(0, Some(b"first")).await;
    until("the first is committed", || topic.committed().get(&0) == Some(&1)).await;
    // Nothing has been committed for half a session: the group is asked, and confirms.
    tokio::time::sleep(SESSION_TIMEOUT / 2 + Duration::from_millis(200)).await;
    topic.send(0, Some(b"second")).await;
    until("the second is committed", || topic.committed().get(&0) == Some(&2)).await;
    assert_eq!((sink.written.lock().unwrap().len(), sink.refused.lock().unwrap().len()), (2, 0));

    topic.send(0, Some(b"hold")).await;
    until("a write is under way", || sink.is_holding.load(Ordering::SeqCst)).await;
    // The loop stands still, and the group takes the partition away.
    topic.send(0, Some(b"block:12000")).await;
    let next = Recording::new();
    let second = Running::start(topic.config(quick()), Plain::new(), &next, Registry::none());
    until("the next owner has written it", || next.texts().contains("hold")).await;
    sink.may_go_on.store(true, Ordering::SeqCst);
    until("the first one has asked", || !sink.refused.lock().unwrap().is_empty()).await;
    assert_eq!(*sink.written.lock().unwrap(), ["first", "second"]);
    assert!(sink.refused.lock().unwrap()[0].contains("has not confirmed"));
    second.stop().await;
    first.stop().await;
}

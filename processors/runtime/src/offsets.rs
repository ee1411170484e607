//! What a consumer group has committed.

use rdkafka::{
    consumer::{Consumer, ConsumerContext},
    error::{KafkaResult, RDKafkaErrorCode},
    topic_partition_list::TopicPartitionList,
};
use std::{
    thread,
    time::{Duration, Instant},
};

/// Between two questions to a group coordinator that is moving.
const PAUSE: Duration = Duration::from_millis(100);

/// The committed offsets of the consumer's group; invalid offsets where it has none. Blocks for `timeout` at most.
///
/// A cluster that sees its first group makes the topic of the offsets then, and a broker that became the coordinator
/// loads it first: meanwhile the answer is "not coordinator" or "loading", which the protocol means to be asked again,
/// and which librdkafka hands on after one attempt.
pub fn committed_offsets<C: ConsumerContext>(
    consumer: &impl Consumer<C>,
    partitions: &TopicPartitionList,
    timeout: Duration,
) -> KafkaResult<TopicPartitionList> {
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match consumer.committed_offsets(partitions.clone(), left) {
            Err(error)
                if error.rdkafka_error_code().is_some_and(coordinator_moves) && Instant::now() < deadline =>
            {
                thread::sleep(PAUSE.min(left));
            }
            result => return result,
        }
    }
}

fn coordinator_moves(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::NotCoordinator
            | RDKafkaErrorCode::CoordinatorNotAvailable
            | RDKafkaErrorCode::CoordinatorLoadInProgress
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_moving_coordinator_is_asked_again() {
        assert!(coordinator_moves(RDKafkaErrorCode::NotCoordinator));
        assert!(coordinator_moves(RDKafkaErrorCode::CoordinatorLoadInProgress));
        assert!(!coordinator_moves(RDKafkaErrorCode::GroupAuthorizationFailed));
        assert!(!coordinator_moves(RDKafkaErrorCode::BrokerTransportFailure));
    }
}

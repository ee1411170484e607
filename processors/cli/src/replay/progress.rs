//! Waiting until a replay is through: a group's committed offsets, looked at until they are where they were.

use super::plan::Planned;
use crate::{progress::Progress, reader::Reader};
use anyhow::bail;
use claims_topology::Config;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Without a single record more for this long, nobody seems to read.
const STALL_LIMIT: Duration = Duration::from_secs(120);

/// Waits until the group has read again what the plan made it read again; how many seconds that took.
pub async fn wait(config: &Config, planned: &Planned) -> anyhow::Result<f64> {
    let spans: BTreeMap<i32, Span> = planned
        .plan
        .moves
        .iter()
        .filter_map(|moved| {
            let until = moved.replay.as_ref()?.until;
            Some((moved.partition, Span { from: moved.to, until }))
        })
        .collect();
    let total = spans.values().map(|span| span.until - span.from).sum::<i64>();
    let bar = Progress::records(planned.processor, u64::try_from(total).unwrap_or(0));
    let mut last = (0, Instant::now());
    let partitions: Vec<i32> = spans.keys().copied().collect();
    let reader = std::sync::Arc::new(Reader::new(&config.kafka, &planned.group)?);
    loop {
        let (reader, topic, asked) = (reader.clone(), planned.topic.clone(), partitions.clone());
        let committed = tokio::task::spawn_blocking(move || reader.committed(&topic, &asked)).await??;
        let done = records_done(&spans, &committed);
        bar.set_position(u64::try_from(done).unwrap_or(0));
        if done >= total {
            return Ok(bar.finish().as_secs_f64());
        }
        if done > last.0 {
            last = (done, Instant::now());
        } else if last.1.elapsed() >= STALL_LIMIT {
            bar.finish();
            bail!(
                "{}: its offsets are set, but nothing was read for {} s, after {done} of {total} records. Is it running? \
                 `claims run {}` starts it, `claims lag` shows how far it is",
                planned.processor,
                STALL_LIMIT.as_secs(),
                planned.processor
            );
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// What is read again of one partition.
#[derive(Debug, Clone, Copy)]
struct Span {
    from: i64,
    until: i64,
}

fn records_done(spans: &BTreeMap<i32, Span>, committed: &BTreeMap<i32, Option<i64>>) -> i64 {
    let done = |(partition, span): (&i32, &Span)| {
        let at = committed.get(partition).copied().flatten().unwrap_or(span.from);
        at.clamp(span.from, span.until) - span.from
    };
    spans.iter().map(done).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_read_again_counts() {
        let spans = BTreeMap::from([(0, Span { from: 10, until: 60 }), (3, Span { from: 0, until: 5 })]);
        let done =
            |committed: &[(i32, Option<i64>)]| records_done(&spans, &committed.iter().copied().collect());
        assert_eq!(done(&[(0, Some(10)), (3, None)]), 0);
        assert_eq!(done(&[(0, Some(70)), (3, Some(2)), (5, Some(99))]), 52);
        assert_eq!(done(&[(0, Some(60)), (3, Some(5))]), 55);
    }
}

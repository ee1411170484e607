//! How far a consumer group, or a topic, has come: looked at from outside, the same way for everybody.

use super::{
    child::{Processors, Program, Shares, loopback_bytes, services_cpu_s},
    interrupt,
    profile::Profiler,
};
use anyhow::{Context, Result, ensure};
use claims_verifier::{
    namespace::{Namespace, REQUEST_TIMEOUT},
    views::topics,
};
use rdkafka::{
    Message, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    topic_partition_list::Offset,
};
use std::{
    collections::{BTreeMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    time::{Duration, Instant},
};

/// Between two looks at offsets …
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// … and at memory.
const MEMORY_INTERVAL: Duration = Duration::from_millis(250);
/// Rate and CPU are taken from here on, as a share of all records: starting, joining the group and a first batch are not
/// what is measured.
const FROM_SHARE: f64 = 0.1;
/// Nothing may stand still for longer.
const STANDSTILL_LIMIT: Duration = Duration::from_secs(120);

/// How far it was at a moment, and what it had cost.
#[derive(Debug, Clone)]
struct Mark {
    at: Instant,
    records: u64,
    cpu_s: f64,
    services_cpu_s: BTreeMap<&'static str, f64>,
    processors: Option<Processors>,
}

impl Mark {
    fn now(programs: &[Program], at: Instant, records: u64) -> Result<Self> {
        let cpu_s = programs.iter().map(|program| program.usage().cpu_s).sum();
        let (services_cpu_s, processors) = (services_cpu_s()?, Processors::now());
        Ok(Self { at, records, cpu_s, services_cpu_s, processors })
    }
}

/// What became of a run.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Run {
    /// Records per second, from a tenth of them to the last; `None` where there were too few to tell.
    pub per_s: Option<f64>,
    /// To the last record, in seconds: from the start of a program of ours, and from when a floor has its rows ready.
    pub wall_s: f64,
    /// CPU of its processes, in seconds per million records; from a tenth of the records to the last, as the rate.
    pub cpu_s_per_million: f64,
    /// The same of the services.
    pub services_cpu_s_per_million: BTreeMap<&'static str, f64>,
    /// The share of the machine that had nothing to do, from a tenth of the records to the last; 0 where that isn't known.
    pub idle_share: f64,
    /// The share that had nothing to do until a disk had answered.
    pub disk_wait_share: f64,
    /// The share that its host gave to others: such a run is slower by as much, or more.
    pub stolen_share: f64,
    /// The most resident memory of any of its processes, in MiB. A floor's holds its prepared rows.
    pub peak_mib: u64,
    /// Bytes on the loopback network from the start, everybody's, per record. Not from a tenth: a consumer has fetched much of
    /// a short topic before it has committed that.
    pub network_bytes_per_record: f64,
    /// Bytes that it has left, by where, per record; of ours alone.
    pub stored_bytes_per_record: BTreeMap<&'static str, f64>,
}

impl Run {
    fn between(from: &Mark, to: &Mark, begun: Instant) -> Self {
        let records = to.records - from.records;
        let seconds = to.at.duration_since(from.at).as_secs_f64();
        let per_million = |cpu_s: f64| if records > 0 { cpu_s * 1e6 / records as f64 } else { 0.0 };
        let of_service = |(&name, &cpu_s): (&&'static str, &f64)| {
            (name, per_million(cpu_s - from.services_cpu_s.get(name).copied().unwrap_or(0.0)))
        };
        let shares = match (from.processors, to.processors) {
            (Some(from), Some(to)) => to.shares_since(from),
            _ => Shares::default(),
        };
        Self {
            per_s: (records > 0 && seconds > 0.0).then(|| records as f64 / seconds),
            wall_s: to.at.duration_since(begun).as_secs_f64(),
            cpu_s_per_million: per_million(to.cpu_s - from.cpu_s),
            services_cpu_s_per_million: to.services_cpu_s.iter().map(of_service).collect(),
            idle_share: shares.idle,
            disk_wait_share: shares.disk_wait,
            stolen_share: shares.stolen,
            peak_mib: 0,
            network_bytes_per_record: 0.0,
            stored_bytes_per_record: BTreeMap::new(),
        }
    }
}

/// Looks at a number of records until it has reached `total`; what is measured is also what is profiled.
pub fn follow(
    programs: &mut [Program],
    begun: Instant,
    total: u64,
    profiler: Option<&Profiler>,
    look: impl Fn() -> Result<u64>,
) -> Result<Run> {
    let (mut from, mut last, mut peak_mib) = (None, (Instant::now(), 0), 0);
    let mut memory_seen: Option<Instant> = None;
    let network = || loopback_bytes().unwrap_or(0);
    let network_from = network();
    loop {
        interrupt::check()?;
        let records = look()?;
        let at = Instant::now();
        if records > last.1 {
            last = (at, records);
        }
        if from.is_none() && records as f64 >= total as f64 * FROM_SHARE {
            from = Some(Mark::now(programs, at, records)?);
            profiler.map_or(Ok(()), |profiler| profiler.start(programs))?;
        }
        if memory_seen.is_none_or(|seen| seen.elapsed() >= MEMORY_INTERVAL) || records >= total {
            memory_seen = Some(at);
            peak_mib = programs.iter().map(|program| program.usage().peak_mib).fold(peak_mib, u64::max);
        }
        if let Some(from) = from.as_ref().filter(|_| records >= total) {
            let to = Mark::now(programs, at, records)?;
            ensure!(
                to.cpu_s >= from.cpu_s,
                "a process ended before its CPU was looked at: nothing was measured"
            );
            let run = Run::between(from, &to, begun);
            let network_bytes_per_record = (network() - network_from) as f64 / records.max(1) as f64;
            profiler.map_or(Ok(()), Profiler::stop)?;
            return Ok(Run { peak_mib, network_bytes_per_record, ..run });
        }
        programs.iter_mut().try_for_each(Program::check_unfinished)?;
        ensure!(
            last.0.elapsed() < STANDSTILL_LIMIT,
            "{records} of {total} records, and no further one for {} s",
            STANDSTILL_LIMIT.as_secs()
        );
        std::thread::sleep(LOOK_INTERVAL);
    }
}

/// The records that a group has committed.
pub struct Group {
    consumer: BaseConsumer,
    wanted: TopicPartitionList,
}

impl Group {
    /// A group that reads the events of a namespace from their beginning.
    pub fn of(namespace: &Namespace, group: &str) -> Result<Self> {
        let consumer = namespace.kafka_client().set("group.id", group).set("log_level", "0").create()?;
        let mut wanted = TopicPartitionList::new();
        for partition in 0..namespace.partitions {
            wanted.add_partition(&namespace.events_topic, partition);
        }
        Ok(Self { consumer, wanted })
    }

    /// How many it has committed; 0 while the group isn't known.
    pub fn committed(&self) -> u64 {
        let Ok(offsets) = self.consumer.committed_offsets(self.wanted.clone(), REQUEST_TIMEOUT) else {
            return 0;
        };
        let of = |offset| match offset {
            Offset::Offset(next) => u64::try_from(next).unwrap_or(0),
            _ => 0,
        };
        offsets.elements().iter().map(|element| of(element.offset())).sum()
    }
}

/// The records of a topic.
pub struct Topic {
    consumer: BaseConsumer,
    name: String,
    partitions: Vec<i32>,
}

impl Topic {
    /// A topic that is there.
    pub fn of(namespace: &Namespace, name: &str) -> Result<Self> {
        let consumer: BaseConsumer = namespace.kafka_client().create()?;
        let metadata = consumer.fetch_metadata(Some(name), REQUEST_TIMEOUT)?;
        let found = metadata.topics().first().with_context(|| format!("no topic {name}"))?;
        let partitions = found.partitions().iter().map(|partition| partition.id()).collect();
        Ok(Self { consumer, name: name.to_owned(), partitions })
    }

    /// How many there are.
    pub fn records(&self) -> Result<u64> {
        let mut records = 0;
        for &partition in &self.partitions {
            let (low, high) = self.consumer.fetch_watermarks(&self.name, partition, REQUEST_TIMEOUT)?;
            records += u64::try_from(high - low).unwrap_or(0);
        }
        Ok(records)
    }
}

/// Records in a topic.
pub fn records_in(namespace: &Namespace, topic: &str) -> Result<u64> {
    Topic::of(namespace, topic)?.records()
}

/// The events of a topic, whatever their order: a sum over the hashes of their keys, and their number without copies.
pub fn keys_of(namespace: &Namespace, topic: &str) -> Result<(u64, usize)> {
    let mut keys = HashSet::new();
    topics::each_record(namespace, topic, |message| {
        let mut hasher = DefaultHasher::new();
        message.key().unwrap_or_default().hash(&mut hasher);
        keys.insert(hasher.finish());
        Ok(())
    })?;
    Ok((keys.iter().fold(0, |sum: u64, &key| sum.wrapping_add(key)), keys.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(at: Instant, records: u64, cpu_s: f64) -> Mark {
        let services_cpu_s = BTreeMap::from([("kafka", 2.0 * cpu_s)]);
        Mark { at, records, cpu_s, services_cpu_s, processors: None }
    }

    #[test]
    fn rate_and_cpu_are_those_between_two_marks() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let run = Run::between(&mark(at(4_000), 200, 1.0), &mark(at(8_000), 1_000, 1.4), begun);
        assert_eq!((run.per_s, run.wall_s), (Some(200.0), 8.0));
        assert!((run.cpu_s_per_million - 500.0).abs() < 1e-6);
        assert!((run.services_cpu_s_per_million["kafka"] - 1_000.0).abs() < 1e-6);
    }

    #[test]
    fn what_comes_at_once_has_no_rate() {
        let begun = Instant::now();
        let run = Run::between(&mark(begun, 10, 1.0), &mark(begun, 10, 1.0), begun);
        assert_eq!((run.per_s, run.cpu_s_per_million), (None, 0.0));
    }
}

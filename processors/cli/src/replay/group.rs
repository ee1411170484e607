//! A consumer group from outside: who is in it, and setting its offsets while nobody is.

use crate::exit::Away;
use anyhow::{Context, anyhow, bail};
use claims_runtime::{committed_offsets, replay::ReplayPlan};
use claims_topology::{Config, kafka};
use rdkafka::{
    TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::RDKafkaErrorCode,
    topic_partition_list::Offset,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// A stopped processor has left its group within this time; one with an `instance_id` is kept its place for 45 seconds.
const EMPTY_LIMIT: Duration = Duration::from_secs(75);
const EMPTY_POLL: Duration = Duration::from_millis(200);

/// The group of one processor.
#[derive(Clone)]
pub struct Group {
    consumer: Arc<BaseConsumer>,
    name: String,
    servers: String,
    timeout: Duration,
}

impl Group {
    /// The group as configured. It is not joined.
    pub fn new(config: &Config, processor: &str) -> anyhow::Result<Self> {
        let name = kafka::group_id(&config.kafka, processor);
        let consumer = kafka::client_config(&config.kafka)
            .set("group.id", &name)
            .set("enable.auto.commit", "false")
            .create()?;
        Ok(Self {
            consumer: Arc::new(consumer),
            name,
            servers: config.kafka.bootstrap_servers.clone(),
            timeout: Duration::from_millis(config.kafka.request_timeout_ms),
        })
    }

    /// Its members, each in words.
    fn members(&self) -> anyhow::Result<Vec<String>> {
        let groups = self.consumer.fetch_group_list(Some(&self.name), self.timeout).map_err(|error| {
            Away { what: "Kafka", address: self.servers.clone(), detail: error.to_string() }
        })?;
        let members = groups.groups().iter().filter(|group| group.name() == self.name);
        Ok(members
            .flat_map(|group| group.members())
            .map(|member| {
                let host = member.client_host().trim_start_matches('/');
                format!("{} on {host} ({})", member.client_id(), member.id())
            })
            .collect())
    }

    /// An error that names the members, if there are any.
    pub fn refuse_members(&self) -> anyhow::Result<()> {
        let members = self.members()?;
        if members.is_empty() {
            return Ok(());
        }
        bail!(
            "group {} is being read for by {}; nothing was changed. Stop these processes, or use --restart",
            self.name,
            members.join(", ")
        )
    }

    /// Waits until nobody is in the group. If nobody was asked to leave it, there is nothing to wait for: then members are
    /// an error at once.
    pub async fn wait_until_empty(&self, is_leaving: bool) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let group = self.clone();
            let members = tokio::task::spawn_blocking(move || group.members()).await??;
            if members.is_empty() {
                return Ok(());
            }
            if !is_leaving || begun.elapsed() >= EMPTY_LIMIT {
                bail!(
                    "group {} is still being read for by {}, {} s after those that were reached were stopped; name the \
                     status servers of these processes with --control, or stop them",
                    self.name,
                    members.join(", "),
                    begun.elapsed().as_secs()
                );
            }
            tokio::time::sleep(EMPTY_POLL).await;
        }
    }

    /// Commits a plan's offsets with their notes, and makes sure that they are what the group has now.
    pub fn commit(&self, topic: &str, plan: &ReplayPlan) -> anyhow::Result<()> {
        let mut offsets = TopicPartitionList::new();
        for planned in &plan.moves {
            let mut element = offsets.add_partition(topic, planned.partition);
            element.set_offset(Offset::Offset(planned.to))?;
            element.set_metadata(plan.note(planned).to_metadata());
        }
        // The coordinator itself refuses this while the group has members: none can slip in between.
        self.consumer.commit(&offsets, CommitMode::Sync).map_err(|error| {
            let joined = matches!(
                error.rdkafka_error_code(),
                Some(RDKafkaErrorCode::UnknownMemberId | RDKafkaErrorCode::IllegalGeneration)
            );
            match joined {
                true => anyhow!("group {} has members again; stop them, or use --restart", self.name),
                false => anyhow!(error).context(format!("setting the offsets of group {}", self.name)),
            }
        })?;
        let found = committed_offsets(&*self.consumer, &offsets, self.timeout).with_context(|| {
            format!("the offsets of group {} are set, but could not be read back", self.name)
        })?;
        for planned in &plan.moves {
            let found = found.find_partition(topic, planned.partition).map(|element| element.offset());
            if found != Some(Offset::Offset(planned.to)) {
                bail!(
                    "partition {} of group {} was set to {}, but Kafka says {found:?}: somebody else is setting offsets",
                    planned.partition,
                    self.name,
                    planned.to
                );
            }
        }
        Ok(())
    }
}

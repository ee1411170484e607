//! What the loop does from time to time: commits, a look at the topic, and the rates of replays.

use crate::{
    Origin, Processor, Sink, StageError,
    event_loop::{ABOUT_COMMIT, ABOUT_KAFKA, StageLoop},
    kafka::{self, Severity},
    ledger::Committable,
    membership::{self, Confirmation},
    replay::CommitNote,
    throttle::Took,
    worker::Watermarks,
};
use rdkafka::{consumer::Consumer as _, error::KafkaResult};
use std::time::{Duration, Instant};

/// The topic's end, and whether it is still the same topic, is asked for this often.
const WATERMARK_INTERVAL: Duration = Duration::from_secs(5);

impl<P, S> StageLoop<P, S>
where
    P: Processor,
    S: Sink<Row = P::Row>,
{
    pub(crate) fn commit_if_due(&mut self) {
        let interval = Duration::from_millis(self.config.settings.commit_interval_ms);
        if !self.is_commit_outstanding && self.last_commit.elapsed() >= interval {
            self.commit(|_| true);
        }
    }

    /// Commits what is acknowledged of the chosen partitions. False if there is nothing.
    pub(crate) fn commit(&mut self, chosen: impl Fn(i32) -> bool) -> bool {
        let mut commits = self.pipeline.committable();
        commits.retain(|commit| chosen(commit.partition));
        self.last_commit = Instant::now();
        if commits.is_empty() {
            return false;
        }
        self.is_commit_outstanding = true;
        self.worker.commit(commits.into_iter().map(|commit| self.noted(commit)).collect());
        true
    }

    fn noted(&self, commit: Committable) -> (Committable, CommitNote) {
        let replay = self.throttle.note(commit.partition, commit.next_offset).cloned();
        let begins_at = self.rebalancing.begins_at(commit.partition);
        (commit, CommitNote { topic_id: self.topic_id.clone(), replay, begins_at })
    }

    /// Somebody is about to write what a partition's next owner would write, too: is this still a member of the group?
    pub(crate) fn confirm_membership(&mut self, reply: membership::Reply) {
        let ledger = self.pipeline.ledger();
        if self.membership.is_certain() {
            // A commit has been taken since it was asked.
            let _ = reply.send(Ok(Confirmation::Certain));
        } else if ledger.partitions().is_empty() || self.consumer.assignment_lost() {
            let _ = reply.send(Err("they are lost".to_owned()));
        } else if let Some(known) = ledger.known() {
            self.confirming.push(reply);
            if self.confirming.len() == 1 {
                self.worker.confirm(self.noted(known));
            }
        } else {
            // Nothing can be committed before the first batch.
            let _ = reply.send(Ok(Confirmation::NothingCommitted));
        }
    }

    pub(crate) fn membership_confirmed(&mut self, sent: Instant, result: KafkaResult<()>) {
        let answer = match result {
            // A group without any member takes commits from everybody.
            Ok(()) if self.consumer.assignment_lost() => Err("they are lost".to_owned()),
            Ok(()) => {
                self.membership.confirmed(sent);
                let took_ms = sent.elapsed().as_millis();
                if self.membership.is_certain() {
                    Ok(Confirmation::Certain)
                } else {
                    Err(format!("the answer took {took_ms} ms"))
                }
            }
            Err(error) => Err(error.to_string()),
        };
        for reply in self.confirming.drain(..) {
            let _ = reply.send(answer.clone());
        }
    }

    pub(crate) fn committed(
        &mut self,
        commits: &[Committable],
        sent: Instant,
        result: KafkaResult<()>,
    ) -> Result<(), StageError> {
        self.is_commit_outstanding = false;
        match result {
            Ok(()) => {
                self.membership.confirmed(sent);
                self.monitor.withdraw(ABOUT_COMMIT);
                self.note_commits(commits);
            }
            Err(error) => {
                self.monitor.metrics.commit_failures.increment(1);
                if let Severity::Final(detail) = kafka::severity(&error, &self.config, self.pipeline.name()) {
                    return Err(StageError::Kafka(detail));
                }
                self.monitor.complain(ABOUT_COMMIT, format!("offsets were not committed: {error}"));
            }
        }
        Ok(())
    }

    pub(crate) fn look_at_watermarks_if_due(&mut self) {
        let is_due = self.last_watermarks.elapsed() >= WATERMARK_INTERVAL;
        if is_due && !self.is_watermark_outstanding && !self.stopping {
            self.is_watermark_outstanding = true;
            self.worker.watermarks(self.pipeline.ledger().partitions());
        }
    }

    pub(crate) fn watermarks(&mut self, watermarks: KafkaResult<Watermarks>) -> Result<(), StageError> {
        self.is_watermark_outstanding = false;
        self.last_watermarks = Instant::now();
        match watermarks {
            Ok(Watermarks { topic_id, highs }) => {
                self.monitor.withdraw(ABOUT_KAFKA);
                self.refuse_another_topic(self.topic_id.as_deref(), topic_id.as_deref())?;
                let held = self.pipeline.ledger();
                for (partition, high) in highs {
                    if held.durable_offset(partition).is_some() {
                        self.monitor.high(partition, high);
                    }
                }
            }
            Err(error) => self.monitor.complain(ABOUT_KAFKA, error.to_string()),
        }
        Ok(())
    }

    /// A topic that was deleted and made anew has the old one's name and other records under its offsets.
    pub(crate) fn refuse_another_topic(
        &self,
        known: Option<&str>,
        found: Option<&str>,
    ) -> Result<(), StageError> {
        match (known, found) {
            (Some(old), Some(new)) if old != new => {
                let name = self.pipeline.name();
                Err(StageError::Kafka(kafka::made_anew_help(&self.config.topic, name, old, new)))
            }
            _ => Ok(()),
        }
    }

    /// Brings the replays' rates up to the present.
    pub(crate) fn keep_rates(&mut self, now_ms: u64) -> Result<(), StageError> {
        if !self.throttle.is_idle() {
            self.throttle.tick(now_ms);
            self.pause_for_rates()?;
        }
        Ok(())
    }

    fn pause_for_rates(&mut self) -> Result<(), StageError> {
        let assigned = self.pauses.assigned_count();
        self.pauses.set_throttled(self.throttle.pauses(assigned));
        self.apply_pauses()
    }

    /// Whether no record may be taken just now: everything assigned is being replayed at a rate.
    #[inline]
    pub(crate) fn is_held_to_rate(&self) -> bool {
        !self.throttle.is_idle() && self.throttle.is_holding(self.pauses.assigned_count())
    }

    /// A record of a partition that may be in a replay was taken.
    pub(crate) fn count_replayed(&mut self, Origin { partition, offset }: Origin) -> Result<(), StageError> {
        match self.throttle.took(partition, offset) {
            Took::Within => Ok(()),
            Took::Last => self.pause_for_rates(),
            Took::Beyond { replay } => {
                tracing::info!(processor = self.pipeline.name(), partition, replay, "the replay is through");
                self.pause_for_rates()
            }
        }
    }
}

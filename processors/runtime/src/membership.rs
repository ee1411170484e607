//! Whether the group still counts this process among its members: for sinks whose late writes nothing tells from those of a
//! partition's next owner.
//!
//! A member that the group hasn't heard from for its session timeout loses its partitions, and if it was stopped or cut off it
//! doesn't know. But the group takes commits from present members alone, and a commit begins the session anew. So from the
//! moment at which a commit that was taken had been sent, the partitions are certainly this member's for a session timeout.
//! Half of that, and no more than [`MAX_CERTAIN`], is for deciding to write ([`Membership::confirm`]); the rest is for what is
//! written to arrive.

use crate::{SinkError, delivery::Gone, event_loop::Letter, mailbox::Mailbox};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// The group has this long to confirm a membership.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);

/// However long the session: another process may take the place of a static member, and have its partitions at once.
pub const MAX_CERTAIN: Duration = Duration::from_secs(5);

/// Where the answer goes, or what is wrong.
pub(crate) type Reply = oneshot::Sender<Result<Confirmation, String>>;

/// What is known of a membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmation {
    /// The group has taken a commit a moment ago.
    Certain,
    /// Of these partitions nothing has been committed yet, by nobody: the group can't be asked.
    NothingCommitted,
}

/// Which partitions of a batch are still this process's. The default is of no group, and has lost none.
#[derive(Debug, Clone, Default)]
pub struct Membership(Option<Arc<Member>>);

#[derive(Debug)]
struct Member {
    group: Arc<Group>,
    gone: Gone,
}

#[derive(Debug)]
struct Group {
    certain_for: Duration,
    /// When the last commit that the group has taken was sent.
    confirmed_at: Mutex<Option<Instant>>,
    mailbox: Arc<Mailbox<Letter>>,
}

impl Group {
    fn is_certain(&self, now: Instant) -> bool {
        let confirmed_at = *self.confirmed_at.lock().unwrap_or_else(PoisonError::into_inner);
        confirmed_at.is_some_and(|at| now.saturating_duration_since(at) < self.certain_for)
    }
}

impl Membership {
    pub(crate) fn new(session_timeout: Duration, mailbox: Arc<Mailbox<Letter>>) -> Self {
        let (certain_for, confirmed_at) = ((session_timeout / 2).min(MAX_CERTAIN), Mutex::default());
        Self::of(Arc::new(Group { certain_for, confirmed_at, mailbox }), Gone::default())
    }

    fn of(group: Arc<Group>, gone: Gone) -> Self {
        Self(Some(Arc::new(Member { group, gone })))
    }

    fn group(&self) -> Option<&Arc<Group>> {
        self.0.as_ref().map(|member| &member.group)
    }

    /// The same for a batch that loses these partitions meanwhile.
    pub(crate) fn of_batch(&self, gone: Gone) -> Self {
        self.group().map_or_else(Self::default, |group| Self::of(Arc::clone(group), gone))
    }

    /// The group has taken a commit that was sent then.
    pub(crate) fn confirmed(&self, sent: Instant) {
        if let Some(group) = self.group() {
            let mut confirmed_at = group.confirmed_at.lock().unwrap_or_else(PoisonError::into_inner);
            *confirmed_at = (*confirmed_at).max(Some(sent));
        }
    }

    /// Whether a commit was sent so short a time ago that nothing needs to be asked.
    pub fn is_certain(&self) -> bool {
        self.group().is_none_or(|group| group.is_certain(Instant::now()))
    }

    /// Whether the partition was taken away since the batch was closed. Its next owner writes the same rows.
    pub fn has_lost(&self, partition: i32) -> bool {
        self.0.as_ref().is_some_and(|member| member.gone.contains(partition))
    }

    /// Returns at once where a commit was taken a moment ago, and else asks the group by another one.
    ///
    /// # Errors
    ///
    /// [`SinkError::Transient`] if the group has not answered in time, or doesn't count this process among its members any
    /// more: then nothing may be written, and the loop hears of it soon.
    pub async fn confirm(&self) -> Result<Confirmation, SinkError> {
        let Some(group) = self.group().filter(|_| !self.is_certain()) else {
            return Ok(Confirmation::Certain);
        };
        let (reply, answer) = oneshot::channel();
        group.mailbox.post(Letter::Confirm(reply));
        let detail = match tokio::time::timeout(CONFIRM_TIMEOUT, answer).await {
            // The process may have been stopped since it was answered.
            Ok(Ok(Ok(Confirmation::Certain))) if !self.is_certain() => "the answer came too late".to_owned(),
            Ok(Ok(Ok(confirmation))) => return Ok(confirmation),
            Ok(Ok(Err(detail))) => detail,
            Ok(Err(_)) => "the stage has ended".to_owned(),
            Err(_) => format!("no answer within {} s", CONFIRM_TIMEOUT.as_secs()),
        };
        Err(SinkError::Transient(format!(
            "the group has not confirmed that the partitions are still this process's: {detail}"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: Duration = Duration::from_secs(8);

    fn membership() -> (Membership, Arc<Mailbox<Letter>>) {
        let mailbox = Arc::new(Mailbox::default());
        (Membership::new(SESSION, Arc::clone(&mailbox)), mailbox)
    }

    fn asked(mailbox: &Mailbox<Letter>) -> Option<Reply> {
        mailbox.take().map(|letter| match letter {
            Letter::Confirm(reply) => reply,
            letter => panic!("{letter:?}"),
        })
    }

    #[tokio::test]
    async fn a_commit_is_good_for_half_a_session_from_when_it_was_sent() {
        let (membership, mailbox) = membership();
        assert!(!membership.is_certain(), "nothing is known of a member that has committed nothing");
        let now = Instant::now();
        membership.confirmed(now);
        membership.confirmed(now.checked_sub(SESSION).unwrap());
        assert!(membership.is_certain(), "an older commit takes nothing away");
        assert_eq!(membership.confirm().await, Ok(Confirmation::Certain));
        assert!(asked(&mailbox).is_none());
        let group = membership.group().unwrap();
        assert!(!group.is_certain(now + SESSION / 2));
        assert!(group.is_certain(now + SESSION / 2 - Duration::from_millis(1)));
    }

    #[tokio::test]
    async fn the_group_is_asked_where_nothing_is_certain() {
        let (membership, mailbox) = membership();
        let refused = Err("IllegalGeneration".to_owned());
        for (answer, wanted) in [
            (Ok(Confirmation::NothingCommitted), Ok(Confirmation::NothingCommitted)),
            (refused, Err("IllegalGeneration")),
            (Ok(Confirmation::Certain), Err("too late")),
        ] {
            let asking = tokio::spawn({
                let membership = membership.clone();
                async move { membership.confirm().await }
            });
            let reply = loop {
                tokio::time::sleep(Duration::from_millis(1)).await;
                if let Some(reply) = asked(&mailbox) {
                    break reply;
                }
            };
            reply.send(answer).unwrap();
            match (asking.await.unwrap(), wanted) {
                (Err(SinkError::Transient(detail)), Err(wanted)) => {
                    assert!(detail.contains(wanted), "{detail}")
                }
                (answer, wanted) => assert_eq!(answer.ok(), wanted.ok()),
            }
        }
    }

    #[test]
    fn a_long_session_makes_nothing_certain_for_long() {
        let membership = Membership::new(Duration::from_secs(45), Arc::default());
        let now = Instant::now();
        membership.confirmed(now);
        let group = membership.group().unwrap();
        assert!(group.is_certain(now + MAX_CERTAIN - Duration::from_millis(1)));
        assert!(!group.is_certain(now + MAX_CERTAIN));
    }

    #[test]
    fn what_a_batch_has_lost_is_its_own() {
        let (membership, _) = membership();
        let (gone, other) = (Gone::default(), Gone::default());
        let batch = membership.of_batch(gone.clone());
        gone.add(&[3]);
        assert!(batch.has_lost(3) && !batch.has_lost(2));
        assert!(!membership.of_batch(other).has_lost(3));
    }
}

//! The fold: `apply` is total, commutative and idempotent.

use crate::{events::Event, state::ClaimState};

/// What folding one event did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// The state has changed (its revision went up by one).
    Changed {
        /// A step that the lifecycle doesn't foresee: applied all the same, to be reported.
        surprise: Option<Surprise>,
    },
    /// A copy of an event already folded; nothing changed.
    Copy,
    /// Another event already holds this version: superseded, not applied.
    Superseded,
}

/// A step that the lifecycle doesn't allow, seen in the facts of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surprise {
    /// What was odd, in words and without personal data.
    pub what: String,
}

impl ClaimState {
    /// The state of a claim of which nothing is known yet.
    pub fn empty(_tenant_id: &str, _claim_id: &str) -> Self {
        unimplemented!()
    }

    /// Folds one event of this claim into the state.
    pub fn apply(&mut self, _event: &Event) -> Applied {
        unimplemented!()
    }
}

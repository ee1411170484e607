//! From one row of a case to the next: which events bring the claim from where it stands to what the row says.

use claims_schemas::Status;

/// What a state of the source means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StateRule {
    /// The status that a claim in this state has.
    pub(super) status: Status,
    /// The kind of the note that says that a claim has come into this state.
    pub(super) note_kind: Option<String>,
}

/// What a row says of its case.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    /// The state by its name in the source.
    pub(super) state: &'a str,
    pub(super) rule: &'a StateRule,
    pub(super) assignee: Option<&'a str>,
}

/// Where the claim stands after the rows so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Standing {
    status: Option<Status>,
    state: String,
    has_note_kind: bool,
    assignee: Option<String>,
    last_assignee: Option<String>,
}

/// An event to make of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Create,
    Assign,
    Reassign { previous: Option<String> },
    Start,
    Resolve,
    Close,
    Reopen,
    Note { kind: String },
}

/// Kinds of the notes that rows may ask for beside those of states.
#[derive(Debug, Clone, Default)]
pub(super) struct NoteKinds {
    /// A claim leaves a state that has a note, and its status stays.
    pub(super) resumed: Option<String>,
    /// The assignee is taken away.
    pub(super) unassigned: Option<String>,
}

impl Standing {
    /// The steps that a row asks for; the claim then stands where the row says.
    ///
    /// No step is made up: a case whose first row is already resolved becomes created and resolved, and only a
    /// claim still CREATED is assigned in the sense of the lifecycle; an assignee who comes later is a
    /// reassignment, so that the status stays what the source says.
    pub(super) fn advance(&mut self, facts: Facts<'_>, kinds: &NoteKinds) -> Vec<Step> {
        let mut steps = Vec::new();
        let first = self.status.is_none();
        if first {
            steps.push(Step::Create);
            self.status = Some(Status::Created);
        }
        self.assign(facts.assignee, kinds, &mut steps);
        if first || self.state != facts.state {
            let before = self.status;
            self.come_into(facts.rule.status, &mut steps);
            if let Some(kind) = &facts.rule.note_kind {
                steps.push(Step::Note { kind: kind.clone() });
            } else if self.has_note_kind
                && self.status == before
                && let Some(kind) = &kinds.resumed
            {
                steps.push(Step::Note { kind: kind.clone() });
            }
            self.has_note_kind = facts.rule.note_kind.is_some();
            facts.state.clone_into(&mut self.state);
        }
        steps
    }

    fn assign(&mut self, assignee: Option<&str>, kinds: &NoteKinds, steps: &mut Vec<Step>) {
        if self.assignee.as_deref() == assignee {
            return;
        }
        match assignee {
            None => {
                if let Some(kind) = &kinds.unassigned {
                    steps.push(Step::Note { kind: kind.clone() });
                }
            }
            Some(_) if self.status == Some(Status::Created) && self.last_assignee.is_none() => {
                steps.push(Step::Assign);
                self.status = Some(Status::Assigned);
            }
            Some(_) => steps.push(Step::Reassign { previous: self.last_assignee.clone() }),
        }
        self.assignee = assignee.map(str::to_owned);
        if self.assignee.is_some() {
            self.last_assignee.clone_from(&self.assignee);
        }
    }

    fn come_into(&mut self, target: Status, steps: &mut Vec<Step>) {
        let step = match (self.status, target) {
            // There is no way back to CREATED or ASSIGNED.
            (_, Status::Created | Status::Assigned) => return,
            (now, target) if now == Some(target) => return,
            (Some(Status::Resolved | Status::Closed), Status::Processing) => Step::Reopen,
            (_, Status::Processing) => Step::Start,
            (_, Status::Resolved) => Step::Resolve,
            (_, Status::Closed) => Step::Close,
            (_, Status::Unknown | Status::Erased) => return,
        };
        steps.push(step);
        self.status = Some(target);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds() -> NoteKinds {
        NoteKinds { resumed: Some("resumed".into()), unassigned: Some("unassigned".into()) }
    }

    fn rule(state: &str) -> StateRule {
        let (status, note_kind) = match state {
            "New" => (Status::Created, None),
            "Active" => (Status::Processing, None),
            "Waiting" => (Status::Processing, Some("awaiting_customer".to_owned())),
            "Resolved" => (Status::Resolved, None),
            _ => (Status::Closed, None),
        };
        StateRule { status, note_kind }
    }

    fn walk(rows: &[(&str, &str)]) -> Vec<Vec<String>> {
        let mut standing = Standing::default();
        rows.iter()
            .map(|(state, assignee)| {
                let rule = rule(state);
                let assignee = (*assignee != "?").then_some(*assignee);
                let steps = standing.advance(Facts { state, rule: &rule, assignee }, &kinds());
                steps
                    .into_iter()
                    .map(|step| match step {
                        Step::Note { kind } => kind,
                        Step::Reassign { previous } => format!("Reassign from {previous:?}"),
                        other => format!("{other:?}"),
                    })
                    .collect()
            })
            .collect()
    }

    #[test]
    fn a_case_through_its_life() {
        let found = walk(&[
            ("New", "?"),
            ("New", "A"),
            ("Active", "A"),
            ("Waiting", "A"),
            ("Active", "A"),
            ("Active", "B"),
            ("Active", "B"),
            ("Resolved", "B"),
            ("Active", "B"),
            ("Resolved", "B"),
            ("Closed", "B"),
        ]);
        let expected: [&[&str]; 11] = [
            &["Create"],
            &["Assign"],
            &["Start"],
            &["awaiting_customer"],
            &["resumed"],
            &["Reassign from Some(\"A\")"],
            &[],
            &["Resolve"],
            &["Reopen"],
            &["Resolve"],
            &["Close"],
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_case_that_does_not_begin_as_new() {
        assert_eq!(
            walk(&[("Resolved", "A"), ("Closed", "A")]),
            [&["Create", "Assign", "Resolve"][..], &["Close"]]
        );
        assert_eq!(walk(&[("Waiting", "?")]), [["Create", "Start", "awaiting_customer"]]);
    }

    #[test]
    fn an_assignee_who_comes_late_or_comes_back_leaves_the_status_alone() {
        let found = walk(&[("Active", "?"), ("Active", "A"), ("Active", "?"), ("Active", "A")]);
        let expected: [&[&str]; 4] =
            [&["Create", "Start"], &["Reassign from None"], &["unassigned"], &["Reassign from Some(\"A\")"]];
        assert_eq!(found, expected);
    }

    #[test]
    fn waiting_after_the_resolution_is_a_reopening() {
        assert_eq!(walk(&[("Resolved", "?"), ("Waiting", "?")])[1], ["Reopen", "awaiting_customer"]);
    }
}

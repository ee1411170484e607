//! One row per change of a case: what differs from the row before makes the events. A case is held as a whole, so
//! its rows must stand together in the file; different cases may come in any order.

use super::{
    MappingError,
    case_per_row::data_keys,
    data::DataPlan,
    keys::Keys,
    spec::{Compiler, MappedFile, RowView},
    transitions::{Facts, NoteKinds, Standing, StateRule, Step},
    value::{Text, Time, missing},
};
use crate::{
    records::Emitted,
    rejects::{Reject, RowError, reason},
    source::{
        Batch, RowSource, SourceError, Step as ReadStep,
        csv_rows::{CsvRecord, Next},
    },
};
use claims_schemas::{
    Event, EventData, EventType, Status, Timestamp,
    events::{ClaimAssigned, ClaimNoteAdded, ClaimReassigned},
};
use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
};
use uuid::Uuid;

const DEFAULT_VERSIONS_PER_ROW: u64 = 16;
const DEFAULT_MAX_ROWS_PER_CASE: u64 = 10_000;
/// A case's rows held at once, in bytes.
const MAX_CASE_BYTES: usize = 64 * 1024 * 1024;
/// Cases of which it is remembered that they are done, 8 bytes each, to find rows that stand apart.
const MAX_CASES_REMEMBERED: usize = 4_000_000;

/// In which order the rows of a case happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// As their sequence numbers say; equal ones by time, then by place.
    Sequence,
    /// As they stand in the file.
    File,
}

/// The rules.
#[derive(Debug, Clone)]
pub(super) struct ChangePlan {
    id: Text,
    sequence: usize,
    sequence_name: String,
    order: Order,
    versions_per_row: u64,
    max_rows: usize,
    at: Time,
    user: Option<Text>,
    created_at: Option<Time>,
    state: usize,
    state_name: String,
    states: HashMap<String, StateRule>,
    note_kinds: NoteKinds,
    assignee: Option<AssigneePlan>,
    data: HashMap<EventType, DataPlan>,
}

#[derive(Debug, Clone)]
struct AssigneePlan {
    id: Text,
    name: Option<Text>,
    reason: Option<Text>,
}

impl ChangePlan {
    pub(super) fn read(compiler: &Compiler<'_>, keys: &mut Keys) -> Result<Self, MappingError> {
        let mut case = keys.required_table("case")?;
        let sequence_name = case.required_text("sequence")?;
        let order = match case.text("order")?.as_deref() {
            None | Some("sequence") => Order::Sequence,
            Some("file") => Order::File,
            Some(_) => return Err(case.error("order", "must be \"sequence\" or \"file\"")),
        };
        let mut state = keys.required_table("state")?;
        let state_name = state.required_text("column")?;
        let mut note_kinds = NoteKinds { resumed: state.text("resumed_note_kind")?, unassigned: None };
        let assignee = AssigneePlan::read(compiler, keys, &mut note_kinds)?;
        let mut created = keys.required_table("created")?;
        let max_rows = case.number("max_rows", 1, 1_000_000)?.unwrap_or(DEFAULT_MAX_ROWS_PER_CASE);
        let mut plan = Self {
            id: Text::required(compiler, &mut case, "id")?,
            sequence: compiler.column(&case.path("sequence"), &sequence_name)?,
            sequence_name,
            order,
            versions_per_row: case.number("versions_per_row", 4, 1_000)?.unwrap_or(DEFAULT_VERSIONS_PER_ROW),
            max_rows: max_rows as usize,
            at: Time::required(compiler, &mut case, "at")?,
            user: Text::read(compiler, &mut case, "user")?,
            created_at: Time::read(compiler, &mut created, "at")?,
            state: compiler.column(&state.path("column"), &state_name)?,
            state_name,
            states: read_states(state.required_table("values")?)?,
            note_kinds,
            assignee,
            data: HashMap::new(),
        };
        let created_data = DataPlan::read(compiler, EventType::ClaimCreated, data_keys(&mut created)?)?;
        plan.data.insert(EventType::ClaimCreated, created_data);
        case.finish()?;
        state.finish()?;
        created.finish()?;
        plan.read_data(compiler, keys)?;
        Ok(plan)
    }

    /// The data of the event types that the states lead to.
    fn read_data(&mut self, compiler: &Compiler<'_>, keys: &mut Keys) -> Result<(), MappingError> {
        let path = keys.path("data");
        let mut data = keys.table("data")?.unwrap_or_else(|| Keys::new(&path, toml::Table::new()));
        let leads_to = |status| self.states.values().any(|rule| rule.status == status);
        let notes = self.states.values().any(|rule| rule.note_kind.is_some())
            || self.note_kinds.resumed.is_some()
            || self.note_kinds.unassigned.is_some();
        let mut plans = HashMap::new();
        for (event_type, used, key) in [
            (EventType::ClaimProcessingStarted, leads_to(Status::Processing), "ClaimProcessingStarted"),
            (EventType::ClaimResolved, leads_to(Status::Resolved), "ClaimResolved"),
            (EventType::ClaimClosed, leads_to(Status::Closed), "ClaimClosed"),
            (EventType::ClaimReopened, leads_to(Status::Processing), "ClaimReopened"),
            (EventType::ClaimNoteAdded, notes, "ClaimNoteAdded"),
        ] {
            let given = data.has(key);
            if !used && !given {
                continue;
            }
            let own =
                data.table(key)?.unwrap_or_else(|| Keys::new(&format!("{path}.{key}"), toml::Table::new()));
            plans.insert(event_type, DataPlan::read(compiler, event_type, own)?);
        }
        data.finish()?;
        self.data.extend(plans);
        Ok(())
    }
}

impl AssigneePlan {
    fn read(
        compiler: &Compiler<'_>,
        keys: &mut Keys,
        note_kinds: &mut NoteKinds,
    ) -> Result<Option<Self>, MappingError> {
        let Some(mut own) = keys.table("assignee")? else { return Ok(None) };
        note_kinds.unassigned = own.text("unassigned_note_kind")?;
        let plan = Self {
            id: Text::required(compiler, &mut own, "id")?,
            name: Text::read(compiler, &mut own, "name")?,
            reason: Text::read(compiler, &mut own, "reason")?,
        };
        own.finish()?;
        Ok(Some(plan))
    }
}

fn read_states(keys: Keys) -> Result<HashMap<String, StateRule>, MappingError> {
    let mut states = HashMap::new();
    for (name, mut state) in keys.into_tables()? {
        let status = match state.required_text("status")?.to_ascii_lowercase().as_str() {
            "created" => Status::Created,
            "assigned" => Status::Assigned,
            "processing" | "in_progress" => Status::Processing,
            "resolved" => Status::Resolved,
            "closed" => Status::Closed,
            _ => {
                let problem = "must be created, assigned, processing (or in_progress), resolved or closed";
                return Err(state.error("status", problem));
            }
        };
        let note_kind = state.text("note_kind")?;
        state.finish()?;
        states.insert(name, StateRule { status, note_kind });
    }
    Ok(states)
}

/// A row of the case at hand, its place in the case known.
struct Row {
    record: CsvRecord,
    sequence: u64,
    at: Timestamp,
    assignee: Option<String>,
}

/// Reads such a file, case by case.
pub(super) struct ChangePerRow {
    file: MappedFile,
    plan: ChangePlan,
    record: CsvRecord,
    case: String,
    rows: Vec<CsvRecord>,
    case_bytes: usize,
    done: HashSet<u64, BuildHasherDefault<DefaultHasher>>,
    ended: bool,
}

impl ChangePerRow {
    pub(super) fn new(file: MappedFile, plan: ChangePlan) -> Self {
        Self {
            file,
            plan,
            record: CsvRecord::default(),
            case: String::new(),
            rows: Vec::new(),
            case_bytes: 0,
            done: HashSet::default(),
            ended: false,
        }
    }

    /// Takes the row just read: into the case at hand, as the first of the next one, or not at all.
    fn take_row(&mut self, batch: &mut Batch, step: ReadStep) {
        let id = match self.plan.id.needed(&RowView::new(&self.record, &self.file.csv)) {
            Ok(id) => id,
            Err(error) => {
                self.refuse(error, batch);
                return;
            }
        };
        if self.rows.is_empty() || id != self.case {
            self.finish_case(batch, step);
            if step.stop_at_reject && !batch.rejects.is_empty() {
                return;
            }
            let hash = self.done.hasher().hash_one(&id);
            if self.done.contains(&hash) {
                let detail = "other cases stand between rows of this case: sort the file by case";
                self.refuse(RowError::new(reason::CASE_NOT_CONTIGUOUS, detail), batch);
                return;
            }
            self.case = id;
        }
        if self.rows.len() >= self.plan.max_rows || self.case_bytes > MAX_CASE_BYTES {
            let detail = format!("the case has more than {} rows (case.max_rows)", self.plan.max_rows);
            self.refuse(RowError::new(reason::TOO_MANY, detail), batch);
            return;
        }
        self.case_bytes += 2 * self.record.raw.len();
        self.rows.push(self.record.clone());
    }

    fn refuse(&self, error: RowError, batch: &mut Batch) {
        batch.count_row(self.record.raw.len());
        batch.rejects.push(error.at(self.record.line, &self.record.raw));
    }

    /// Makes the events of the case at hand. Where the first refused row ends the step, a case with such a row is
    /// left out as a whole: which events its other rows make, and how they are numbered, depends on all of its rows.
    fn finish_case(&mut self, batch: &mut Batch, step: ReadStep) {
        let records = std::mem::take(&mut self.rows);
        if records.is_empty() {
            return;
        }
        self.case_bytes = 0;
        if self.done.len() < MAX_CASES_REMEMBERED {
            self.done.insert(self.done.hasher().hash_one(&self.case));
        }
        let before = (batch.events.len(), batch.rejects.len(), batch.rows_read, batch.rows_without_change);
        for record in &records {
            batch.count_row(record.raw.len());
        }
        let mut rows = Vec::with_capacity(records.len());
        for record in records {
            match self.plan.row(&RowView::new(&record, &self.file.csv)) {
                Ok((sequence, at, assignee)) => rows.push(Row { record, sequence, at, assignee }),
                Err(error) => batch.rejects.push(error.at(record.line, &record.raw)),
            }
        }
        put_in_order(&mut rows, self.plan.order);
        self.emit(&rows, batch);
        let (events, rejects, rows_read, rows_without_change) = before;
        if step.stop_at_reject && batch.rejects.len() > rejects {
            batch.events.truncate(events);
            batch.rows_without_change = rows_without_change;
            let first = batch.rejects.drain(rejects..).min_by_key(|reject| reject.line);
            batch.rejects.extend(first);
            batch.rows_read = rows_read + 1;
        }
    }

    fn emit(&mut self, rows: &[Row], batch: &mut Batch) {
        let mut standing = Standing::default();
        let mut band = (0, 0);
        for row in rows {
            if band.0 != row.sequence {
                band = (row.sequence, 0);
            }
            let before = batch.events.len();
            let mut next = standing.clone();
            match self.row_events(row, &mut next, band.1, &mut batch.events) {
                Ok(()) => {
                    standing = next;
                    let events = batch.events.len() - before;
                    band.1 += events as u64;
                    batch.rows_without_change += u64::from(events == 0);
                }
                Err(reject) => {
                    batch.events.truncate(before);
                    batch.rejects.push(reject);
                }
            }
        }
    }

    fn row_events(
        &mut self,
        row: &Row,
        standing: &mut Standing,
        used_versions: u64,
        events: &mut Emitted,
    ) -> Result<(), Reject> {
        let csv = self.file.csv.clone();
        let view = RowView::new(&row.record, &csv);
        let mut make = || {
            let (state, rule) = self.plan.state(&view)?;
            let facts = Facts { state, rule, assignee: row.assignee.as_deref() };
            let steps = standing.advance(facts, &self.plan.note_kinds);
            for (slot, step) in (used_versions + 1..).zip(steps) {
                let event = self.event(&view, row, slot, step)?;
                events.push(event);
            }
            Ok(())
        };
        make().map_err(|error: RowError| error.at(row.record.line, &row.record.raw))
    }

    fn event(&mut self, view: &RowView<'_>, row: &Row, slot: u64, step: Step) -> Result<Event, RowError> {
        let plan = &self.plan;
        if slot > plan.versions_per_row {
            let detail = "more events for one sequence number than case.versions_per_row";
            return Err(RowError::of(reason::TOO_MANY, &plan.sequence_name, detail));
        }
        let version = row.sequence.checked_mul(plan.versions_per_row).and_then(|v| v.checked_add(slot));
        let version = version
            .ok_or_else(|| RowError::of(reason::INVALID_VALUE, &plan.sequence_name, "is too large"))?;
        let occurred_at = match (&step, &plan.created_at) {
            (Step::Create, Some(time)) => time.optional(view)?.unwrap_or(row.at),
            _ => row.at,
        };
        let completer = &mut self.file.completer;
        let event = Event {
            tenant_id: completer.default_tenant().to_owned(),
            event_id: Uuid::nil(),
            claim_id: self.case.clone(),
            version,
            occurred_at,
            recorded_at: completer.now(),
            correlation_id: self.case.clone(),
            causation_id: None,
            user_id: plan.user.as_ref().map(|user| user.optional(view)).transpose()?.flatten(),
            source: Some(self.file.head.source.clone()),
            data: plan.data(view, row, step)?,
        };
        completer.identify(event)
    }
}

/// Rows in the order in which they happened, sequence numbers never falling: where they fall in the file, the
/// earlier rows take the later, lower one. (Some exports give the first row of a case a number of a later change.)
fn put_in_order(rows: &mut [Row], order: Order) {
    if order == Order::Sequence {
        rows.sort_by_key(|row| (row.sequence, row.at, row.record.line));
    }
    let mut lowest = u64::MAX;
    for row in rows.iter_mut().rev() {
        lowest = lowest.min(row.sequence);
        row.sequence = lowest;
    }
}

impl ChangePlan {
    /// What orders a row within its case, and its assignee.
    fn row(&self, row: &RowView<'_>) -> Result<(u64, Timestamp, Option<String>), RowError> {
        let sequence = row.get(self.sequence).ok_or_else(|| missing(&self.sequence_name))?;
        let sequence = sequence.parse().map_err(|_| {
            RowError::of(reason::INVALID_VALUE, &self.sequence_name, "must be a whole number from 0")
        })?;
        let at = self.at.needed(row)?;
        self.state(row)?;
        let assignee = match &self.assignee {
            Some(plan) => plan.id.optional(row)?,
            None => None,
        };
        Ok((sequence, at, assignee))
    }

    fn state<'a>(&'a self, row: &RowView<'a>) -> Result<(&'a str, &'a StateRule), RowError> {
        let state = row.get(self.state).ok_or_else(|| missing(&self.state_name))?;
        match self.states.get(state) {
            Some(rule) => Ok((state, rule)),
            None => {
                let detail = "the state is not listed under state.values";
                Err(RowError::of(reason::UNMAPPED_VALUE, &self.state_name, detail))
            }
        }
    }

    fn data(&self, view: &RowView<'_>, row: &Row, step: Step) -> Result<EventData, RowError> {
        match step {
            Step::Create => self.planned(EventType::ClaimCreated, view),
            Step::Start => self.planned(EventType::ClaimProcessingStarted, view),
            Step::Resolve => self.planned(EventType::ClaimResolved, view),
            Step::Close => self.planned(EventType::ClaimClosed, view),
            Step::Reopen => self.planned(EventType::ClaimReopened, view),
            Step::Note { kind } => match self.planned(EventType::ClaimNoteAdded, view)? {
                EventData::ClaimNoteAdded(note) => Ok(ClaimNoteAdded { kind: Some(kind), ..note }.into()),
                other => Ok(other),
            },
            Step::Assign => {
                let (agent_id, agent_name, reason) = self.agent(view, row)?;
                Ok(ClaimAssigned {
                    agent_id,
                    agent_name,
                    assignment_reason: reason,
                    estimated_resolution_time: None,
                }
                .into())
            }
            Step::Reassign { previous } => {
                let (agent_id, agent_name, reason) = self.agent(view, row)?;
                Ok(ClaimReassigned { agent_id, agent_name, previous_agent_id: previous, reason }.into())
            }
        }
    }

    fn planned(&self, event_type: EventType, view: &RowView<'_>) -> Result<EventData, RowError> {
        match self.data.get(&event_type) {
            Some(plan) => plan.get(view),
            None => Err(RowError::new(
                reason::UNMAPPED_VALUE,
                format!("the mapping says nothing of {event_type}"),
            )),
        }
    }

    fn agent(&self, view: &RowView<'_>, row: &Row) -> Result<(String, String, Option<String>), RowError> {
        let id = row.assignee.clone().unwrap_or_default();
        let Some(plan) = &self.assignee else { return Ok((id.clone(), id, None)) };
        let name = plan.name.as_ref().map(|name| name.optional(view)).transpose()?.flatten();
        let reason = plan.reason.as_ref().map(|reason| reason.optional(view)).transpose()?.flatten();
        Ok((id.clone(), name.unwrap_or(id), reason))
    }
}

impl RowSource for ChangePerRow {
    fn fill(&mut self, batch: &mut Batch, step: ReadStep) -> Result<bool, SourceError> {
        self.file.completer.read_clock();
        while !self.ended && !step.is_over(batch) {
            match self.file.reader.next_record(&mut self.record)? {
                Next::Record => self.take_row(batch, step),
                Next::Reject(reject) => {
                    batch.count_row(reject.payload.len());
                    batch.rejects.push(reject);
                }
                Next::End => {
                    self.finish_case(batch, step);
                    self.ended = true;
                }
            }
        }
        Ok(!self.ended)
    }
}

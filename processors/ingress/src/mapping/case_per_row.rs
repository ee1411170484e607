//! One row per case: rules make events out of its columns.

use super::{
    MappingError,
    data::DataPlan,
    keys::Keys,
    spec::{Compiler, Head, MappedFile, RowView},
    value::{Condition, Text, Time},
};
use crate::{
    envelope::Completer,
    records::Emitted,
    rejects::RowError,
    source::{
        Batch, RowSource, SourceError, Step,
        csv_rows::{CsvRecord, Next},
    },
};
use claims_schemas::Event;
use uuid::Uuid;

/// Versions that rules may use.
const MAX_VERSION: u64 = 1_000_000;

/// The rules.
#[derive(Debug, Clone)]
pub(super) struct CasePlan {
    id: Text,
    user: Option<Text>,
    rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
struct Rule {
    /// Constant per rule, so that a later export with one more event continues this one.
    version: u64,
    at: Time,
    when: Vec<Condition>,
    user: Option<Text>,
    data: DataPlan,
}

impl CasePlan {
    pub(super) fn read(compiler: &Compiler<'_>, keys: &mut Keys) -> Result<Self, MappingError> {
        let mut case = keys.required_table("case")?;
        let id = Text::required(compiler, &mut case, "id")?;
        let user = Text::read(compiler, &mut case, "user")?;
        case.finish()?;
        let rules = match keys.take("event") {
            Some(toml::Value::Array(rules)) if !rules.is_empty() => rules,
            _ => return Err(keys.error("event", "at least one [[event]] is needed")),
        };
        let mut plan = Self { id, user, rules: Vec::new() };
        for (i, rule) in rules.into_iter().enumerate() {
            let path = format!("event[{}]", i + 1);
            let toml::Value::Table(table) = rule else {
                return Err(MappingError { key: path, problem: "must be a table: [[event]]".into() });
            };
            let rule = Rule::read(compiler, Keys::new(&path, table))?;
            if plan.rules.last().is_some_and(|before| before.version >= rule.version) {
                let problem =
                    "must be greater than the version of the rule before: versions order a case's events";
                return Err(MappingError { key: format!("{path}.version"), problem: problem.into() });
            }
            plan.rules.push(rule);
        }
        Ok(plan)
    }

    /// All events of a row, or the reason why it has none.
    fn events(
        &self,
        row: &RowView<'_>,
        head: &Head,
        completer: &mut Completer,
        events: &mut Emitted,
    ) -> Result<(), RowError> {
        let claim_id = self.id.needed(row)?;
        let user = self.user.as_ref().map(|user| user.optional(row)).transpose()?.flatten();
        for rule in &self.rules {
            if !rule.when.iter().all(|condition| condition.holds(row)) {
                continue;
            }
            let user_id = match &rule.user {
                Some(own) => own.optional(row)?,
                None => user.clone(),
            };
            let event = Event {
                tenant_id: completer.default_tenant().to_owned(),
                event_id: Uuid::nil(),
                claim_id: claim_id.clone(),
                version: rule.version,
                occurred_at: rule.at.needed(row)?,
                recorded_at: completer.now(),
                correlation_id: claim_id.clone(),
                causation_id: None,
                user_id,
                source: Some(head.source.clone()),
                data: rule.data.get(row)?,
            };
            events.push(completer.identify(event)?);
        }
        Ok(())
    }
}

impl Rule {
    fn read(compiler: &Compiler<'_>, mut keys: Keys) -> Result<Self, MappingError> {
        let event_type = keys.required_text("type")?;
        let event_type = event_type.parse().map_err(|error: claims_schemas::events::UnknownEventType| {
            keys.error("type", error.to_string())
        })?;
        let version = keys.number("version", 1, MAX_VERSION)?.ok_or_else(|| {
            keys.error("version", "is missing: the place of this event among those of its case")
        })?;
        let rule = Self {
            version,
            at: Time::required(compiler, &mut keys, "at")?,
            when: Condition::read_all(compiler, &mut keys)?,
            user: Text::read(compiler, &mut keys, "user")?,
            data: DataPlan::read(compiler, event_type, data_keys(&mut keys)?)?,
        };
        keys.finish()?;
        Ok(rule)
    }
}

/// The `data` table; none is an empty one, which suits events without a needed field.
pub(super) fn data_keys(keys: &mut Keys) -> Result<Keys, MappingError> {
    let path = keys.path("data");
    Ok(keys.table("data")?.unwrap_or_else(|| Keys::new(&path, toml::Table::new())))
}

/// Reads such a file.
pub(super) struct CasePerRow {
    file: MappedFile,
    plan: CasePlan,
    record: CsvRecord,
}

impl CasePerRow {
    pub(super) fn new(file: MappedFile, plan: CasePlan) -> Self {
        Self { file, plan, record: CsvRecord::default() }
    }
}

impl RowSource for CasePerRow {
    fn fill(&mut self, batch: &mut Batch, step: Step) -> Result<bool, SourceError> {
        let MappedFile { reader, head, csv, completer } = &mut self.file;
        completer.read_clock();
        while !step.is_over(batch) {
            match reader.next_record(&mut self.record)? {
                Next::End => return Ok(false),
                Next::Reject(reject) => {
                    batch.count_row(reject.payload.len());
                    batch.rejects.push(reject);
                }
                Next::Record => {
                    batch.count_row(self.record.raw.len());
                    let row = RowView::new(&self.record, csv);
                    let before = batch.events.len();
                    // A row is taken as a whole or not at all.
                    if let Err(error) = self.plan.events(&row, head, completer, &mut batch.events) {
                        batch.events.truncate(before);
                        batch.rejects.push(error.at(self.record.line, &self.record.raw));
                    } else if batch.events.len() == before {
                        batch.rows_without_change += 1;
                    }
                }
            }
        }
        Ok(true)
    }
}

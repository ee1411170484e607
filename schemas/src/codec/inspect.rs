//! Looks through the bytes of a newer writer's record for what this build doesn't know.
//!
//! Steps over the datum without building anything, checks every length against what is left, and ends with the
//! bytes: so a damaged record is told from a new one.

use super::{
    DecodeError, MAX_DEPTH,
    evolution::{Plan, Step},
};

/// Looks for unknown content in the Avro body of a record. Damage outranks novelty: a record that is not even
/// whole would not become readable by an upgrade.
pub(super) fn inspect(plan: &Plan, body: &[u8]) -> Result<(), DecodeError> {
    let mut walker = Walker { steps: &plan.steps, rest: body, unknown: None };
    walker.walk(plan.root, MAX_DEPTH).map_err(|damage| DecodeError::Malformed(damage.to_owned()))?;
    if !walker.rest.is_empty() {
        return Err(DecodeError::Malformed(super::TRAILING_BYTES.to_owned()));
    }
    walker.unknown.map_or(Ok(()), |unknown| Err(DecodeError::UpgradeNeeded(unknown.to_owned())))
}

struct Walker<'a> {
    steps: &'a [Step],
    rest: &'a [u8],
    /// The first unknown thing met.
    unknown: Option<&'a str>,
}

type Walk<T> = Result<T, &'static str>;

const CUT_OFF: &str = "the record ends in the middle of a value";

impl<'a> Walker<'a> {
    fn walk(&mut self, step: usize, depth: usize) -> Walk<()> {
        let depth = depth.checked_sub(1).ok_or("the record is nested too deeply")?;
        match self.steps.get(step).ok_or("the schema refers to nothing")? {
            Step::Nothing => Ok(()),
            Step::Boolean => self.skip(1),
            Step::Varint => self.varint().map(drop),
            Step::Fixed(bytes) => self.skip(*bytes),
            Step::Blob => self.blob(),
            Step::Array(items) => self.blocks(|walker| walker.walk(*items, depth)),
            Step::Map(values) => self.blocks(|walker| {
                walker.blob()?;
                walker.walk(*values, depth)
            }),
            Step::Union(branches) => {
                let branch = self.pick(branches).ok_or("no such branch in a union")?;
                self.note(branch.unknown.as_deref());
                self.walk(branch.step, depth)
            }
            Step::Enum(symbols) => {
                let symbol = self.pick(symbols).ok_or("no such symbol in an enum")?;
                self.note(symbol.as_deref());
                Ok(())
            }
            Step::Record(fields) => {
                for field in fields {
                    let before = self.rest;
                    self.walk(field.step, depth)?;
                    let Some(unknown) = &field.unknown else { continue };
                    let written = before.get(..before.len() - self.rest.len());
                    if unknown.default.as_deref() != written {
                        self.note(Some(&unknown.says));
                    }
                }
                Ok(())
            }
        }
    }

    fn note(&mut self, unknown: Option<&'a str>) {
        self.unknown = self.unknown.or(unknown);
    }

    fn skip(&mut self, bytes: usize) -> Walk<()> {
        self.rest = self.rest.get(bytes..).ok_or(CUT_OFF)?;
        Ok(())
    }

    fn blob(&mut self) -> Walk<()> {
        let length = usize::try_from(self.varint()?).map_err(|_| "a length is negative")?;
        self.skip(length)
    }

    fn pick<T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(usize::try_from(self.varint().ok()?).ok()?)
    }

    /// Blocks of items, each with its count before it, until one of none. A negative count has the block's length
    /// in bytes after it, which is not needed.
    fn blocks(&mut self, mut item: impl FnMut(&mut Self) -> Walk<()>) -> Walk<()> {
        loop {
            let count = self.varint()?;
            if count < 0 {
                self.varint()?;
            }
            let count = count.unsigned_abs();
            if count == 0 {
                return Ok(());
            }
            // Items take a byte each at least, or say nothing.
            if count > self.rest.len() as u64 {
                return Err(CUT_OFF);
            }
            for _ in 0..count {
                item(self)?;
            }
        }
    }

    fn varint(&mut self) -> Walk<i64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or(CUT_OFF)?;
            self.rest = rest;
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        Err("a number is longer than 64 bits")
    }
}

#[cfg(test)]
mod tests {
    use super::{super::*, inspect};
    use crate::events::*;
    use evolution::{Reading, compare};
    use uuid::Uuid;

    const OLDER: &str = include_str!("../../tests/it/fixtures/claim_event_older.avsc");

    fn event(data: impl Into<EventData>) -> Event {
        Event {
            tenant_id: "acme".into(),
            event_id: Uuid::nil(),
            claim_id: "c".into(),
            version: 1,
            occurred_at: Timestamp(1),
            recorded_at: Timestamp(2),
            correlation_id: "x".into(),
            causation_id: None,
            user_id: Some("u".into()),
            source: None,
            data: data.into(),
        }
    }

    /// A build of the older schema in front of a record of this one.
    fn older_build(event: &Event) -> Result<(), DecodeError> {
        let parse = |schema: &str| apache_avro::Schema::parse_str(schema).unwrap();
        // Its version was an int, which reads no long; everything else may stand.
        let older = OLDER.replace(r#""version", "type": "int""#, r#""version", "type": "long""#);
        let Reading::Inspect(plan) = compare(&parse(&older), &parse(CLAIM_EVENT_SCHEMA)) else {
            panic!("this build's schema goes beyond the older one and must stay readable")
        };
        let mut value = Vec::new();
        encode(event, 1, &mut value).unwrap();
        inspect(&plan, &value[FRAME_BYTES..])
    }

    #[test]
    fn an_older_build_reads_this_ones_records_until_they_say_something_new() {
        let assigned = ClaimAssigned {
            agent_id: "a".into(),
            agent_name: "A".into(),
            assignment_reason: None,
            estimated_resolution_time: None,
        };
        assert_eq!(older_build(&event(assigned.clone())), Ok(()));
        assert_eq!(older_build(&event(ClaimClosed { closed_by: None, reason: Some("r".into()) })), Ok(()));

        let upgrade = |what: &str| Err(DecodeError::UpgradeNeeded(what.into()));
        let reasoned = ClaimAssigned { assignment_reason: Some("r".into()), ..assigned.clone() };
        assert_eq!(older_build(&event(reasoned)), upgrade("data.assignment_reason is set"));
        let from_crm = Event { source: Some("crm".into()), ..event(assigned) };
        assert_eq!(older_build(&from_crm), upgrade("source is set"));
        assert_eq!(older_build(&event(ClaimReopened::default())), upgrade("data is a ClaimReopened"));
    }

    #[test]
    fn equal_and_older_schemas_need_no_inspection() {
        let parse = |schema: &str| apache_avro::Schema::parse_str(schema).unwrap();
        let ours = parse(CLAIM_EVENT_SCHEMA);
        assert!(matches!(compare(&ours, &ours), Reading::Plain));
        assert!(matches!(compare(&ours, &parse(OLDER)), Reading::Plain));
        let state = parse(CLAIM_STATE_SCHEMA);
        assert!(matches!(compare(&state, &state), Reading::Plain));
    }
}

//! What is kept of a claim between batches: its state, and what is needed to overwrite every earlier row of it.

use crate::{fields::FieldSet, places::Values};
use claims_schemas::{
    ClaimState, EventView, Text, Timestamp, fold::Applied, state::SeenVersion, text::heap_bytes,
};
use smallvec::SmallVec;

/// A claim as the local store holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    /// The state that the fold made.
    pub state: ClaimState,
    /// The columns that any row of the claim may hold a value in.
    pub ever_set: FieldSet,
    /// The values that any row of the claim may have stood under.
    pub history: Values,
    /// Whether an event arrived after one with a higher version. Before a compaction such a claim may have passed
    /// through its events in another order, and stood elsewhere at a higher revision than this store has seen; all its
    /// earlier places are then deleted with every write.
    pub disordered: bool,
}

/// Why the bytes of a stored claim can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a claim in the local store can't be read: {0}")]
pub struct UnreadableClaim(pub String);

/// First byte of a stored claim.
const FORMAT: u8 = 1;

impl Claim {
    /// A claim of which nothing is known yet.
    pub fn empty(tenant_id: &str, claim_id: &str) -> Self {
        Self {
            state: ClaimState::empty(tenant_id, claim_id),
            ever_set: FieldSet::default(),
            history: Values::default(),
            disordered: false,
        }
    }

    /// Folds one event; on anything but a change the claim is as before.
    pub fn apply(&mut self, event: &EventView<'_>) -> Applied {
        let newest = self.state.version();
        let applied = self.state.apply_view(event);
        if let Applied::Changed { .. } = applied {
            self.ever_set.add_event(event);
            self.history.add_event(event);
            // Before its creation is known a claim stands among those of no date.
            self.history.add_state(&self.state);
            if event.version < newest && !self.disordered {
                self.disordered = true;
                self.history.add_unknown();
            }
        }
        applied
    }

    /// About how much memory it holds, in bytes.
    pub fn approximate_bytes(&self) -> usize {
        let state = &self.state;
        let texts = [
            &state.customer_id.value,
            &state.customer_name.value,
            &state.customer_email.value,
            &state.claim_type.value,
            &state.title.value,
            &state.description.value,
            &state.product_id.value,
            &state.order_id.value,
            &state.agent_id.value,
            &state.agent_name.value,
            &state.resolution.value,
            &state.resolution_type.value,
            &state.customer_satisfaction.value,
            &state.replacement_tracking.value,
            &state.source,
        ];
        size_of::<Self>()
            + heap_bytes(&state.tenant_id)
            + heap_bytes(&state.claim_id)
            + texts.iter().map(|text| text.as_ref().map_or(0, heap_bytes)).sum::<usize>()
            + if state.seen.spilled() { state.seen.capacity() * size_of::<SeenVersion>() } else { 0 }
            + self.history.heap_bytes()
    }

    /// The claim as bytes: format, flags, columns, history, state.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        self.write_bytes(&mut out);
        out
    }

    /// Appends the claim as bytes.
    pub fn write_bytes(&self, out: &mut Vec<u8>) {
        out.push(FORMAT);
        out.push(u8::from(self.disordered));
        out.extend(self.ever_set.0.to_le_bytes());
        out.push(self.history.statuses);
        put_len(out, self.history.created.len());
        for created in &self.history.created {
            out.push(u8::from(created.is_some()));
            out.extend(created.map_or(0, |at| at.0).to_le_bytes());
        }
        for values in [self.history.agents.as_slice(), self.history.customers.as_slice()] {
            put_len(out, values.len());
            for value in values {
                put_len(out, value.len());
                out.extend(value.as_bytes());
            }
        }
        self.state.write_bytes(out);
    }

    /// The claim from what [`to_bytes`](Self::to_bytes) made.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, UnreadableClaim> {
        let mut input = Input(bytes);
        let format = input.byte()?;
        if format != FORMAT {
            return Err(UnreadableClaim(format!("format {format}, this build knows {FORMAT}")));
        }
        let disordered = input.byte()? != 0;
        let ever_set = FieldSet(u32::from_le_bytes(input.array()?));
        let mut history = Values { statuses: input.byte()?, ..Values::default() };
        for _ in 0..input.len()? {
            let known = input.byte()? != 0;
            let at = Timestamp(i64::from_le_bytes(input.array()?));
            history.created.push(known.then_some(at));
        }
        history.agents = input.texts()?;
        history.customers = input.texts()?;
        let state = ClaimState::from_bytes(input.0).map_err(|e| UnreadableClaim(e.to_string()))?;
        Ok(Self { state, ever_set, history, disordered })
    }
}

/// Lengths are below 65,536: values are validated and their number is bounded.
fn put_len(out: &mut Vec<u8>, len: usize) {
    out.extend((len as u16).to_le_bytes());
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], UnreadableClaim> {
        let (head, rest) =
            self.0.split_at_checked(len).ok_or_else(|| UnreadableClaim("it is cut off".into()))?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], UnreadableClaim> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn byte(&mut self) -> Result<u8, UnreadableClaim> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn len(&mut self) -> Result<u16, UnreadableClaim> {
        self.array().map(u16::from_le_bytes)
    }

    fn texts<const N: usize>(&mut self) -> Result<SmallVec<[Text; N]>, UnreadableClaim> {
        (0..self.len()?)
            .map(|_| {
                let len = self.len()?;
                let bytes = self.take(usize::from(len))?;
                std::str::from_utf8(bytes).map(Text::new).map_err(|e| UnreadableClaim(e.to_string()))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_back() {
        let mut claim = Claim::empty("t", "c");
        claim.disordered = true;
        claim.ever_set = FieldSet(0x01ff_00ff);
        claim.history.add_unknown();
        claim.history.created.push(Some(Timestamp(-5)));
        claim.history.agents.push("é".into());
        claim.history.customers.push(Text::default());
        let bytes = claim.to_bytes();
        assert_eq!(Claim::from_bytes(&bytes), Ok(claim));
        for cut in 0..bytes.len() {
            assert!(Claim::from_bytes(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn another_format_is_refused() {
        let mut bytes = Claim::empty("t", "c").to_bytes();
        bytes[0] = 9;
        assert!(Claim::from_bytes(&bytes).unwrap_err().to_string().contains("format 9"));
    }
}

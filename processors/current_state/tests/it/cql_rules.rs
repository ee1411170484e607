//! The tables in memory, for tests that need very many of them.

use claims_current_state::{
    ClaimWrite,
    fields::FieldSet,
    places::{Place, places},
};
use claims_schemas::EventType;
use std::collections::{BTreeMap, BTreeSet};

/// Tables with the rules of CQL: the higher stamp wins, a delete wins a tie, and of two values the greater.
#[derive(Default)]
pub struct Tables {
    rows: BTreeMap<RowKey, Row>,
    timelines: BTreeMap<(String, u64), (i64, String)>,
    erased: BTreeMap<String, i64>,
}

/// Table, partition and clustering key.
pub type RowKey = (&'static str, String);

#[derive(Default)]
struct Row {
    deleted: i64,
    marker: i64,
    cells: BTreeMap<&'static str, (i64, Option<String>)>,
}

impl Row {
    fn write(&mut self, stamp: i64, cells: &[(&'static str, Option<String>)]) {
        self.marker = self.marker.max(stamp);
        for (name, value) in cells {
            let cell = self.cells.entry(name).or_insert((0, None));
            // None is a tombstone and wins a tie.
            let wins =
                stamp > cell.0 || stamp == cell.0 && (value.is_none() || cell.1.is_some() && *value > cell.1);
            if wins {
                *cell = (stamp, value.clone());
            }
        }
    }

    fn visible(&self) -> Option<BTreeMap<&'static str, String>> {
        let live = self.cells.iter().filter(|(_, (stamp, _))| *stamp > self.deleted);
        let cells: BTreeMap<_, _> =
            live.filter_map(|(name, (_, value))| Some((*name, value.clone()?))).collect();
        (self.marker > self.deleted || !cells.is_empty()).then_some(cells)
    }
}

pub fn key(place: &Place, claim: &str) -> RowKey {
    (place.view.table(), format!("{}/{}/{}/{claim}", place.key, place.bucket().0, place.clustering_ms()))
}

impl Tables {
    pub fn apply(&mut self, write: &ClaimWrite) {
        let state = &write.claim.state;
        let stamp = state.revision() as i64;
        let mut cells = vec![("status", Some(state.status().as_str().to_owned()))];
        for (name, value, field) in [
            ("customer", &state.customer_id.value, FieldSet::CUSTOMER_ID),
            ("agent", &state.agent_id.value, FieldSet::AGENT_ID),
            ("title", &state.title.value, FieldSet::TITLE),
            ("resolution", &state.resolution.value, FieldSet::RESOLUTION),
        ] {
            if value.is_some() || write.claim.ever_set.has(field) {
                cells.push((name, value.as_ref().map(ToString::to_string)));
            }
        }
        let claim = &state.claim_id.to_string();
        self.rows.entry(("claim_by_id", claim.clone())).or_default().write(stamp, &cells);
        let now = places(state);
        for place in &now {
            self.rows.entry(key(place, claim)).or_default().write(stamp, &cells);
        }
        for place in &write.left {
            assert!(!now.contains(place), "a place is written or deleted at a revision, never both");
            let row = self.rows.entry(key(place, claim)).or_default();
            row.deleted = row.deleted.max(stamp);
        }
        for entry in &write.timeline {
            let erased = entry.event_type == EventType::ClaimErased;
            if erased {
                self.erased.insert(claim.clone(), 2);
            }
            let stamp = if erased { 3 } else { 1 };
            let slot = self.timelines.entry((claim.clone(), entry.version)).or_default();
            *slot = (*slot).clone().max((stamp, entry.event_id.to_string()));
        }
    }

    pub fn visible(&self) -> BTreeMap<RowKey, BTreeMap<&'static str, String>> {
        self.rows.iter().filter_map(|(key, row)| Some((key.clone(), row.visible()?))).collect()
    }

    pub fn timeline(&self) -> BTreeSet<(String, u64, String)> {
        let live = self
            .timelines
            .iter()
            .filter(|((claim, _), (stamp, _))| self.erased.get(claim).is_none_or(|erased| stamp > erased));
        live.map(|((claim, version), (_, id))| (claim.clone(), *version, id.clone())).collect()
    }
}

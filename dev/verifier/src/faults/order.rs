//! The log itself: every acknowledged event is in it, none that was never sent, and each claim's in their order.

use anyhow::{Context, Result};
use claims_verifier::{checks::Check, namespace::Namespace, views::topics};
use rdkafka::Message as _;
use serde::Deserialize;
use std::collections::{HashMap, HashSet};

#[derive(Deserialize)]
struct Identity {
    tenant_id: String,
    claim_id: String,
    event_id: String,
}

/// A claim's event ids, each once, in order.
type Orders = HashMap<String, Vec<String>>;

#[derive(Default)]
struct Seen {
    orders: Orders,
    ids: HashSet<String>,
    records: u64,
}

impl Seen {
    fn add(&mut self, claim: String, event_id: String) {
        self.records += 1;
        if self.ids.insert(event_id.clone()) {
            self.orders.entry(claim).or_default().push(event_id);
        }
    }
}

/// Compares the log with what was acknowledged. Also tells how many records the log has, copies included.
pub fn check(namespace: &Namespace, sent: &[String]) -> Result<(Check, u64)> {
    let mut wanted = Seen::default();
    for line in sent {
        let event: Identity = serde_json::from_str(line).with_context(|| format!("event {line}"))?;
        wanted.add(format!("{}:{}", event.tenant_id, event.claim_id), event.event_id.to_lowercase());
    }
    let mut found = Seen::default();
    topics::each_record(namespace, &namespace.events_topic, |message| {
        let key = String::from_utf8_lossy(message.key().context("an event without a key")?).into_owned();
        let (claim, event_id) = key.rsplit_once(':').with_context(|| format!("key {key}"))?;
        found.add(claim.to_owned(), event_id.to_lowercase());
        Ok(())
    })?;
    let problems = problems(&wanted.orders, &found.orders);
    let check =
        Check { name: "log".to_owned(), rows: found.ids.len() as u64, checksum: String::new(), problems };
    Ok((check, found.records))
}

fn problems(wanted: &Orders, found: &Orders) -> Vec<String> {
    const MOST: usize = 5;
    let mut problems = Vec::new();
    for (claim, order) in wanted {
        let is = found.get(claim).map_or(&[][..], Vec::as_slice);
        if is != order && problems.len() < MOST {
            let missing = order.iter().filter(|id| !is.contains(id)).count();
            problems.push(if missing > 0 {
                format!("{claim}: {missing} of {} acknowledged events are not in the log", order.len())
            } else {
                format!("{claim}: the log has its events in another order than they were sent in")
            });
        }
    }
    let unknown = found.keys().filter(|claim| !wanted.contains_key(*claim));
    problems.extend(unknown.take(MOST).map(|claim| format!("{claim} is in the log and was never sent")));
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders(of: &[(&str, &[&str])]) -> Orders {
        of.iter().map(|(c, ids)| ((*c).to_owned(), ids.iter().map(|i| (*i).to_owned()).collect())).collect()
    }

    #[test]
    fn a_missing_event_a_changed_order_and_an_unknown_claim_are_told() {
        let wanted = orders(&[("t:a", &["1", "2", "3"])]);
        assert!(problems(&wanted, &wanted).is_empty());
        assert!(problems(&wanted, &orders(&[("t:a", &["1", "3"])]))[0].contains("1 of 3"));
        assert!(problems(&wanted, &orders(&[("t:a", &["2", "1", "3"])]))[0].contains("order"));
        assert!(problems(&orders(&[]), &wanted)[0].contains("never sent"));
    }

    #[test]
    fn copies_count_as_records_only() {
        let mut seen = Seen::default();
        for id in ["1", "2", "1"] {
            seen.add("t:a".to_owned(), id.to_owned());
        }
        assert_eq!((seen.records, seen.orders["t:a"].len()), (3, 2));
    }
}

//! What is compared: one row a claim, the same fields from every view.

use rust_decimal::Decimal;
use sha2::{Digest, Sha256};
use std::collections::HashMap;

/// Tenant and claim id.
pub type ClaimKey = (String, String);

/// All claims of a view, or of the model.
pub type Claims = HashMap<ClaimKey, Claim>;

/// What every view must say of one claim.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub struct Claim {
    pub status: String,
    pub version: u64,
    pub revision: u64,
    pub customer_id: Option<String>,
    pub claim_type: Option<String>,
    pub urgency: Option<String>,
    pub description: Option<String>,
    pub agent_id: Option<String>,
    pub resolution_type: Option<String>,
    pub claimed_amount: Option<Decimal>,
    pub settled_amount: Option<Decimal>,
    /// Milliseconds since the Unix epoch, as all times here.
    pub created_at: Option<i64>,
    pub resolved_at: Option<i64>,
    pub closed_at: Option<i64>,
    pub updated_at: Option<i64>,
    pub reopen_count: u64,
    pub reassignment_count: u64,
    pub note_count: u64,
    pub customer_name: Option<String>,
    pub customer_email: Option<String>,
    pub title: Option<String>,
    pub product_id: Option<String>,
    pub order_id: Option<String>,
    pub agent_name: Option<String>,
    pub resolution: Option<String>,
}

impl Claim {
    /// Every field by name, written the same way whatever the view's types are.
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        fn text(value: &Option<String>) -> String {
            value.clone().unwrap_or_else(|| "-".to_owned())
        }
        fn amount(value: &Option<Decimal>) -> String {
            value.map_or_else(|| "-".to_owned(), |v| v.normalize().to_string())
        }
        fn time(value: Option<i64>) -> String {
            value.map_or_else(|| "-".to_owned(), |v| v.to_string())
        }
        vec![
            ("status", self.status.clone()),
            ("version", self.version.to_string()),
            ("revision", self.revision.to_string()),
            ("customer_id", text(&self.customer_id)),
            ("claim_type", text(&self.claim_type)),
            ("urgency", text(&self.urgency)),
            ("description", text(&self.description)),
            ("agent_id", text(&self.agent_id)),
            ("resolution_type", text(&self.resolution_type)),
            ("claimed_amount", amount(&self.claimed_amount)),
            ("settled_amount", amount(&self.settled_amount)),
            ("created_at", time(self.created_at)),
            ("resolved_at", time(self.resolved_at)),
            ("closed_at", time(self.closed_at)),
            ("updated_at", time(self.updated_at)),
            ("reopen_count", self.reopen_count.to_string()),
            ("reassignment_count", self.reassignment_count.to_string()),
            ("note_count", self.note_count.to_string()),
            ("customer_name", text(&self.customer_name)),
            ("customer_email", text(&self.customer_email)),
            ("title", text(&self.title)),
            ("product_id", text(&self.product_id)),
            ("order_id", text(&self.order_id)),
            ("agent_name", text(&self.agent_name)),
            ("resolution", text(&self.resolution)),
        ]
    }

    fn digest(&self, key: &ClaimKey) -> u128 {
        let mut hasher = Sha256::new();
        for part in [("tenant", key.0.clone()), ("claim", key.1.clone())].into_iter().chain(self.fields()) {
            // Lengths first, so that no two different rows read the same.
            hasher.update((part.1.len() as u64).to_be_bytes());
            hasher.update(part.1.as_bytes());
        }
        let digest = hasher.finalize();
        digest.iter().take(16).fold(0u128, |sum, byte| (sum << 8) | u128::from(*byte))
    }
}

/// A checksum over all claims that doesn't depend on their order: the sum of each row's SHA-256 (its first 128 bits).
pub fn checksum(claims: &Claims) -> String {
    let sum = claims.iter().fold(0u128, |sum, (key, claim)| sum.wrapping_add(claim.digest(key)));
    format!("{sum:032x}")
}

/// Claims by status, ascending by name.
pub fn count_by_status(claims: &Claims) -> Vec<(String, u64)> {
    let mut counts: HashMap<&str, u64> = HashMap::new();
    for claim in claims.values() {
        *counts.entry(claim.status.as_str()).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().map(|(status, n)| (status.to_owned(), n)).collect();
    counts.sort();
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(n: usize) -> Claims {
        (0..n)
            .map(|i| {
                let claim = Claim { status: "CREATED".into(), version: i as u64, ..Claim::default() };
                (("t".to_owned(), format!("c{i}")), claim)
            })
            .collect()
    }

    #[test]
    fn the_checksum_sees_every_field_and_every_claim() {
        let base = claims(10);
        assert_eq!(checksum(&base), checksum(&claims(10)));
        assert_ne!(checksum(&base), checksum(&claims(9)));
        let mut other = base.clone();
        if let Some(claim) = other.get_mut(&("t".to_owned(), "c3".to_owned())) {
            claim.note_count = 1;
        }
        assert_ne!(checksum(&base), checksum(&other));
    }

    #[test]
    fn an_amount_counts_by_value_not_by_its_zeros() {
        let with = |text: &str| Claim { settled_amount: text.parse().ok(), ..Claim::default() };
        assert_eq!(with("12.50").fields(), with("12.5000").fields());
    }
}

//! What synthetic claims are about. No names of people: customers and agents are numbered.

#[derive(Debug)]
pub(super) struct ClaimType {
    pub(super) name: &'static str,
    /// Of a hundred claims.
    pub(super) weight: u64,
    pub(super) titles: &'static [&'static str],
    /// Smallest and largest claimed amount, in cents; `None`: no money is claimed.
    pub(super) cents: Option<(u64, u64)>,
}

pub(super) const CLAIM_TYPES: &[ClaimType] = &[
    ClaimType {
        name: "product_defect",
        weight: 32,
        titles: &[
            "Arrived broken",
            "Stopped working after a week",
            "Produit défectueux reçu",
            "Part missing",
        ],
        cents: Some((500, 200_000)),
    },
    ClaimType {
        name: "delivery",
        weight: 27,
        titles: &[
            "Parcel not delivered",
            "Delivered to the wrong address",
            "Colis endommagé",
            "Late by a week",
        ],
        cents: Some((300, 50_000)),
    },
    ClaimType {
        name: "billing",
        weight: 18,
        titles: &["Charged twice", "Discount not applied", "Facture incorrecte", "Refund not received"],
        cents: Some((100, 100_000)),
    },
    ClaimType {
        name: "service",
        weight: 12,
        titles: &["No answer from support", "Appointment missed", "Unfriendly treatment"],
        cents: None,
    },
    ClaimType {
        name: "warranty",
        weight: 8,
        titles: &["Repair under warranty refused", "Repaired part failed again"],
        cents: Some((2_000, 500_000)),
    },
    ClaimType {
        name: "privacy",
        weight: 3,
        titles: &["Data shared without consent", "Account data is wrong"],
        cents: None,
    },
];

pub(super) const DETAILS: &[&str] = &[
    "The customer called twice about it.",
    "Photos are attached to the order.",
    "Le client demande une réponse rapide.",
    "First complaint of this customer.",
    "The shop could not help.",
    "A replacement would be accepted.",
    "Same problem as with the order before.",
];

pub(super) const NOTES: &[(&str, Option<&str>)] = &[
    ("Asked the customer for the receipt", Some("awaiting_customer")),
    ("Asked the customer for photos", Some("awaiting_customer")),
    ("Sent to the vendor for an opinion", Some("awaiting_vendor")),
    ("Waiting for the warehouse", Some("awaiting_evidence")),
    ("Called back, nobody answered", None),
    ("Documents received", None),
];

/// Resolution, its type, and how much of the claimed amount is paid, in percent.
pub(super) const RESOLUTIONS: &[(&str, &str, u64)] = &[
    ("Amount paid back in full", "refund", 100),
    ("Half of the amount paid back", "refund", 50),
    ("Product replaced by a new one", "replacement", 0),
    ("Product repaired", "repair", 0),
    ("Explained to the customer", "explanation", 0),
    ("Claim not justified", "rejection", 0),
];

pub(super) const REASSIGNMENTS: &[&str] = &["workload", "product_expertise", "absence", "escalation"];
pub(super) const REOPENINGS: &[&str] =
    &["The customer did not accept the answer", "The problem came back", "The payment did not arrive"];
pub(super) const SATISFACTION: &[&str] = &["satisfied", "satisfied", "neutral", "dissatisfied"];

//! Cases by hand: conflicts, cleared fields, late events, erasure, times far apart.

use crate::{
    model,
    support::{DAY_MS, Database, T0, event, expected_events, log, write},
};
use claims_runtime::Origin;
use claims_schemas::{
    Event, Timestamp, Urgency,
    events::{
        ClaimAssigned, ClaimClosed, ClaimCreated, ClaimErased, ClaimNoteAdded, ClaimProcessingStarted,
        ClaimReassigned, ClaimReopened, ClaimResolved, Money,
    },
};

pub fn created(customer: &str) -> ClaimCreated {
    ClaimCreated {
        customer_id: customer.into(),
        customer_name: Some("Jane Roe".into()),
        customer_email: Some("jane@example.org".into()),
        claim_type: "refund".into(),
        title: Some("Broken".into()),
        description: "It arrived broken".into(),
        product_id: Some("p-1".into()),
        order_id: Some("o-1".into()),
        urgency: Urgency::High,
        claimed: Some(Money { amount: "12.5".parse().expect("a number"), currency: Some("EUR".into()) }),
    }
}

pub fn assigned(agent: &str) -> ClaimAssigned {
    ClaimAssigned {
        agent_id: agent.into(),
        agent_name: format!("Agent {agent}"),
        assignment_reason: None,
        estimated_resolution_time: Some(Timestamp(T0)),
    }
}

pub fn resolved(settled: Option<&str>) -> ClaimResolved {
    ClaimResolved {
        resolution: "A new one was sent".into(),
        resolution_type: "replacement".into(),
        customer_satisfaction: settled.map(|_| "satisfied".into()),
        follow_up_required: true,
        replacement_tracking: Some("track-1".into()),
        settled: settled.map(|amount| Money { amount: amount.parse().expect("a number"), currency: None }),
    }
}

/// Writes the log in batches of `rows`, and compares `latest` and `events` with the model.
async fn check(database: &Database, log: &[(Origin, Event)], rows: usize) {
    write(&database.sink(), log, rows).await;
    agrees(database, log).await;
}

pub async fn agrees(database: &Database, log: &[(Origin, Event)]) {
    assert_eq!(database.latest().await, model::latest(log));
    assert_eq!(database.events().await, expected_events(log));
}

#[tokio::test]
async fn a_life_with_reopening_clears_what_resolving_had_set() {
    let database = Database::migrated().await;
    let mut events = vec![
        event("c", 1, created("k")),
        event("c", 2, assigned("a")),
        event("c", 3, ClaimProcessingStarted { processed_by: "a".into(), note: None }),
        event("c", 4, resolved(Some("9.99"))),
        event("c", 5, ClaimClosed::default()),
        event("c", 6, ClaimReopened::default()),
        event("c", 7, ClaimNoteAdded { author: None, note: "waits".into(), kind: None }),
        event(
            "c",
            8,
            ClaimReassigned {
                agent_id: "b".into(),
                agent_name: "B".into(),
                previous_agent_id: Some("a".into()),
                reason: None,
            },
        ),
    ];
    check(&database, &log(events.clone()), 3).await;
    let claim = &database.latest().await[&("t".to_owned(), "c".to_owned())];
    assert_eq!(
        (claim.status.as_str(), claim.resolved_at, claim.settled.as_ref(), claim.reopen_count),
        ("PROCESSING", None, None, 1)
    );
    // Resolved again, this time without an amount.
    events.push(event("c", 9, resolved(None)));
    check(&database, &log(events), 4).await;
    database.drop().await;
}

#[tokio::test]
async fn a_field_set_to_nothing_by_a_higher_version_is_nothing() {
    let database = Database::migrated().await;
    let mut bare = created("k2");
    (bare.customer_name, bare.customer_email, bare.title) = (None, None, None);
    (bare.product_id, bare.order_id, bare.claimed) = (None, None, None);
    let mut no_estimate = assigned("b");
    no_estimate.estimated_resolution_time = None;
    let mut with_source = event("c", 1, created("k1"));
    with_source.source = Some("crm".into());
    let mut empty_texts = created("");
    empty_texts.title = Some(String::new());
    let events = vec![
        with_source,
        event("c", 2, assigned("a")),
        event("c", 3, bare),
        event("c", 4, no_estimate),
        event("empty", 1, empty_texts),
    ];
    check(&database, &log(events), 2).await;
    let latest = database.latest().await;
    let claim = &latest[&("t".to_owned(), "c".to_owned())];
    assert_eq!((claim.title.as_ref(), claim.claimed.as_ref(), claim.source.as_ref()), (None, None, None));
    assert_eq!(latest[&("t".to_owned(), "empty".to_owned())].title.as_deref(), Some(""));
    database.drop().await;
}

#[tokio::test]
async fn a_superseded_event_touches_no_field_whatever_its_type_time_and_batch() {
    // The loser of version 3 is of another type, says it happened twenty years earlier, and arrives before or after the
    // winner, in its batch or in another one.
    for (batch_rows, reversed) in [(1, false), (1, true), (100, false), (100, true), (3, true)] {
        let database = Database::migrated().await;
        let mut loser = event("c", 3, resolved(Some("777")));
        loser.occurred_at = Timestamp(T0 - 20 * 365 * DAY_MS);
        let erasing_loser = event("c", 2, ClaimErased::default());
        let events = vec![
            event("c", 1, created("k")),
            event("c", 2, assigned("winner")),
            event("c", 3, ClaimNoteAdded { author: None, note: "first".into(), kind: None }),
            loser,
            erasing_loser,
            event("c", 1, created("other customer")),
            event("c", 4, ClaimProcessingStarted { processed_by: "a".into(), note: None }),
        ];
        let log = log(events);
        let mut arrival = log.clone();
        if reversed {
            arrival.reverse();
        }
        write(&database.sink(), &arrival, batch_rows).await;
        agrees(&database, &log).await;
        let claim = &database.latest().await[&("t".to_owned(), "c".to_owned())];
        assert_eq!((claim.status.as_str(), claim.resolved_at, claim.revision), ("PROCESSING", None, 4));
        assert_eq!(database.number("SELECT count() FROM erased_claims").await, 0);
        database.execute("OPTIMIZE TABLE event_log FINAL").await;
        agrees(&database, &log).await;
        database.drop().await;
    }
}

#[tokio::test]
async fn late_events_and_unknown_beginnings_find_their_place() {
    let database = Database::migrated().await;
    let events = vec![
        event("c", 5, ClaimClosed::default()),
        event("c", 2, assigned("a")),
        event("only-note", 7, ClaimNoteAdded { author: None, note: "x".into(), kind: None }),
        event("c", 4, resolved(None)),
        event("c", 1, created("k")),
    ];
    let log = log(events);
    for upto in 1..=log.len() {
        check(&database, &log[..upto], 1).await;
    }
    let latest = database.latest().await;
    let bare = &latest[&("t".to_owned(), "only-note".to_owned())];
    assert_eq!((bare.status.as_str(), bare.created_at, bare.note_count), ("UNKNOWN", None, 1));
    database.drop().await;
}

#[tokio::test]
async fn one_batch_may_span_the_centuries() {
    let database = Database::migrated().await;
    let log = log((0..400).map(|year| {
        let mut event = event(&format!("c{year}"), 1, created("k"));
        event.occurred_at = Timestamp(-2_208_988_800_000 + year * 31_556_952_000);
        event
    }));
    check(&database, &log, 1000).await;
    assert_eq!(database.number("SELECT sum(created) FROM daily_flow").await, 400);
    assert_eq!(database.number("SELECT toUInt64(min(toYear(day))) FROM daily_flow").await, 1900);
    assert_eq!(database.number("SELECT toUInt64(max(toYear(day))) FROM daily_flow").await, 2298);
    database.drop().await;
}

#[tokio::test]
async fn an_erased_claim_shows_no_personal_data_in_any_view() {
    let database = Database::migrated().await;
    let mut secret = created("secret-customer");
    secret.customer_name = Some("secret-name".into());
    secret.customer_email = Some("secret-mail".into());
    secret.title = Some("secret-title".into());
    secret.description = "secret-description".into();
    secret.order_id = Some("secret-order".into());
    let mut outcome = resolved(Some("5"));
    outcome.resolution = "secret-resolution".into();
    outcome.replacement_tracking = Some("secret-track".into());
    let note = || ClaimNoteAdded {
        author: Some("secret-author".into()),
        note: "secret-note".into(),
        kind: Some("awaiting_customer".into()),
    };
    let erased =
        ClaimErased { requested_by: Some("secret-person".into()), reason: Some("secret-why".into()) };
    let mut events = vec![
        event("gone", 1, secret.clone()),
        event("gone", 2, note()),
        event("gone", 3, outcome),
        event("gone", 4, erased),
        // After the erasure, and once more what was there before.
        event("gone", 5, note()),
        event("gone", 6, secret),
        event("stays", 1, created("k")),
    ];
    // The same claim id of another tenant isn't erased.
    let mut other = event("gone", 1, created("k"));
    other.tenant_id = "u".into();
    events.push(other);
    let log = log(events);
    check(&database, &log, 3).await;
    for view in [
        "events",
        "latest",
        "customer_stats",
        "agent_stats",
        "claim_type_stats",
        "daily_flow",
        "status_counts",
        "erased_claims",
        "claims_of_customer(tenant = 't', customer = 'secret-customer')",
    ] {
        let rows = database.json(&format!("SELECT * FROM {view}")).await;
        let text = serde_json::to_string(&rows).expect("JSON");
        assert!(!text.contains("secret"), "{view} shows personal data");
    }
    let latest = database.latest().await;
    assert_eq!(latest[&("t".to_owned(), "gone".to_owned())].status, "ERASED");
    assert_eq!(latest[&("u".to_owned(), "gone".to_owned())].customer_id.as_deref(), Some("k"));
    database.drop().await;
}

#[tokio::test]
async fn one_customers_claims_are_found_without_folding_all() {
    let database = Database::migrated().await;
    let mut elsewhere = event("c9", 1, created("k1"));
    elsewhere.tenant_id = "u".into();
    let events = vec![
        event("c1", 1, created("k1")),
        event("c2", 1, created("k2")),
        event("c3", 1, created("k1")),
        event("c3", 2, assigned("a")),
        // It was k1's by mistake.
        event("c4", 1, created("k1")),
        event("c4", 2, created("k2")),
        elsewhere,
    ];
    write(&database.sink(), &log(events), 100).await;
    let rows = database
        .json("SELECT claim_id, status FROM claims_of_customer(tenant = 't', customer = 'k1') ORDER BY claim_id")
        .await;
    assert_eq!(
        rows,
        [
            serde_json::json!({"claim_id": "c1", "status": "CREATED"}),
            serde_json::json!({"claim_id": "c3", "status": "ASSIGNED"})
        ]
    );
    database.drop().await;
}

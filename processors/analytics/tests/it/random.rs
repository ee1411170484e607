//! Many random claims with copies, conflicts and late events, in random batches: the views agree with the model after
//! every kind of repetition.

use crate::{
    support::{Database, T0, batch, event, write},
    views::{agrees, assigned, created, resolved},
};
use claims_runtime::{Origin, Sink};
use claims_schemas::{
    Event, EventData, Timestamp,
    events::{
        ClaimClosed, ClaimErased, ClaimNoteAdded, ClaimProcessingStarted, ClaimReassigned, ClaimReopened,
    },
};
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

const PARTITIONS: i32 = 4;

fn data(rng: &mut ChaCha8Rng) -> EventData {
    match rng.random_range(0..100) {
        0..20 => {
            let mut data = created(&format!("k{}", rng.random_range(0..40)));
            data.claim_type = ["refund", "defect", "delivery"][rng.random_range(0..3)].into();
            if rng.random() {
                (data.title, data.claimed, data.customer_name) = (None, None, None);
            }
            data.into()
        }
        20..35 => assigned(&format!("a{}", rng.random_range(0..9))).into(),
        35..45 => ClaimReassigned {
            agent_id: format!("a{}", rng.random_range(0..9)),
            agent_name: "Other".into(),
            previous_agent_id: None,
            reason: Some("holidays".into()),
        }
        .into(),
        45..60 => ClaimProcessingStarted { processed_by: "p".into(), note: None }.into(),
        60..75 => resolved(rng.random::<bool>().then_some("33.3333")).into(),
        75..85 => ClaimClosed::default().into(),
        85..91 => ClaimReopened::default().into(),
        91..99 => ClaimNoteAdded { author: None, note: "n".into(), kind: None }.into(),
        _ => ClaimErased::default().into(),
    }
}

/// A log over several partitions; every claim stays in one. `latest`'s model and the sink see the same.
pub fn random_log(seed: u64, claims: usize) -> Vec<(Origin, Event)> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut events: Vec<(i32, Event)> = vec![];
    for claim in 0..claims {
        let partition = rng.random_range(0..PARTITIONS);
        let tenant = ["t", "u", "v"][rng.random_range(0..3)];
        let steps = rng.random_range(1..12);
        for version in 1..=steps {
            if version < steps && rng.random_range(0..10) == 0 {
                continue; // a gap, as imports leave them
            }
            let mut new = event(&format!("c{claim}"), version, data(&mut rng));
            new.tenant_id = tenant.into();
            new.occurred_at = Timestamp(T0 + rng.random_range(-30_000_000_000_i64..30_000_000_000));
            for _ in 0..rng.random_range(0..3) {
                let mut copy = new.clone();
                copy.recorded_at = Timestamp(copy.recorded_at.0 + 60_000);
                events.push((partition, copy));
            }
            if rng.random_range(0..8) == 0 {
                let mut conflict = event(&format!("c{claim}"), version, data(&mut rng));
                conflict.tenant_id = tenant.into();
                conflict.occurred_at = Timestamp(T0 + rng.random_range(0..30_000_000_000_i64));
                events.push((partition, conflict));
            }
            events.push((partition, new));
        }
    }
    events.shuffle(&mut rng);
    let mut next_offsets = [0_i64; PARTITIONS as usize];
    events
        .into_iter()
        .map(|(partition, event)| {
            let next = &mut next_offsets[usize::try_from(partition).expect("small")];
            let offset = *next;
            *next += rng.random_range(1..4); // compaction leaves gaps
            (Origin { partition, offset }, event)
        })
        .collect()
}

#[tokio::test]
async fn copies_replays_restarts_and_merges_change_nothing() {
    let database = Database::migrated().await;
    let log = random_log(7, 400);
    let half = log.len() / 2;

    // A process that dies in the middle, after some batches that nobody committed; the next begins before them.
    write(&database.sink(), &log[..half], 97).await;
    agrees(&database, &log[..half]).await;
    let restarted = database.sink();
    write(&restarted, &log[half - half / 3..], 211).await;
    agrees(&database, &log).await;

    // The same batches again by the same process, then from zero with other boundaries, then in one piece.
    write(&restarted, &log[half - half / 3..], 211).await;
    agrees(&database, &log).await;
    write(&database.sink(), &log, 73).await;
    agrees(&database, &log).await;
    write(&database.sink(), &log, log.len()).await;
    agrees(&database, &log).await;

    // Whatever the engine merges, and when.
    database.execute("OPTIMIZE TABLE event_log FINAL").await;
    agrees(&database, &log).await;
    write(&database.sink(), &log[..half], 500).await;
    agrees(&database, &log).await;
    database.drop().await;
}

#[tokio::test]
async fn batches_may_arrive_in_any_order_and_at_once() {
    let database = Database::migrated().await;
    let log = random_log(11, 300);
    let sink = database.sink();
    let mut batches: Vec<_> = log.chunks(60).zip(1..).map(|(part, id)| batch(id, part)).collect();
    batches.reverse();
    for pair in batches.chunks(2) {
        let written = futures::future::join_all(pair.iter().map(|batch| sink.write(batch))).await;
        assert!(written.iter().all(Result::is_ok), "{written:?}");
    }
    agrees(&database, &log).await;
    database.drop().await;
}

#[tokio::test]
async fn a_replay_repairs_rows_that_were_deleted() {
    let database = Database::migrated().await;
    let log = random_log(13, 100);
    write(&database.sink(), &log, 50).await;
    database.execute("ALTER TABLE event_log DELETE WHERE tenant_id = 'u' SETTINGS mutations_sync = 2").await;
    // The very same batches: they must not be taken for a second try of the first ones.
    write(&database.sink(), &log, 50).await;
    agrees(&database, &log).await;
    database.execute("TRUNCATE TABLE event_log").await;
    write(&database.sink(), &log, 50).await;
    agrees(&database, &log).await;
    database.drop().await;
}

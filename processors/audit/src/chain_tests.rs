use super::*;
use crate::record::RecordKind;
use proptest::prelude::*;
use std::borrow::Cow;

fn content() -> Content {
    Content {
        key: Some(b"acme:c-1:0198a3f4-0000-7000-8000-000000000001".to_vec()),
        value: Some(vec![0, 0, 0, 0, 7, 1, 2, 3]),
        schema_id: Some(7),
        event_id: Some("0198a3f4-0000-7000-8000-000000000001".into()),
        occurred_at_ms: Some(1_751_985_000_000),
        recorded_at_ms: Some(1_751_985_000_250),
        correlation_id: Some("trace_xyz789".into()),
        causation_id: None,
        user_id: None,
        source: Some("legacy".into()),
        traceparent: None,
    }
}

fn entry() -> Entry {
    Entry {
        partition: 3,
        offset: 41,
        appended_at_ms: 1_751_985_000_300,
        kind: RecordKind::Event,
        tenant_id: Some("acme".into()),
        claim_id: Some("c-1".into()),
        event_type: Some(Cow::Borrowed("ClaimCreated")),
        version: Some(1),
        content: Some(content()),
    }
}

/// The vector of `docs/audit.md`: computed there by a few lines of Python. If this fails, the format has changed.
#[test]
fn the_documented_vector_holds() {
    let salt: Salt = std::array::from_fn(|i| i as u8);
    let content_hash = content_hash(&salt, &content());
    let record_hash = record_hash("claims.events.v1", 1, 1_751_985_002_000, &entry(), &content_hash);
    let genesis = genesis("claims.events.v1", 3);
    let linked = link(&genesis, &record_hash);
    assert_eq!(
        [content_hash, record_hash, genesis, linked].map(|digest| digest.to_string()),
        [
            "9c49a2401469b3caef61988b4ba0d9c6e5f23f0336aaffcc02ddaabd2e40c4e0",
            "faf3ff38e78c8e5bea9b7407487585cd835bff73d12e95a2cb4826d3d3593c2c",
            "743753be6f10fd4b21c87e4d7db92cfe3d6d0462fd3f98677fbd5f920a5f50c6",
            "be8b873ed818452cd4ad93e4cfe1f1bf1491dd46b6365558dbea125dd85b3c40",
        ]
    );
}

#[test]
fn a_digest_reads_back_from_its_hexadecimal() {
    let digest = genesis("t", 0);
    assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
    assert!("".parse::<Digest>().is_err());
    assert!("é".repeat(32).parse::<Digest>().is_err());
    assert!("+f".repeat(32).parse::<Digest>().is_err());
}

fn any_content() -> impl Strategy<Value = Content> {
    let raw = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..8));
    let text = || proptest::option::of("[a-c]{0,3}");
    let number = || proptest::option::of(-2_i64..3);
    (
        (raw(), raw(), proptest::option::of(0_u32..3), text()),
        (number(), number(), text(), text()),
        (text(), text(), text()),
    )
        .prop_map(|((key, value, schema_id, event_id), (occurred, recorded, corr, cause), rest)| {
            Content {
                key,
                value,
                schema_id,
                event_id,
                occurred_at_ms: occurred,
                recorded_at_ms: recorded,
                correlation_id: corr,
                causation_id: cause,
                user_id: rest.0,
                source: rest.1,
                traceparent: rest.2,
            }
        })
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let text = || proptest::option::of("[a-c]{0,3}");
    (0..3_i32, 0..3_i64, 0..3_i64, any::<bool>(), text(), text(), text(), proptest::option::of(0..3_i64))
        .prop_map(|(partition, offset, appended_at_ms, event, tenant_id, claim_id, event_type, version)| {
            Entry {
                partition,
                offset,
                appended_at_ms,
                kind: if event { RecordKind::Event } else { RecordKind::Tombstone },
                tenant_id,
                claim_id,
                event_type: event_type.map(Cow::Owned),
                version,
                content: None,
            }
        })
}

proptest! {
    /// No two contents share a hash: moving bytes from one field to its neighbour, or absent for empty, shows.
    #[test]
    fn different_contents_have_different_hashes(a in any_content(), b in any_content()) {
        let salt = [7; SALT_BYTES];
        prop_assert_eq!(a == b, content_hash(&salt, &a) == content_hash(&salt, &b));
    }

    #[test]
    fn another_salt_is_another_hash(content in any_content(), a in any::<Salt>(), b in any::<Salt>()) {
        prop_assert_eq!(a == b, content_hash(&a, &content) == content_hash(&b, &content));
    }

    #[test]
    fn different_records_or_places_have_different_hashes(
        a in any_entry(), b in any_entry(), positions in (1..3_u64, 1..3_u64), times in (0..2_i64, 0..2_i64),
    ) {
        let hash = Digest([1; 32]);
        let hash_a = record_hash("t", positions.0, times.0, &a, &hash);
        let hash_b = record_hash("t", positions.1, times.1, &b, &hash);
        prop_assert_eq!(a == b && positions.0 == positions.1 && times.0 == times.1, hash_a == hash_b);
    }

    /// Changing, dropping or swapping any record changes the end of the chain.
    #[test]
    fn the_end_of_a_chain_depends_on_every_record_and_their_order(
        hashes in proptest::collection::vec(any::<[u8; 32]>(), 2..12), at in any::<proptest::sample::Index>(),
    ) {
        let end = |hashes: &[[u8; 32]]| {
            hashes.iter().fold(genesis("t", 0), |end, hash| link(&end, &Digest(*hash)))
        };
        let whole = end(&hashes);
        let at = at.index(hashes.len());
        let mut changed = hashes.clone();
        changed[at][31] ^= 1;
        prop_assert_ne!(end(&changed), whole);
        let mut dropped = hashes.clone();
        dropped.remove(at);
        prop_assert_ne!(end(&dropped), whole);
        let mut swapped = hashes.clone();
        swapped.swap(at, (at + 1) % hashes.len());
        prop_assert_eq!(end(&swapped) == whole, swapped == hashes);
    }
}

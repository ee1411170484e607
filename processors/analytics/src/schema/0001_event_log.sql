-- Every event as it came out of the topic. Readers use the views `events` and `latest`, never this table: copies of
-- an event, and events that lost a conflict, stay in it until the engine merges them away.
--
-- One row per (tenant_id, claim_id, version) is kept: the one with the lowest offset, because `first_wins` falls as the
-- offset rises. There is no PARTITION BY: the engine only replaces rows within one partition, and two events of one
-- version may differ in everything but their claim (docs/adr: ClickHouse tables).
CREATE TABLE IF NOT EXISTS event_log
(
    tenant_id LowCardinality(String) COMMENT 'Whose claim it is',
    claim_id String COMMENT 'The claim, unique within its tenant' CODEC(ZSTD(1)),
    version UInt64 COMMENT 'Sequence number within the claim, from 1' CODEC(T64, ZSTD(1)),
    event_id UUID COMMENT 'Unique per event; copies share it',
    event_type LowCardinality(String) COMMENT 'ClaimCreated, ClaimAssigned, ...',
    occurred_at DateTime64(3, 'UTC') COMMENT 'When it happened in the business' CODEC(Delta(8), ZSTD(1)),
    recorded_at DateTime64(3, 'UTC') COMMENT 'When the pipeline took it in; copies may differ in it' CODEC(Delta(8), ZSTD(1)),
    correlation_id String COMMENT 'Ties together what belongs to one business transaction' CODEC(ZSTD(1)),
    causation_id Nullable(String) COMMENT 'The event or command that caused this one' CODEC(ZSTD(1)),
    user_id Nullable(String) COMMENT 'Who did it, if known' CODEC(ZSTD(1)),
    source Nullable(String) COMMENT 'System of record that owns the claim; NULL: the command side',

    customer_id Nullable(String) COMMENT 'ClaimCreated' CODEC(ZSTD(1)),
    customer_name Nullable(String) COMMENT 'ClaimCreated; personal data' CODEC(ZSTD(1)),
    customer_email Nullable(String) COMMENT 'ClaimCreated; personal data' CODEC(ZSTD(1)),
    claim_type Nullable(String) COMMENT 'ClaimCreated',
    title Nullable(String) COMMENT 'ClaimCreated; personal data' CODEC(ZSTD(1)),
    description Nullable(String) COMMENT 'ClaimCreated; personal data' CODEC(ZSTD(1)),
    product_id Nullable(String) COMMENT 'ClaimCreated' CODEC(ZSTD(1)),
    order_id Nullable(String) COMMENT 'ClaimCreated' CODEC(ZSTD(1)),
    urgency Nullable(String) COMMENT 'ClaimCreated: low, medium, high, critical',
    claimed_amount Nullable(Decimal(18, 4)) COMMENT 'ClaimCreated' CODEC(ZSTD(1)),
    claimed_currency Nullable(String) COMMENT 'ClaimCreated: ISO 4217 code; NULL: the source does not say',

    agent_id Nullable(String) COMMENT 'ClaimAssigned, ClaimReassigned: the new agent',
    agent_name Nullable(String) COMMENT 'ClaimAssigned, ClaimReassigned',
    previous_agent_id Nullable(String) COMMENT 'ClaimReassigned',
    estimated_resolution_at Nullable(DateTime64(3, 'UTC')) COMMENT 'ClaimAssigned' CODEC(ZSTD(1)),

    actor Nullable(String) COMMENT 'Who started, closed, reopened, noted or asked for the erasure' CODEC(ZSTD(1)),
    reason Nullable(String) COMMENT 'Why it was assigned, reassigned, closed, reopened or erased; free text' CODEC(ZSTD(1)),
    note Nullable(String) COMMENT 'ClaimProcessingStarted, ClaimNoteAdded; free text' CODEC(ZSTD(1)),
    note_kind Nullable(String) COMMENT 'ClaimNoteAdded: awaiting_customer, ...',

    resolution Nullable(String) COMMENT 'ClaimResolved; free text' CODEC(ZSTD(1)),
    resolution_type Nullable(String) COMMENT 'ClaimResolved: replacement, refund, ...',
    customer_satisfaction Nullable(String) COMMENT 'ClaimResolved',
    follow_up_required Nullable(Bool) COMMENT 'ClaimResolved',
    replacement_tracking Nullable(String) COMMENT 'ClaimResolved' CODEC(ZSTD(1)),
    settled_amount Nullable(Decimal(18, 4)) COMMENT 'ClaimResolved: what was paid' CODEC(ZSTD(1)),
    settled_currency Nullable(String) COMMENT 'ClaimResolved: ISO 4217 code; NULL: the source does not say',

    topic_partition Int32 COMMENT 'Kafka partition of the record' CODEC(ZSTD(1)),
    topic_offset Int64 COMMENT 'Kafka offset of the record' CODEC(Delta(8), ZSTD(1)),
    appended_at DateTime64(3, 'UTC') COMMENT 'When the broker appended the record' CODEC(Delta(8), ZSTD(1)),

    first_wins UInt64 MATERIALIZED bitNot(toUInt64(topic_offset)) COMMENT 'The highest one is kept: the lowest offset' CODEC(Delta(8), ZSTD(1)),

    INDEX customer customer_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX type event_type TYPE set(16) GRANULARITY 1
)
ENGINE = ReplacingMergeTree(first_wins)
ORDER BY (tenant_id, claim_id, version)
SETTINGS non_replicated_deduplication_window = 1000
COMMENT 'Internal: query the views events and latest instead';

-- What every peer that writes to ClickHouse fills: one row per record, the envelope and the fields of `data` by their
-- own names, with the column types of the project's own table. It is a plain MergeTree, in which copies stay.
CREATE TABLE IF NOT EXISTS events
(
    tenant_id LowCardinality(String),
    claim_id String CODEC(ZSTD(1)),
    version UInt64 CODEC(T64, ZSTD(1)),
    event_id UUID,
    event_type LowCardinality(String),
    occurred_at DateTime64(3, 'UTC') CODEC(Delta(8), ZSTD(1)),
    recorded_at DateTime64(3, 'UTC') CODEC(Delta(8), ZSTD(1)),
    correlation_id String CODEC(ZSTD(1)),
    causation_id Nullable(String) CODEC(ZSTD(1)),
    user_id Nullable(String) CODEC(ZSTD(1)),
    source Nullable(String),

    customer_id Nullable(String) CODEC(ZSTD(1)),
    customer_name Nullable(String) CODEC(ZSTD(1)),
    customer_email Nullable(String) CODEC(ZSTD(1)),
    claim_type Nullable(String),
    title Nullable(String) CODEC(ZSTD(1)),
    description Nullable(String) CODEC(ZSTD(1)),
    product_id Nullable(String) CODEC(ZSTD(1)),
    order_id Nullable(String) CODEC(ZSTD(1)),
    urgency Nullable(String),
    claimed_amount Nullable(Decimal(18, 4)) CODEC(ZSTD(1)),
    claimed_currency Nullable(String),

    agent_id Nullable(String),
    agent_name Nullable(String),
    previous_agent_id Nullable(String),
    assignment_reason Nullable(String) CODEC(ZSTD(1)),
    estimated_resolution_time Nullable(DateTime64(3, 'UTC')) CODEC(ZSTD(1)),

    processed_by Nullable(String) CODEC(ZSTD(1)),
    closed_by Nullable(String) CODEC(ZSTD(1)),
    reopened_by Nullable(String) CODEC(ZSTD(1)),
    requested_by Nullable(String) CODEC(ZSTD(1)),
    author Nullable(String) CODEC(ZSTD(1)),
    reason Nullable(String) CODEC(ZSTD(1)),
    note Nullable(String) CODEC(ZSTD(1)),
    kind Nullable(String),

    resolution Nullable(String) CODEC(ZSTD(1)),
    resolution_type Nullable(String),
    customer_satisfaction Nullable(String),
    follow_up_required Nullable(Bool),
    replacement_tracking Nullable(String) CODEC(ZSTD(1)),
    settled_amount Nullable(Decimal(18, 4)) CODEC(ZSTD(1)),
    settled_currency Nullable(String),

    topic_partition Int32 CODEC(ZSTD(1)),
    topic_offset Int64 CODEC(Delta(8), ZSTD(1))
)
ENGINE = MergeTree
ORDER BY (tenant_id, claim_id, version)

-- What BI reads. Every view finalises for itself: copies, replays and events that lost a conflict never show, and
-- nobody needs to write FINAL.

-- Claims whose data was erased. The inner query only finds candidates (with the index on the event type); whether the
-- erasure itself was superseded is decided by FINAL.
CREATE VIEW IF NOT EXISTS erased_claims COMMENT 'Claims whose personal data was erased' AS
SELECT DISTINCT tenant_id, claim_id
FROM event_log FINAL
WHERE event_type = 'ClaimErased'
  AND (tenant_id, claim_id) IN (SELECT tenant_id, claim_id FROM event_log WHERE event_type = 'ClaimErased');

CREATE VIEW IF NOT EXISTS events COMMENT 'One row per event: per (tenant_id, claim_id, version) the first one in the log' AS
SELECT
    tenant_id,
    claim_id,
    version,
    event_id,
    event_type,
    occurred_at,
    recorded_at,
    correlation_id,
    causation_id,
    user_id,
    source,
    if(erased, NULL, log.customer_id) AS customer_id,
    if(erased, NULL, log.customer_name) AS customer_name,
    if(erased, NULL, log.customer_email) AS customer_email,
    claim_type,
    if(erased, NULL, log.title) AS title,
    if(erased, NULL, log.description) AS description,
    product_id,
    if(erased, NULL, log.order_id) AS order_id,
    urgency,
    claimed_amount,
    claimed_currency,
    agent_id,
    agent_name,
    previous_agent_id,
    estimated_resolution_at,
    if(erased, NULL, log.actor) AS actor,
    if(erased, NULL, log.reason) AS reason,
    if(erased, NULL, log.note) AS note,
    note_kind,
    if(erased, NULL, log.resolution) AS resolution,
    resolution_type,
    customer_satisfaction,
    follow_up_required,
    if(erased, NULL, log.replacement_tracking) AS replacement_tracking,
    settled_amount,
    settled_currency,
    topic_partition,
    topic_offset,
    appended_at,
    (tenant_id, claim_id) IN (SELECT tenant_id, claim_id FROM erased_claims) AS erased
FROM event_log AS log FINAL;

-- The fold, field by field: the highest version that sets a field wins. The event types in each condition are those that
-- set the field (a reopening sets the outcome to nothing). argMax leaves NULLs out, so nullable columns go through it as
-- a value and a flag: an event may well set a field to nothing.
CREATE VIEW IF NOT EXISTS latest COMMENT 'One row per claim: its state after all its events' AS
SELECT
    tenant_id,
    claim_id,
    multiIf(
        f_erased, 'ERASED',
        f_status_event = 'ClaimCreated', 'CREATED',
        f_status_event = 'ClaimAssigned', 'ASSIGNED',
        f_status_event IN ('ClaimProcessingStarted', 'ClaimReopened'), 'PROCESSING',
        f_status_event = 'ClaimResolved', 'RESOLVED',
        f_status_event = 'ClaimClosed', 'CLOSED',
        'UNKNOWN') AS status,
    if(f_erased, f_erased_at, f_status_since) AS status_since,
    f_version AS version,
    f_revision AS revision,
    if(f_has_source, f_source, NULL) AS source,
    if(f_erased, NULL, f_customer_id) AS customer_id,
    if(f_has_customer_name AND NOT f_erased, f_customer_name, NULL) AS customer_name,
    if(f_has_customer_email AND NOT f_erased, f_customer_email, NULL) AS customer_email,
    f_claim_type AS claim_type,
    if(f_has_title AND NOT f_erased, f_title, NULL) AS title,
    if(f_erased, NULL, f_description) AS description,
    if(f_has_product_id, f_product_id, NULL) AS product_id,
    if(f_has_order_id AND NOT f_erased, f_order_id, NULL) AS order_id,
    f_urgency AS urgency,
    if(f_has_claimed_amount, f_claimed_amount, NULL) AS claimed_amount,
    if(f_has_claimed_currency, f_claimed_currency, NULL) AS claimed_currency,
    f_agent_id AS agent_id,
    f_agent_name AS agent_name,
    if(f_has_estimated_resolution_at, f_estimated_resolution_at, NULL) AS estimated_resolution_at,
    if(f_is_resolved AND NOT f_erased, f_resolution, NULL) AS resolution,
    if(f_is_resolved, f_resolution_type, NULL) AS resolution_type,
    if(f_has_customer_satisfaction, f_customer_satisfaction, NULL) AS customer_satisfaction,
    if(f_is_resolved, f_follow_up_required, NULL) AS follow_up_required,
    if(f_has_replacement_tracking AND NOT f_erased, f_replacement_tracking, NULL) AS replacement_tracking,
    if(f_has_settled_amount, f_settled_amount, NULL) AS settled_amount,
    if(f_has_settled_currency, f_settled_currency, NULL) AS settled_currency,
    f_created_at AS created_at,
    if(f_is_resolved, f_resolved_at, NULL) AS resolved_at,
    if(f_is_closed, f_closed_at, NULL) AS closed_at,
    f_updated_at AS updated_at,
    f_reopen_count AS reopen_count,
    f_reassignment_count AS reassignment_count,
    f_note_count AS note_count
FROM
(
    SELECT
        log.tenant_id AS tenant_id,
        log.claim_id AS claim_id,
        max(log.version) AS f_version,
        count() AS f_revision,
        countIf(log.event_type = 'ClaimErased') > 0 AS f_erased,
        argMaxIf(log.occurred_at, log.version, log.event_type = 'ClaimErased') AS f_erased_at,
        argMaxIf(log.event_type, log.version, log.event_type IN ('ClaimCreated', 'ClaimAssigned', 'ClaimProcessingStarted', 'ClaimResolved', 'ClaimClosed', 'ClaimReopened')) AS f_status_event,
        argMaxIf(log.occurred_at, log.version, log.event_type IN ('ClaimCreated', 'ClaimAssigned', 'ClaimProcessingStarted', 'ClaimResolved', 'ClaimClosed', 'ClaimReopened')) AS f_status_since,
        argMax(assumeNotNull(log.source), log.version) AS f_source,
        argMax(isNotNull(log.source), log.version) AS f_has_source,
        argMaxIf(log.customer_id, log.version, log.event_type = 'ClaimCreated') AS f_customer_id,
        argMaxIf(assumeNotNull(log.customer_name), log.version, log.event_type = 'ClaimCreated') AS f_customer_name,
        argMaxIf(isNotNull(log.customer_name), log.version, log.event_type = 'ClaimCreated') AS f_has_customer_name,
        argMaxIf(assumeNotNull(log.customer_email), log.version, log.event_type = 'ClaimCreated') AS f_customer_email,
        argMaxIf(isNotNull(log.customer_email), log.version, log.event_type = 'ClaimCreated') AS f_has_customer_email,
        argMaxIf(log.claim_type, log.version, log.event_type = 'ClaimCreated') AS f_claim_type,
        argMaxIf(assumeNotNull(log.title), log.version, log.event_type = 'ClaimCreated') AS f_title,
        argMaxIf(isNotNull(log.title), log.version, log.event_type = 'ClaimCreated') AS f_has_title,
        argMaxIf(log.description, log.version, log.event_type = 'ClaimCreated') AS f_description,
        argMaxIf(assumeNotNull(log.product_id), log.version, log.event_type = 'ClaimCreated') AS f_product_id,
        argMaxIf(isNotNull(log.product_id), log.version, log.event_type = 'ClaimCreated') AS f_has_product_id,
        argMaxIf(assumeNotNull(log.order_id), log.version, log.event_type = 'ClaimCreated') AS f_order_id,
        argMaxIf(isNotNull(log.order_id), log.version, log.event_type = 'ClaimCreated') AS f_has_order_id,
        argMaxIf(log.urgency, log.version, log.event_type = 'ClaimCreated') AS f_urgency,
        argMaxIf(assumeNotNull(log.claimed_amount), log.version, log.event_type = 'ClaimCreated') AS f_claimed_amount,
        argMaxIf(isNotNull(log.claimed_amount), log.version, log.event_type = 'ClaimCreated') AS f_has_claimed_amount,
        argMaxIf(assumeNotNull(log.claimed_currency), log.version, log.event_type = 'ClaimCreated') AS f_claimed_currency,
        argMaxIf(isNotNull(log.claimed_currency), log.version, log.event_type = 'ClaimCreated') AS f_has_claimed_currency,
        argMaxIf(log.agent_id, log.version, log.event_type IN ('ClaimAssigned', 'ClaimReassigned')) AS f_agent_id,
        argMaxIf(log.agent_name, log.version, log.event_type IN ('ClaimAssigned', 'ClaimReassigned')) AS f_agent_name,
        argMaxIf(assumeNotNull(log.estimated_resolution_at), log.version, log.event_type = 'ClaimAssigned') AS f_estimated_resolution_at,
        argMaxIf(isNotNull(log.estimated_resolution_at), log.version, log.event_type = 'ClaimAssigned') AS f_has_estimated_resolution_at,
        argMaxIf(log.event_type = 'ClaimResolved', log.version, log.event_type IN ('ClaimResolved', 'ClaimReopened')) AS f_is_resolved,
        argMaxIf(log.resolution, log.version, log.event_type = 'ClaimResolved') AS f_resolution,
        argMaxIf(log.resolution_type, log.version, log.event_type = 'ClaimResolved') AS f_resolution_type,
        argMaxIf(assumeNotNull(log.customer_satisfaction), log.version, log.event_type IN ('ClaimResolved', 'ClaimReopened')) AS f_customer_satisfaction,
        argMaxIf(isNotNull(log.customer_satisfaction), log.version, log.event_type IN ('ClaimResolved', 'ClaimReopened')) AS f_has_customer_satisfaction,
        argMaxIf(log.follow_up_required, log.version, log.event_type = 'ClaimResolved') AS f_follow_up_required,
        argMaxIf(assumeNotNull(log.replacement_tracking), log.version, log.event_type IN ('ClaimResolved', 'ClaimReopened')) AS f_replacement_tracking,
        argMaxIf(isNotNull(log.replacement_tracking), log.version, log.event_type IN ('ClaimResolved', 'ClaimReopened')) AS f_has_replacement_tracking,
        argMaxIf(assumeNotNull(log.settled_amount), log.version, log.event_type IN ('ClaimResolved', 'ClaimReopened')) AS f_settled_amount,
        argMaxIf(isNotNull(log.settled_amount), log.version, log.event_type IN ('ClaimResolved', 'ClaimReopened')) AS f_has_settled_amount,
        argMaxIf(assumeNotNull(log.settled_currency), log.version, log.event_type IN ('ClaimResolved', 'ClaimReopened')) AS f_settled_currency,
        argMaxIf(isNotNull(log.settled_currency), log.version, log.event_type IN ('ClaimResolved', 'ClaimReopened')) AS f_has_settled_currency,
        argMaxOrNullIf(log.occurred_at, log.version, log.event_type = 'ClaimCreated') AS f_created_at,
        argMaxIf(log.occurred_at, log.version, log.event_type = 'ClaimResolved') AS f_resolved_at,
        argMaxIf(log.event_type = 'ClaimClosed', log.version, log.event_type IN ('ClaimClosed', 'ClaimReopened')) AS f_is_closed,
        argMaxIf(log.occurred_at, log.version, log.event_type = 'ClaimClosed') AS f_closed_at,
        argMax(log.occurred_at, log.version) AS f_updated_at,
        countIf(log.event_type = 'ClaimReopened') AS f_reopen_count,
        countIf(log.event_type = 'ClaimReassigned') AS f_reassignment_count,
        countIf(log.event_type = 'ClaimNoteAdded') AS f_note_count
    FROM event_log AS log FINAL
    GROUP BY log.tenant_id, log.claim_id
);

-- All claims of one customer without folding everybody else's: SELECT * FROM claims_of_customer(tenant = '...', customer = '...').
CREATE VIEW IF NOT EXISTS claims_of_customer AS
SELECT *
FROM latest
WHERE (tenant_id, claim_id) IN
(
    SELECT tenant_id, claim_id FROM event_log WHERE tenant_id = {tenant:String} AND customer_id = {customer:String}
)
  AND customer_id = {customer:String};

CREATE VIEW IF NOT EXISTS status_counts COMMENT 'Claims by status' AS
SELECT tenant_id, status, count() AS claims
FROM latest
GROUP BY tenant_id, status;

-- Amounts are summed per currency ('' where the source names none): sums across currencies would be wrong numbers.
CREATE VIEW IF NOT EXISTS customer_stats COMMENT 'One row per customer; claims without a known customer are left out' AS
SELECT
    tenant_id,
    customer_id,
    count() AS claims,
    countIf(status IN ('CREATED', 'ASSIGNED', 'PROCESSING')) AS open_claims,
    countIf(status = 'RESOLVED') AS resolved_claims,
    countIf(status = 'CLOSED') AS closed_claims,
    countIf(reopen_count > 0) AS reopened_claims,
    sumMapIf(map(ifNull(claimed_currency, ''), assumeNotNull(claimed_amount)), isNotNull(claimed_amount)) AS claimed_by_currency,
    sumMapIf(map(ifNull(settled_currency, ''), assumeNotNull(settled_amount)), isNotNull(settled_amount)) AS settled_by_currency,
    avg(dateDiff('millisecond', created_at, resolved_at)) / 3600000 AS avg_resolution_hours,
    min(created_at) AS first_claim_at,
    max(created_at) AS last_claim_at,
    max(updated_at) AS last_activity_at
FROM latest
WHERE isNotNull(customer_id)
GROUP BY tenant_id, customer_id;

CREATE VIEW IF NOT EXISTS agent_stats COMMENT 'One row per agent over the claims that he or she holds now; claims without an agent are left out' AS
SELECT
    tenant_id,
    agent_id,
    argMax(latest.agent_name, updated_at) AS agent_name,
    count() AS claims,
    countIf(status IN ('CREATED', 'ASSIGNED', 'PROCESSING')) AS open_claims,
    countIf(status = 'RESOLVED') AS resolved_claims,
    countIf(status = 'CLOSED') AS closed_claims,
    countIf(reopen_count > 0) AS reopened_claims,
    countIf(isNotNull(created_at) AND isNotNull(resolved_at)) AS with_resolution_time,
    avg(dateDiff('millisecond', created_at, resolved_at)) / 3600000 AS avg_resolution_hours,
    quantileExactInclusive(0.5)(dateDiff('millisecond', created_at, resolved_at)) / 3600000 AS median_resolution_hours,
    quantileExactInclusive(0.9)(dateDiff('millisecond', created_at, resolved_at)) / 3600000 AS p90_resolution_hours,
    max(updated_at) AS last_activity_at
FROM latest
WHERE isNotNull(agent_id)
GROUP BY tenant_id, agent_id;

CREATE VIEW IF NOT EXISTS claim_type_stats COMMENT 'One row per claim type; NULL: claims of which no creation is known' AS
SELECT
    tenant_id,
    claim_type,
    count() AS claims,
    countIf(status IN ('CREATED', 'ASSIGNED', 'PROCESSING')) AS open_claims,
    countIf(status = 'RESOLVED') AS resolved_claims,
    countIf(status = 'CLOSED') AS closed_claims,
    countIf(reopen_count > 0) AS reopened_claims,
    sumMapIf(map(ifNull(claimed_currency, ''), assumeNotNull(claimed_amount)), isNotNull(claimed_amount)) AS claimed_by_currency,
    sumMapIf(map(ifNull(settled_currency, ''), assumeNotNull(settled_amount)), isNotNull(settled_amount)) AS settled_by_currency,
    countIf(isNotNull(created_at) AND isNotNull(resolved_at)) AS with_resolution_time,
    avg(dateDiff('millisecond', created_at, resolved_at)) / 3600000 AS avg_resolution_hours,
    quantileExactInclusive(0.5)(dateDiff('millisecond', created_at, resolved_at)) / 3600000 AS median_resolution_hours,
    quantileExactInclusive(0.9)(dateDiff('millisecond', created_at, resolved_at)) / 3600000 AS p90_resolution_hours
FROM latest
GROUP BY tenant_id, claim_type;

CREATE VIEW IF NOT EXISTS daily_flow COMMENT 'What happened per day (UTC): numbers of events, so a claim resolved twice counts twice' AS
SELECT
    tenant_id,
    toDate32(occurred_at) AS day,
    countIf(event_type = 'ClaimCreated') AS created,
    countIf(event_type = 'ClaimResolved') AS resolved,
    countIf(event_type = 'ClaimClosed') AS closed,
    countIf(event_type = 'ClaimReopened') AS reopened
FROM event_log FINAL
WHERE event_type IN ('ClaimCreated', 'ClaimResolved', 'ClaimClosed', 'ClaimReopened')
GROUP BY tenant_id, day;

-- Which topic the events were read from: one that was deleted and made anew has another id.
CREATE TABLE IF NOT EXISTS source_topic
(
    topic String COMMENT 'The events topic',
    topic_id String COMMENT 'The id that Kafka gave it when it was made',
    noted_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC') COMMENT 'When this was written'
)
ENGINE = ReplacingMergeTree(noted_at)
ORDER BY topic
COMMENT 'Which topic the events were read from';

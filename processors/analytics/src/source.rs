//! Which topic the rows were read from, kept beside them: rows of a topic that was deleted and made anew must not mix with
//! those of its successor unless somebody has decided so.

use crate::schema::{EVENT_LOG, SchemaError, Session};
use claims_topology::{config::ClickHouseConfig, source::SourceTopic};
use clickhouse::Row;
use serde::Deserialize;

#[derive(Debug, Row, Deserialize)]
struct Noted {
    topic_id: String,
}

#[derive(Debug, Row, Deserialize)]
struct Count {
    rows: u64,
}

/// Notes the topic that is read. Refused if the rows are of another one of that name, unless there are none, or the group's
/// offsets are of the new one: then `claims replay` has taken it.
pub async fn note(config: &ClickHouseConfig, topic: &str, source: &SourceTopic) -> Result<(), SchemaError> {
    let Some(topic_id) = &source.topic_id else { return Ok(()) };
    let session = Session::new(config);
    let name = quoted(topic);
    let select = format!("SELECT topic_id FROM source_topic FINAL WHERE topic = {name}");
    let noted = session.fetch::<Noted>("read source_topic", &select).await?;
    match noted.first() {
        Some(noted) if noted.topic_id == *topic_id => return Ok(()),
        Some(noted) => {
            let count = format!("SELECT count() AS rows FROM {EVENT_LOG}");
            let counted = session.fetch::<Count>("count the events", &count).await?;
            let rows = counted.first().map_or(0, |count| count.rows);
            if rows > 0 && !source.is_taken() {
                return Err(SchemaError::TopicMadeAnew {
                    database: config.database.clone(),
                    topic: topic.to_owned(),
                    found: noted.topic_id.clone(),
                    wanted: topic_id.clone(),
                });
            }
            tracing::warn!(topic, former = noted.topic_id, now = topic_id, "the topic was made anew");
        }
        None => {}
    }
    let insert = format!("INSERT INTO source_topic (topic, topic_id) VALUES ({name}, {})", quoted(topic_id));
    session.run(&session.client, "note the topic", &insert).await
}

/// A text in quotes.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

//! Which topic the rows were made from, kept beside them: a process whose local store is new, or gone, must not go on
//! with the rows of a topic that was deleted and made anew, unless somebody has decided so.

use super::{
    errors,
    schema::{CLAIM_BY_ID, CLAIMS_SOURCE_TOPIC},
};
use claims_runtime::SinkError;
use claims_topology::source::SourceTopic;
use scylla::client::session::Session;

/// Notes the topic that is read. Refused if the rows are of another one of that name, unless there are none, or the
/// group's offsets are of the new one: then `claims replay` has taken it.
pub async fn note(
    session: &Session,
    keyspace: &str,
    topic: &str,
    source: &SourceTopic,
) -> Result<(), SinkError> {
    let Some(topic_id) = &source.topic_id else { return Ok(()) };
    let select = format!("SELECT topic_id FROM {keyspace}.{CLAIMS_SOURCE_TOPIC} WHERE topic = ?");
    let found = session
        .query_unpaged(select, (topic,))
        .await
        .map_err(|e| errors::setup("read the noted topic", &e))?
        .into_rows_result()
        .map_err(|e| SinkError::Fatal(e.to_string()))?
        .maybe_first_row::<(String,)>()
        .map_err(|e| SinkError::Fatal(e.to_string()))?;
    match found {
        Some((found,)) if found == *topic_id => return Ok(()),
        Some((found,)) if !source.is_taken() && holds_claims(session, keyspace).await? => {
            return Err(SinkError::Fatal(format!(
                "keyspace {keyspace} holds the claims of topic {topic} with id {found}; it was made anew and now has id \
                 {topic_id}. If it holds the same events, go on with `claims replay current-state --to-beginning`; else \
                 TRUNCATE the tables first"
            )));
        }
        Some((former,)) => tracing::warn!(topic, former, now = topic_id, "the topic was made anew"),
        None => {}
    }
    let insert = format!("INSERT INTO {keyspace}.{CLAIMS_SOURCE_TOPIC} (topic, topic_id) VALUES (?, ?)");
    session
        .query_unpaged(insert, (topic, topic_id))
        .await
        .map(drop)
        .map_err(|e| errors::setup("note the topic", &e))
}

async fn holds_claims(session: &Session, keyspace: &str) -> Result<bool, SinkError> {
    let select = format!("SELECT claim_id FROM {keyspace}.{CLAIM_BY_ID} LIMIT 1");
    let rows = session.query_unpaged(select, ()).await.map_err(|e| errors::setup("look for claims", &e))?;
    let rows = rows.into_rows_result().map_err(|e| SinkError::Fatal(e.to_string()))?;
    Ok(rows.rows_num() > 0)
}

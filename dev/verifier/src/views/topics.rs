//! Topics: the state of every claim, and the dead letters.

use crate::{
    claim::{Claim, Claims},
    namespace::{Namespace, REQUEST_TIMEOUT},
};
use anyhow::{Context, Result, bail, ensure};
use apache_avro::{Schema, reader::datum::GenericDatumReader, types::Value};
use rdkafka::{
    Message, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::{BorrowedMessage, Headers},
    topic_partition_list::Offset,
};
use rust_decimal::Decimal;
use std::collections::{HashMap, HashSet};

/// The highest revision of every claim in the state topic that is not erased, decoded with the schema that the
/// registry has.
pub async fn claims(namespace: &Namespace) -> Result<Claims> {
    let topic = namespace.state_topic();
    let schema = latest_schema(namespace, &format!("{topic}-value")).await?;
    let reader = GenericDatumReader::builder(&schema).build()?;
    let mut claims = Claims::new();
    let mut erased = HashSet::new();
    each_record(namespace, &topic, |message| {
        let Some(payload) = message.payload() else {
            let key = String::from_utf8_lossy(message.key().context("a tombstone without a key")?);
            let (tenant, claim) = key.split_once(':').with_context(|| format!("tombstone key {key}"))?;
            erased.insert((tenant.to_owned(), claim.to_owned()));
            return Ok(());
        };
        let body = payload.get(5..).context("a state record without framing")?;
        let Value::Record(fields) = reader.read_value(&mut &body[..])? else {
            bail!("a state that is no record");
        };
        let fields: HashMap<String, Value> = fields.into_iter().collect();
        let (key, claim) = claim(&fields)?;
        if claims.get(&key).is_none_or(|known| known.revision <= claim.revision) {
            claims.insert(key, claim);
        }
        Ok(())
    })?;
    claims.retain(|key, _| !erased.contains(key));
    Ok(claims)
}

/// Claims whose last record in the state topic is not the one of their highest revision. Compaction keeps the last record
/// of a key: the claim would be stale for whoever reads the topic then.
pub fn stale_last_states(namespace: &Namespace) -> Result<Vec<String>> {
    let mut revisions: HashMap<String, (u64, u64)> = HashMap::new();
    each_record(namespace, &namespace.state_topic(), |message| {
        let key = String::from_utf8_lossy(message.key().context("a state without a key")?).into_owned();
        let revision = header(message, "revision").context("a state without a revision")?.parse()?;
        let (highest, last) = revisions.entry(key).or_default();
        *highest = (*highest).max(revision);
        *last = revision;
        Ok(())
    })?;
    let stale = revisions.into_iter().filter(|(_, (highest, last))| last < highest);
    Ok(stale
        .map(|(key, (highest, last))| format!("{key} ends with revision {last} after {highest}"))
        .collect())
}

/// How many dead letters name this processor and this reason.
pub async fn dead_letters(namespace: &Namespace, processor: &str, reason: &str) -> Result<u64> {
    let mut count = 0;
    each_record(namespace, &namespace.dead_letters_topic(), |message| {
        if header(message, "processor").as_deref() == Some(processor)
            && header(message, "reason").as_deref() == Some(reason)
        {
            count += 1;
        }
        Ok(())
    })?;
    Ok(count)
}

/// A header's value as text.
pub fn header(message: &BorrowedMessage<'_>, name: &str) -> Option<String> {
    let headers = message.headers()?;
    let value = headers.iter().find(|header| header.key == name)?.value?;
    Some(String::from_utf8_lossy(value).into_owned())
}

/// Reads a topic from its beginning to its present end.
pub fn each_record(
    namespace: &Namespace,
    topic: &str,
    mut take: impl FnMut(&BorrowedMessage<'_>) -> Result<()>,
) -> Result<()> {
    let consumer: BaseConsumer = namespace
        .kafka_client()
        .set("group.id", format!("{}.verifier", namespace.name))
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("fetch.message.max.bytes", "16777216")
        // The end of a partition is told by a fetch that finds nothing new, and waits for it so long.
        .set("fetch.wait.max.ms", "20")
        .create()?;
    let metadata = consumer.fetch_metadata(Some(topic), REQUEST_TIMEOUT)?;
    let partitions = metadata.topics().first().map_or(0, |t| t.partitions().len());
    ensure!(partitions > 0, "no topic {topic}");
    let mut assignment = TopicPartitionList::new();
    for partition in 0..i32::try_from(partitions)? {
        assignment.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&assignment)?;
    let mut ended = 0;
    while ended < partitions {
        match consumer.poll(REQUEST_TIMEOUT) {
            Some(Ok(message)) => take(&message)?,
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => ended += 1,
            Some(Err(error)) => return Err(error).with_context(|| format!("read {topic}")),
            None => bail!("{topic}: no record and no end within {} s", REQUEST_TIMEOUT.as_secs()),
        }
    }
    Ok(())
}

async fn latest_schema(namespace: &Namespace, subject: &str) -> Result<Schema> {
    Ok(Schema::parse_str(&latest_schema_text(namespace, subject).await?)?)
}

async fn ask(url: &str) -> Result<serde_json::Value> {
    let client = reqwest::Client::builder().timeout(REQUEST_TIMEOUT).build()?;
    Ok(client.get(url).send().await?.error_for_status()?.json().await?)
}

/// The newest schema of a subject.
async fn latest_schema_text(namespace: &Namespace, subject: &str) -> Result<String> {
    let url = format!("{}/subjects/{subject}/versions/latest", namespace.registry());
    let answer = ask(&url).await?;
    let schema =
        answer.get("schema").and_then(serde_json::Value::as_str).context("no schema in the answer")?;
    Ok(schema.to_owned())
}

/// The id of the newest schema of a subject.
pub async fn latest_schema_id(namespace: &Namespace, subject: &str) -> Result<u32> {
    let url = format!("{}/subjects/{subject}/versions/latest", namespace.registry());
    let answer = ask(&url).await?;
    let id = answer.get("id").and_then(serde_json::Value::as_u64).context("no id in the answer")?;
    Ok(u32::try_from(id)?)
}

/// A schema by its id.
pub async fn schema_text(namespace: &Namespace, id: u32) -> Result<String> {
    let url = format!("{}/schemas/ids/{id}", namespace.registry());
    let answer = ask(&url).await?;
    let schema = answer.get("schema").and_then(serde_json::Value::as_str);
    Ok(schema.context("no schema in the answer")?.to_owned())
}

fn claim(fields: &HashMap<String, Value>) -> Result<((String, String), Claim)> {
    let field =
        |name: &str| fields.get(name).map(plain).with_context(|| format!("the state has no field {name}"));
    let text = |name: &str| -> Result<Option<String>> {
        Ok(match field(name)? {
            Value::Null => None,
            Value::String(text) | Value::Enum(_, text) => Some(text.clone()),
            other => bail!("{name} is {other:?}"),
        })
    };
    let required = |name: &str| text(name)?.with_context(|| format!("{name} is null"));
    let number = |name: &str| -> Result<u64> {
        Ok(match field(name)? {
            Value::Long(n) => u64::try_from(*n)?,
            Value::Int(n) => u64::try_from(*n)?,
            other => bail!("{name} is {other:?}"),
        })
    };
    let time = |name: &str| -> Result<Option<i64>> {
        Ok(match field(name)? {
            Value::Null => None,
            Value::TimestampMillis(at) | Value::Long(at) => Some(*at),
            other => bail!("{name} is {other:?}"),
        })
    };
    let amount = |name: &str| -> Result<Option<Decimal>> { money(field(name)?) };
    let claim = Claim {
        status: required("status")?,
        version: number("version")?,
        revision: number("revision")?,
        customer_id: text("customer_id")?,
        claim_type: text("claim_type")?,
        urgency: text("urgency")?,
        description: text("description")?,
        agent_id: text("agent_id")?,
        resolution_type: text("resolution_type")?,
        claimed_amount: amount("claimed")?,
        settled_amount: amount("settled")?,
        created_at: time("created_at")?,
        resolved_at: time("resolved_at")?,
        closed_at: time("closed_at")?,
        updated_at: time("updated_at")?,
        reopen_count: number("reopen_count")?,
        reassignment_count: number("reassignment_count")?,
        note_count: number("note_count")?,
        customer_name: text("customer_name")?,
        customer_email: text("customer_email")?,
        title: text("title")?,
        product_id: text("product_id")?,
        order_id: text("order_id")?,
        agent_name: text("agent_name")?,
        resolution: text("resolution")?,
    };
    Ok(((required("tenant_id")?, required("claim_id")?), claim))
}

/// The value inside a union.
fn plain(value: &Value) -> &Value {
    match value {
        Value::Union(_, inner) => plain(inner),
        other => other,
    }
}

fn money(value: &Value) -> Result<Option<Decimal>> {
    let Value::Record(fields) = value else {
        return Ok(None);
    };
    let amount = fields.iter().find(|(name, _)| name == "amount").map(|(_, value)| plain(value));
    let Some(Value::Decimal(amount)) = amount else {
        bail!("an amount that is {amount:?}");
    };
    let bytes = <Vec<u8>>::try_from(amount)?;
    let negative = bytes.first().is_some_and(|byte| *byte >= 0x80);
    let start: i128 = if negative { -1 } else { 0 };
    let unscaled = bytes.iter().fold(start, |sum, byte| (sum << 8) | i128::from(*byte));
    Ok(Some(Decimal::try_from_i128_with_scale(unscaled, 4)?))
}

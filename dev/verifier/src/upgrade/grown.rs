//! Events as a newer build will write them: with a schema that has one field more.

use anyhow::{Context, Result, bail, ensure};
use apache_avro::{
    Schema, reader::datum::GenericDatumReader, types::Value, writer::datum::GenericDatumWriter,
};
use claims_verifier::{namespace::Namespace, pipeline::Pipeline, views::topics};
use rdkafka::{
    Message,
    message::OwnedHeaders,
    producer::{BaseProducer, BaseRecord, Producer},
};
use serde_json::{Value as Json, json};
use std::{ops::RangeBounds, path::Path, time::Duration};

/// Bytes of Confluent framing: a zero, and the schema's id.
const FRAME_BYTES: usize = 5;
/// The event type whose data grows …
pub const GROWING: &str = "ClaimCreated";
/// … by this field, which may be missing, …
const FIELD: &str = "channel";
/// … and has this value.
pub const CHANNEL: &str = "web";
/// Records are flushed for so long at most.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(60);

/// Records for the events topic.
pub struct Grown {
    /// In the order of each partition's log.
    pub records: Vec<Record>,
}

/// One of them.
pub struct Record {
    partition: i32,
    key: Vec<u8>,
    headers: OwnedHeaders,
    value: Vec<u8>,
}

/// The events of a file as the newer schema has them. Ingress writes them into a topic beside, from where they are
/// taken and encoded anew.
pub async fn records(pipeline: &Pipeline, file: &Path) -> Result<Grown> {
    let aside = pipeline.namespace.topic("claims.aside.v1");
    let writer = pipeline.clone().with("CLAIMS_TOPICS__EVENTS", &aside);
    writer.prepare()?;
    writer.run(&["ingest", "--format", "ndjson", &file.display().to_string()])?;
    let namespace = &pipeline.namespace;
    let subject = format!("{}-value", namespace.events_topic);
    // That of the topic beside: the registry keeps the grown one of an earlier run.
    let former = topics::latest_schema_text(namespace, &format!("{aside}-value")).await?;
    let grown = grow(&former)?;
    let id = register(namespace, &subject, &grown).await?;
    let (former, grown) = (Schema::parse_str(&former)?, Schema::parse_str(&grown)?);
    let reader = GenericDatumReader::builder(&former).build()?;
    let writer = GenericDatumWriter::builder(&grown).build()?;
    let mut records = Vec::new();
    topics::each_record(namespace, &aside, |message| {
        let payload = message.payload().context("a tombstone")?;
        let mut body = payload.get(FRAME_BYTES..).context("a value without framing")?;
        let mut event = reader.read_value(&mut body)?;
        fill(&mut event)?;
        let mut value = vec![0];
        value.extend(id.to_be_bytes());
        value.extend(writer.write_value_to_vec(event)?);
        records.push(Record {
            partition: message.partition(),
            key: message.key().context("no key")?.to_vec(),
            headers: message.headers().map(|headers| headers.detach()).unwrap_or_default(),
            value,
        });
        Ok(())
    })?;
    ensure!(!records.is_empty(), "no event to encode anew");
    Ok(Grown { records })
}

impl Grown {
    /// Writes some of the records into the events topic.
    pub fn produce(
        &self,
        pipeline: &Pipeline,
        range: impl RangeBounds<usize> + std::slice::SliceIndex<[Record], Output = [Record]>,
    ) -> Result<()> {
        let mut client = pipeline.namespace.kafka_client();
        let producer: BaseProducer = client.set("enable.idempotence", "true").create()?;
        for record in self.records.get(range).unwrap_or_default() {
            let message = BaseRecord::to(&pipeline.namespace.events_topic)
                .partition(record.partition)
                .key(&record.key)
                .payload(&record.value)
                .headers(record.headers.clone());
            producer.send(message).map_err(|(error, _)| error)?;
        }
        Ok(producer.flush(FLUSH_TIMEOUT)?)
    }
}

/// The schema with one optional field more.
fn grow(schema: &str) -> Result<String> {
    let mut schema: Json = serde_json::from_str(schema)?;
    let fields = find(&mut schema, GROWING)
        .and_then(|record| record.get_mut("fields"))
        .and_then(Json::as_array_mut)
        .with_context(|| format!("the schema has no record {GROWING}"))?;
    fields.push(json!({"name": FIELD, "type": ["null", "string"], "default": null}));
    Ok(schema.to_string())
}

/// The definition of a named record, wherever it stands.
fn find<'a>(schema: &'a mut Json, name: &str) -> Option<&'a mut Json> {
    let is_it = |object: &serde_json::Map<String, Json>| {
        object.get("name").and_then(Json::as_str) == Some(name) && object.contains_key("fields")
    };
    if schema.as_object().is_some_and(is_it) {
        return Some(schema);
    }
    match schema {
        Json::Object(object) => object.values_mut().find_map(|value| find(value, name)),
        Json::Array(list) => list.iter_mut().find_map(|value| find(value, name)),
        _ => None,
    }
}

/// Adds the new field, with a value, to events that have it: what a newer writer says beyond what a build knows makes its
/// partition wait for the upgrade.
fn fill(event: &mut Value) -> Result<()> {
    let Value::Record(fields) = event else { bail!("an event that is no record") };
    let is_growing = fields.iter().any(
        |(name, value)| matches!((name.as_str(), value), ("event_type", Value::String(t)) if t == GROWING),
    );
    let data = fields.iter_mut().find(|(name, _)| name == "data").map(|(_, value)| value);
    if is_growing {
        let Some(Value::Union(_, data)) = data else { bail!("data that is no union") };
        let Value::Record(data) = data.as_mut() else { bail!("data that is no record") };
        data.push((FIELD.to_owned(), Value::Union(1, Box::new(Value::String(CHANNEL.to_owned())))));
    }
    Ok(())
}

/// Registers a schema; its id.
async fn register(namespace: &Namespace, subject: &str, schema: &str) -> Result<u32> {
    let url = format!("{}/subjects/{subject}/versions", namespace.registry());
    let body = json!({"schema": schema});
    let response = reqwest::Client::new().post(&url).json(&body).send().await?;
    ensure!(response.status().is_success(), "{url}: {}", response.text().await?);
    let answer: Json = response.json().await?;
    let id = answer.get("id").and_then(Json::as_u64).with_context(|| format!("no id in {answer}"))?;
    Ok(u32::try_from(id)?)
}

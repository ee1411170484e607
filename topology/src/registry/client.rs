//! Requests to the registry: schemas through schema_registry_converter, compatibility levels by plain HTTP.

use super::{RegistryError, request_timeout};
use crate::config::RegistryConfig;
use reqwest::{Method, StatusCode};
use schema_registry_converter::{
    async_impl::schema_registry::{
        SrSettings, get_all_subjects, get_schema_by_id, get_schema_by_subject_and_version, perform_sr_call,
        post_schema,
    },
    error::SRCError,
    schema_registry_common::{RawError, RegisteredSchema, SchemaType, SrCall, SuppliedSchema},
};
use serde_json::{Value, json};
use std::error::Error as _;

const CONTENT_TYPE: &str = "application/vnd.schemaregistry.v1+json";
/// How much of an answer that nobody understands is shown.
const MAX_SHOWN_CHARS: usize = 500;

/// A client of one registry. Every request is given up after the configured time.
#[derive(Debug, Clone)]
pub struct RegistryClient {
    settings: SrSettings,
    http: reqwest::Client,
    config: RegistryConfig,
}

impl RegistryClient {
    /// A client for the configured registry; connects with the first request.
    pub fn new(config: &RegistryConfig) -> Result<Self, RegistryError> {
        let url = config.url.trim_end_matches('/').to_owned();
        let mut builder = SrSettings::new_builder(url.clone());
        builder.set_timeout(request_timeout(config));
        if let Some(username) = &config.username {
            builder.set_basic_authorization(username, config.password.as_ref().map(|p| p.expose()));
        }
        let settings = builder.build().map_err(|error| RegistryError::Settings(error.to_string()))?;
        let http = reqwest::Client::builder()
            .timeout(request_timeout(config))
            .build()
            .map_err(|error| RegistryError::Settings(error.to_string()))?;
        Ok(Self { settings, http, config: RegistryConfig { url, ..config.clone() } })
    }

    /// The configured URL.
    pub fn url(&self) -> &str {
        &self.config.url
    }

    /// The schema with this id.
    pub async fn by_id(&self, schema_id: u32) -> Result<RegisteredSchema, RegistryError> {
        match get_schema_by_id(schema_id, &self.settings).await {
            Ok(schema) => Ok(schema),
            Err(error) => match Answer::of(&error) {
                Answer::NotFound => Err(RegistryError::NotFound { what: format!("schema {schema_id}") }),
                Answer::Bare404 => self.judge_bare_404(schema_id).await,
                Answer::Refused(detail) | Answer::Away(detail) => Err(self.away(detail)),
            },
        }
    }

    /// A 404 without the registry's own words may come from a wrong path or a proxy. If the registry lists its
    /// subjects under the same URL, it is a registry, and the id is missing.
    async fn judge_bare_404(&self, schema_id: u32) -> Result<RegisteredSchema, RegistryError> {
        match get_all_subjects(&self.settings).await {
            Ok(_) => Err(RegistryError::NotFound { what: format!("schema {schema_id}") }),
            Err(_) => {
                Err(self.away("404 Not Found, and no list of subjects either; is the URL right?".into()))
            }
        }
    }

    /// The latest version of a subject; `None` if it has none.
    pub async fn latest(&self, subject: &str) -> Result<Option<RegisteredSchema>, RegistryError> {
        match get_schema_by_subject_and_version(&self.settings, subject, None).await {
            Ok(schema) => Ok(Some(schema)),
            Err(error) => match Answer::of(&error) {
                Answer::NotFound => Ok(None),
                Answer::Bare404 => Err(self.away("404 Not Found; is the URL right?".into())),
                Answer::Refused(detail) | Answer::Away(detail) => Err(self.away(detail)),
            },
        }
    }

    /// The registered version that is the same as this schema; `None` if it isn't registered.
    pub async fn find(
        &self,
        subject: &str,
        schema: &str,
    ) -> Result<Option<RegisteredVersion>, RegistryError> {
        let body = json!({ "schema": schema, "schemaType": "AVRO" }).to_string();
        match perform_sr_call(&self.settings, SrCall::PostForVersion(subject, &body)).await {
            Ok(raw) => Ok(raw.id.map(|id| RegisteredVersion { id, version: raw.version.unwrap_or(0) })),
            Err(error) => match Answer::of(&error) {
                Answer::NotFound => Ok(None),
                Answer::Bare404 => Err(self.away("404 Not Found; is the URL right?".into())),
                Answer::Refused(detail) | Answer::Away(detail) => Err(self.away(detail)),
            },
        }
    }

    /// Registers a schema, or finds it registered; gives its id.
    pub async fn register(&self, subject: &str, schema: &str) -> Result<u32, RegistryError> {
        let supplied = SuppliedSchema::new(None, SchemaType::Avro, schema.to_owned());
        match post_schema(&self.settings, subject.to_owned(), supplied).await {
            Ok(registered) => Ok(registered.id),
            Err(error) => match Answer::of(&error) {
                Answer::Refused(detail) => Err(RegistryError::Refused {
                    action: format!("register a schema under {subject}"),
                    detail,
                }),
                Answer::NotFound | Answer::Bare404 => {
                    Err(self.away("404 Not Found; is the URL right?".into()))
                }
                Answer::Away(detail) => Err(self.away(detail)),
            },
        }
    }

    /// The subject's own compatibility level; `None` if it has none of its own.
    pub async fn compatibility_level(&self, subject: &str) -> Result<Option<String>, RegistryError> {
        let (status, body) = self.request(Method::GET, &format!("config/{}", escaped(subject)), None).await?;
        match status {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => {
                let level = body.get("compatibilityLevel").or_else(|| body.get("compatibility"));
                Ok(level.and_then(Value::as_str).map(str::to_owned))
            }
            status => Err(self.failed(&format!("read the compatibility level of {subject}"), status, &body)),
        }
    }

    /// Sets the subject's compatibility level.
    pub async fn set_compatibility_level(&self, subject: &str, level: &str) -> Result<(), RegistryError> {
        let request = json!({ "compatibility": level });
        let path = format!("config/{}", escaped(subject));
        let (status, body) = self.request(Method::PUT, &path, Some(&request)).await?;
        if status.is_success() {
            return Ok(());
        }
        Err(self.failed(&format!("set the compatibility level of {subject} to {level}"), status, &body))
    }

    /// Asks whether a schema could be registered under the subject's level: what stands in the way, if anything.
    pub async fn incompatibilities(
        &self,
        subject: &str,
        schema: &str,
    ) -> Result<Option<Vec<String>>, RegistryError> {
        let request = json!({ "schema": schema, "schemaType": "AVRO" });
        let path = format!("compatibility/subjects/{}/versions?verbose=true", escaped(subject));
        let (status, body) = self.request(Method::POST, &path, Some(&request)).await?;
        if !status.is_success() {
            return Err(self.failed(&format!("check a schema against {subject}"), status, &body));
        }
        if body.get("is_compatible").and_then(Value::as_bool) == Some(true) {
            return Ok(None);
        }
        // Confluent's registry lists `messages`, Apicurio gives one `reason`.
        let messages = body.get("messages").and_then(Value::as_array);
        let messages =
            messages.into_iter().flatten().chain(body.get("reason").filter(|reason| !reason.is_null()));
        let messages = messages.map(|m| m.as_str().map_or(m.to_string(), str::to_owned));
        Ok(Some(messages.collect()))
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Value), RegistryError> {
        let mut request = self.http.request(method, format!("{}/{path}", self.config.url));
        if let Some(username) = &self.config.username {
            request = request.basic_auth(username, self.config.password.as_ref().map(|p| p.expose()));
        }
        if let Some(body) = body {
            request = request.header("content-type", CONTENT_TYPE).body(body.to_string());
        }
        let response = request.send().await.map_err(|error| self.away(with_causes(&error)))?;
        let status = response.status();
        let text = response.text().await.map_err(|error| self.away(with_causes(&error)))?;
        if status.is_server_error() {
            return Err(self.away(format!("{status}: {}", shown(&text))));
        }
        let value = serde_json::from_str(&text).unwrap_or_else(|_| Value::String(shown(&text)));
        Ok((status, value))
    }

    fn failed(&self, action: &str, status: StatusCode, body: &Value) -> RegistryError {
        let message =
            body.get("message").and_then(Value::as_str).map_or_else(|| body.to_string(), str::to_owned);
        RegistryError::Refused { action: action.to_owned(), detail: format!("{status}: {}", shown(&message)) }
    }

    fn away(&self, detail: String) -> RegistryError {
        RegistryError::Unavailable { url: self.config.url.clone(), detail }
    }
}

/// A schema's place in a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegisteredVersion {
    /// The registry's id, as in the framing of records.
    pub id: u32,
    /// The version within the subject.
    pub version: u32,
}

/// What an error of the converter means.
enum Answer {
    /// The registry says that it has no such thing.
    NotFound,
    /// Somebody says 404, not in a registry's words.
    Bare404,
    /// The registry says no (4xx in its own words).
    Refused(String),
    /// No answer, or none that a registry gives.
    Away(String),
}

impl Answer {
    fn of(error: &SRCError) -> Self {
        let detail = || match &error.cause {
            Some(cause) => format!("{} ({cause})", error.error),
            None => error.error.clone(),
        };
        let Some(raw) = error.source().and_then(|source| source.downcast_ref::<RawError>()) else {
            return match error.source() {
                Some(source) => Answer::Away(format!("{}: {}", error.error, with_causes(source))),
                None => Answer::Away(detail()),
            };
        };
        // A registry that misses a subject, version or schema says 40401, 40402, 40403. A plain 404 is also what a
        // web server says of a path that it doesn't have.
        match raw.error_code {
            40_400..=40_499 => Answer::NotFound,
            409 | 422 | 40_900..=40_999 | 42_200..=42_299 => Answer::Refused(shown(&raw.message)),
            // The converter gives the status in its text only.
            0 | 404 if error.error.contains("status 404") => Answer::Bare404,
            _ => Answer::Away(detail()),
        }
    }
}

/// An error with what caused it: "connection refused" stands at the end of the chain.
fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn shown(text: &str) -> String {
    if text.chars().count() <= MAX_SHOWN_CHARS {
        return text.to_owned();
    }
    text.chars().take(MAX_SHOWN_CHARS).chain("…".chars()).collect()
}

fn escaped(subject: &str) -> String {
    subject.replace('%', "%25").replace('/', "%2F")
}

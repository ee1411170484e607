//! Fetching the schema that a record was written with, once per id.

use super::{RegistryClient, RegistryError, request_timeout};
use crate::config::Config;
use claims_runtime::{ResolveError, SchemaResolver};
use claims_schemas::{DecodeError, SchemaCache};
use schema_registry_converter::schema_registry_common::SchemaType;
use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::OnceCell;

/// The registry is not asked again for an id it doesn't have, or one that is of no use, for this long: a run of bad
/// records must not become a run of requests.
const REFUSED_TTL_MS: u64 = 10_000;
/// So many refused ids are remembered at most.
const MAX_REFUSED: usize = 10_000;

/// A request under way, and its answer for all who wait for it.
type Ask = OnceCell<Result<(), ResolveError>>;

/// Fetches schemas by id from the configured registry into a [`SchemaCache`]. Concurrent asks for one id share one
/// request; each ends within the registry's request timeout.
#[derive(Debug)]
pub struct RegistryResolver {
    client: RegistryClient,
    cache: SchemaCache,
    timeout: Duration,
    asks: Mutex<HashMap<u32, Arc<Ask>>>,
    refused: Mutex<HashMap<u32, (Instant, ResolveError)>>,
}

impl RegistryResolver {
    /// A resolver that fills `cache`.
    pub fn new(config: &Config, cache: SchemaCache) -> Result<Self, RegistryError> {
        Ok(Self {
            client: RegistryClient::new(&config.registry)?,
            cache,
            timeout: request_timeout(&config.registry),
            asks: Mutex::default(),
            refused: Mutex::default(),
        })
    }

    async fn resolve_once(&self, schema_id: u32) -> Result<(), ResolveError> {
        if let Some(error) = self.recently_refused(schema_id) {
            return Err(error);
        }
        let ask = Arc::clone(lock(&self.asks).entry(schema_id).or_default());
        let answer = ask.get_or_init(|| self.fetch(schema_id)).await.clone();
        let mut asks = lock(&self.asks);
        // Only the answered ask is taken away: somebody may have begun the next one.
        if asks.get(&schema_id).is_some_and(|current| Arc::ptr_eq(current, &ask)) {
            asks.remove(&schema_id);
        }
        answer
    }

    async fn fetch(&self, schema_id: u32) -> Result<(), ResolveError> {
        let answer = match tokio::time::timeout(self.timeout, self.client.by_id(schema_id)).await {
            Ok(Ok(schema)) if schema.schema_type != SchemaType::Avro => {
                Err(unusable(schema_id, format!("it is a {:?} schema, not an Avro one", schema.schema_type)))
            }
            Ok(Ok(schema)) => match self.cache.insert(schema_id, &schema.schema) {
                Ok(()) => Ok(()),
                // A newer writer is no bad data: the partition waits for the upgrade.
                Err(error @ DecodeError::UpgradeNeeded(_)) => {
                    Err(ResolveError::Unavailable(error.to_string()))
                }
                Err(error) => Err(unusable(schema_id, error.to_string())),
            },
            Ok(Err(RegistryError::NotFound { .. })) => Err(ResolveError::NotFound { schema_id }),
            Ok(Err(error)) => Err(ResolveError::Unavailable(error.to_string())),
            Err(_) => Err(ResolveError::Unavailable(format!("no answer within {:?}", self.timeout))),
        };
        match &answer {
            Ok(()) => tracing::info!(schema_id, "writer's schema fetched"),
            Err(ResolveError::Unavailable(_)) => {}
            Err(error) => self.remember_refused(schema_id, error),
        }
        answer
    }

    fn recently_refused(&self, schema_id: u32) -> Option<ResolveError> {
        let refused = lock(&self.refused);
        let (at, error) = refused.get(&schema_id)?;
        (at.elapsed() < Duration::from_millis(REFUSED_TTL_MS)).then(|| error.clone())
    }

    fn remember_refused(&self, schema_id: u32, error: &ResolveError) {
        let mut refused = lock(&self.refused);
        if refused.len() >= MAX_REFUSED {
            refused.retain(|_, (at, _)| at.elapsed() < Duration::from_millis(REFUSED_TTL_MS));
        }
        if refused.len() < MAX_REFUSED {
            refused.insert(schema_id, (Instant::now(), error.clone()));
        }
    }
}

impl SchemaResolver for RegistryResolver {
    fn resolve(&self, schema_id: u32) -> Pin<Box<dyn Future<Output = Result<(), ResolveError>> + Send + '_>> {
        Box::pin(self.resolve_once(schema_id))
    }
}

fn unusable(schema_id: u32, detail: String) -> ResolveError {
    ResolveError::Unusable { schema_id, detail }
}

/// The maps stay consistent whatever happens while they are locked, so a poisoned lock is as good as another.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

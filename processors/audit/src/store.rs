//! Where segments are kept: a folder, or a bucket of an S3-compatible object store.
//!
//! `<topic>/<partition>/<aaa>/<bbb>/<aaabbbccc>.parquet`, where `aaabbbccc` is the segment's number in its chain. No
//! folder ever holds more than 1000 entries, so the end of a chain is found with three bounded listings, whatever its
//! age, and no object is ever changed to remember it.

use bytes::Bytes;
use claims_topology::config::{AuditConfig, Secret};
use object_store::{
    BackoffConfig, ClientOptions, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutPayload,
    RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    local::LocalFileSystem,
    path::Path,
};
use std::{collections::BTreeMap, path::Path as FsPath, sync::Arc, time::Duration};

/// Segments in one folder, and folders in one folder.
const FAN_OUT: u64 = 1000;
/// One more than the last sequence number that the layout has a place for.
pub const MAX_SEGMENTS: u64 = FAN_OUT * FAN_OUT * FAN_OUT;
const EXTENSION: &str = ".parquet";

/// The end of a file that is read first: footer and Bloom filter of any usual segment, and the whole of a small one.
const TAIL_BYTES: u64 = 128 * 1024;
/// A segment larger than this was not written by this program.
const MAX_SEGMENT_BYTES: u64 = 1024 * 1024 * 1024;

const S3_REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
const S3_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const S3_MAX_RETRIES: usize = 3;
const S3_RETRY_TIMEOUT: Duration = Duration::from_secs(30);

/// Why the store can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The configuration names no usable store.
    #[error("audit.store = {location:?}: {problem}")]
    Config {
        /// What is configured.
        location: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The store did not do what was asked.
    #[error("{action} {path} in {store}: {source}")]
    Access {
        /// What was tried.
        action: &'static str,
        /// On which object or folder.
        path: String,
        /// In which store.
        store: String,
        /// What it said.
        source: Box<object_store::Error>,
    },
    /// An object that can't be a segment.
    #[error("{path} has {bytes} bytes, more than any segment")]
    TooLarge {
        /// The object.
        path: String,
        /// Its size.
        bytes: u64,
    },
    /// A chain has no place for another segment.
    #[error("the chain of partition {partition} is full: {MAX_SEGMENTS} segments")]
    Full {
        /// The partition.
        partition: i32,
    },
}

impl StoreError {
    /// Whether trying again may help: the store was away or slow, rather than refusing.
    pub fn is_transient(&self) -> bool {
        use object_store::Error as E;
        match self {
            StoreError::Access { source, .. } => !matches!(
                **source,
                E::NotFound { .. }
                    | E::PermissionDenied { .. }
                    | E::Unauthenticated { .. }
                    | E::NotSupported { .. }
                    | E::NotImplemented { .. }
                    | E::InvalidPath { .. }
                    | E::UnknownConfigurationKey { .. }
            ),
            StoreError::Config { .. } | StoreError::TooLarge { .. } | StoreError::Full { .. } => false,
        }
    }
}

/// What became of a segment that was to be new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It is there, durably.
    Created,
    /// There is one in its place already; nothing was changed.
    Exists,
}

/// The end of an object.
#[derive(Debug, Clone)]
pub struct Tail {
    /// Size of the whole object.
    pub object_bytes: u64,
    /// Its last bytes, or all of them.
    pub bytes: Bytes,
}

/// What one listing found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Numbers of the folders or segments found, ascending.
    pub numbers: Vec<u64>,
    /// Paths of whatever has no place there.
    pub strangers: Vec<String>,
}

/// The segments of all chains.
#[derive(Debug, Clone)]
pub struct SegmentStore {
    objects: Arc<dyn ObjectStore>,
    root: Path,
    name: String,
}

impl SegmentStore {
    /// The store that is configured, to write to: `s3://bucket/prefix`, or else a folder, made if it is missing.
    pub fn open(config: &AuditConfig) -> Result<Self, StoreError> {
        if let Some(folder) = folder_of(config)? {
            let refuse = |e: std::io::Error| config_error(&config.store, format!("can't be made: {e}"));
            std::fs::create_dir_all(folder).map_err(refuse)?;
        }
        Self::open_to_read(config)
    }

    /// The store that is configured; a folder must be there.
    pub fn open_to_read(config: &AuditConfig) -> Result<Self, StoreError> {
        match folder_of(config)? {
            Some(folder) => Self::folder(folder),
            None => Self::s3(&config.store, &config.store_options),
        }
    }

    /// A store in a folder, which must be there. Segments and their folders are synced to the disk before they count
    /// as written.
    pub fn folder(folder: &FsPath) -> Result<Self, StoreError> {
        let name = folder.display().to_string();
        let refuse = |problem: String| config_error(&name, problem);
        if !folder.is_dir() {
            return Err(refuse("there is no such folder".to_owned()));
        }
        let objects =
            LocalFileSystem::new_with_prefix(folder).map_err(|e| refuse(e.to_string()))?.with_fsync(true);
        Ok(Self { objects: Arc::new(objects), root: Path::default(), name })
    }

    /// A store under a prefix of a bucket. What `options` don't say is read from the usual `AWS_*` variables.
    pub fn s3(url: &str, options: &BTreeMap<String, Secret>) -> Result<Self, StoreError> {
        let refuse = |problem: String| config_error(url, problem);
        let (bucket, prefix) = url
            .split_once("://")
            .map(|(_, rest)| rest.split_once('/').unwrap_or((rest, "")))
            .filter(|(bucket, _)| !bucket.is_empty())
            .ok_or_else(|| refuse("names no bucket; it should be s3://bucket/prefix".to_owned()))?;
        let root = Path::parse(prefix.trim_end_matches('/')).map_err(|e| refuse(e.to_string()))?;
        let mut builder = AmazonS3Builder::from_env()
            .with_client_options(
                ClientOptions::new()
                    .with_timeout(S3_REQUEST_TIMEOUT)
                    .with_connect_timeout(S3_CONNECT_TIMEOUT),
            )
            .with_retry(RetryConfig {
                backoff: BackoffConfig::default(),
                max_retries: S3_MAX_RETRIES,
                retry_timeout: S3_RETRY_TIMEOUT,
            });
        for (key, value) in options {
            let key: AmazonS3ConfigKey = key.to_ascii_lowercase().parse().map_err(|_| {
                refuse(format!(
                    "audit.store_options has no {key:?}; known are aws_region, aws_endpoint, aws_access_key_id, \
                     aws_secret_access_key, aws_session_token, aws_allow_http, …"
                ))
            })?;
            builder = builder.with_config(key, value.expose());
        }
        let objects = builder.with_bucket_name(bucket).build().map_err(|e| refuse(e.to_string()))?;
        Ok(Self { objects: Arc::new(objects), root, name: url.to_owned() })
    }

    /// Any other store, under a prefix of it; for tests.
    pub fn with_objects(objects: Arc<dyn ObjectStore>, root: &str) -> Self {
        Self { name: objects.to_string(), objects, root: Path::from(root) }
    }

    /// What the store calls itself, without credentials.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Path of a segment, under the store's root.
    pub fn segment_path(topic: &str, partition: i32, sequence: u64) -> String {
        let folder = sequence / FAN_OUT;
        format!(
            "{topic}/{partition}/{:03}/{:03}/{sequence:09}{EXTENSION}",
            folder / FAN_OUT,
            folder % FAN_OUT
        )
    }

    /// The topics that have chains.
    pub async fn topics(&self) -> Result<Vec<String>, StoreError> {
        let found = self.list("").await?;
        let mut topics = found.folders;
        topics.sort_unstable();
        Ok(topics)
    }

    /// The partitions of a topic that have chains, ascending, and what else is there.
    pub async fn partitions(&self, topic: &str) -> Result<(Vec<i32>, Vec<String>), StoreError> {
        let found = self.list(topic).await?;
        let (mut partitions, mut strangers) = (Vec::new(), found.objects);
        for name in found.folders {
            match name.parse::<i32>() {
                Ok(partition) if partition >= 0 && partition.to_string() == name => {
                    partitions.push(partition);
                }
                _ => strangers.push(name),
            }
        }
        partitions.sort_unstable();
        Ok((partitions, strangers.into_iter().map(|name| format!("{topic}/{name}")).collect()))
    }

    /// The lowest folders of a chain, ascending: segment numbers divided by a thousand.
    pub async fn folders(&self, topic: &str, partition: i32) -> Result<Listing, StoreError> {
        let upper = self.upper_folders(topic, partition).await?;
        let mut all = Listing { strangers: upper.strangers, numbers: Vec::new() };
        for upper in upper.numbers {
            let found = self.lower_folders(topic, partition, upper).await?;
            all.numbers.extend(found.numbers);
            all.strangers.extend(found.strangers);
        }
        Ok(all)
    }

    async fn upper_folders(&self, topic: &str, partition: i32) -> Result<Listing, StoreError> {
        self.numbered(&format!("{topic}/{partition}"), false, 0).await
    }

    async fn lower_folders(&self, topic: &str, partition: i32, upper: u64) -> Result<Listing, StoreError> {
        self.numbered(&format!("{topic}/{partition}/{upper:03}"), false, upper * FAN_OUT).await
    }

    /// The segments of one of the lowest folders.
    pub async fn segments(&self, topic: &str, partition: i32, folder: u64) -> Result<Listing, StoreError> {
        let path = format!("{topic}/{partition}/{:03}/{:03}", folder / FAN_OUT, folder % FAN_OUT);
        self.numbered(&path, true, folder * FAN_OUT).await
    }

    /// Number of the last segment of a chain; `None`: there is none.
    pub async fn last_sequence(&self, topic: &str, partition: i32) -> Result<Option<u64>, StoreError> {
        // A folder may be empty: it was made, and its first segment never came. So look from the end.
        for upper in self.upper_folders(topic, partition).await?.numbers.into_iter().rev() {
            for folder in self.lower_folders(topic, partition, upper).await?.numbers.into_iter().rev() {
                if let Some(last) = self.segments(topic, partition, folder).await?.numbers.pop() {
                    return Ok(Some(last));
                }
            }
        }
        Ok(None)
    }

    /// Puts a segment where none is.
    pub async fn put_new(
        &self,
        topic: &str,
        partition: i32,
        sequence: u64,
        bytes: Bytes,
    ) -> Result<Put, StoreError> {
        if sequence >= MAX_SEGMENTS {
            return Err(StoreError::Full { partition });
        }
        let path = Self::segment_path(topic, partition, sequence);
        let put =
            self.objects.put_opts(&self.at(&path), PutPayload::from(bytes), PutMode::Create.into()).await;
        match put {
            Ok(_) => Ok(Put::Created),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                Ok(Put::Exists)
            }
            Err(source) => Err(self.access("writing", &path, source)),
        }
    }

    /// A whole segment.
    pub async fn get(&self, topic: &str, partition: i32, sequence: u64) -> Result<Bytes, StoreError> {
        let path = Self::segment_path(topic, partition, sequence);
        let failed = |source| self.access("reading", &path, source);
        let object = self.objects.get(&self.at(&path)).await.map_err(failed)?;
        if object.meta.size > MAX_SEGMENT_BYTES {
            return Err(StoreError::TooLarge { path, bytes: object.meta.size });
        }
        object.bytes().await.map_err(failed)
    }

    /// The end of a segment.
    pub async fn get_tail(&self, topic: &str, partition: i32, sequence: u64) -> Result<Tail, StoreError> {
        let path = Self::segment_path(topic, partition, sequence);
        let failed = |source| self.access("reading", &path, source);
        let options = GetOptions { range: Some(GetRange::Suffix(TAIL_BYTES)), ..GetOptions::default() };
        let object = self.objects.get_opts(&self.at(&path), options).await.map_err(failed)?;
        let object_bytes = object.meta.size;
        Ok(Tail { object_bytes, bytes: object.bytes().await.map_err(failed)? })
    }

    fn at(&self, path: &str) -> Path {
        path.split('/').filter(|part| !part.is_empty()).fold(self.root.clone(), |at, part| at.join(part))
    }

    fn access(&self, action: &'static str, path: &str, source: object_store::Error) -> StoreError {
        StoreError::Access {
            action,
            path: path.to_owned(),
            store: self.name.clone(),
            source: Box::new(source),
        }
    }

    async fn list(&self, path: &str) -> Result<Names, StoreError> {
        let at = self.at(path);
        let prefix = (!at.as_ref().is_empty()).then_some(&at);
        let found = self
            .objects
            .list_with_delimiter(prefix)
            .await
            .map_err(|source| self.access("listing", path, source))?;
        let name = |path: &Path| path.filename().unwrap_or_default().to_owned();
        Ok(Names {
            folders: found.common_prefixes.iter().map(name).collect(),
            objects: found.objects.iter().map(|object| name(&object.location)).collect(),
        })
    }

    /// The numbered folders (or segments) at a path, whose numbers lie in `first .. first + 1000`.
    async fn numbered(&self, path: &str, segments: bool, first: u64) -> Result<Listing, StoreError> {
        let found = self.list(path).await?;
        let (wanted, others) =
            if segments { (found.objects, found.folders) } else { (found.folders, found.objects) };
        let mut listing = Listing::default();
        for name in wanted {
            let number = if segments { segment_number(&name) } else { folder_number(&name, first) };
            match number.filter(|number| (first..first + FAN_OUT).contains(number)) {
                Some(number) => listing.numbers.push(number),
                None => listing.strangers.push(format!("{path}/{name}")),
            }
        }
        listing.strangers.extend(others.into_iter().map(|name| format!("{path}/{name}")));
        listing.numbers.sort_unstable();
        Ok(listing)
    }
}

struct Names {
    folders: Vec<String>,
    objects: Vec<String>,
}

fn segment_number(name: &str) -> Option<u64> {
    digits(name.strip_suffix(EXTENSION)?, 9)
}

fn folder_number(name: &str, first: u64) -> Option<u64> {
    digits(name, 3).map(|number| first + number)
}

fn digits(text: &str, length: usize) -> Option<u64> {
    (text.len() == length && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

/// The configured folder; `None`: a bucket.
fn folder_of(config: &AuditConfig) -> Result<Option<&FsPath>, StoreError> {
    let location = config.store.as_str();
    match location.split_once("://") {
        Some(("s3" | "s3a", _)) => Ok(None),
        Some(("file", path)) => Ok(Some(FsPath::new(path))),
        Some((scheme, _)) => Err(config_error(location, format!("no store is reached by {scheme}://"))),
        None if location.is_empty() => Err(config_error(location, "is empty".to_owned())),
        None => Ok(Some(FsPath::new(location))),
    }
}

fn config_error(location: &str, problem: String) -> StoreError {
    StoreError::Config { location: location.to_owned(), problem }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;

//! The schema registry: registering our schemas, and fetching writers' schemas into the cache.

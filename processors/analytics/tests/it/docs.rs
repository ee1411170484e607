//! Every SQL example of docs/querying-clickhouse.md runs and finds something.

use crate::{
    random::random_log,
    support::{Database, event, write},
    views::created,
};
use claims_runtime::Origin;

const DOC: &str = include_str!("../../../../docs/querying-clickhouse.md");

#[tokio::test]
async fn every_example_runs_and_finds_rows() {
    let database = Database::migrated().await;
    let mut log = random_log(31, 300);
    // What the examples name.
    log.push((Origin { partition: 9, offset: 0 }, event("named", 1, created("k1"))));
    log.push((Origin { partition: 9, offset: 1 }, event("c1", 1, created("k1"))));
    write(&database.sink(), &log, 1_000).await;
    let mut examples = 0;
    for block in DOC.split("```sql\n").skip(1) {
        let (sql, _) = block.split_once("```").expect("the block ends");
        let rows = database.json(sql).await;
        assert!(!rows.is_empty(), "no row: {sql}");
        examples += 1;
    }
    assert!(examples >= 10, "only {examples} examples");
    for column in database.json("SELECT name FROM system.columns WHERE database = currentDatabase() AND table IN \
        ('events', 'latest', 'customer_stats', 'agent_stats', 'claim_type_stats', 'daily_flow', 'status_counts')").await
    {
        let name = column["name"].as_str().expect("a name");
        assert!(DOC.contains(&format!("`{name}`")), "column {name} is not in the documentation");
    }
    database.drop().await;
}

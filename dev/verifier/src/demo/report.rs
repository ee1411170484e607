//! The report's tables.

use super::Outcome;
use claims_verifier::numbers::thousands;
use claims_verifier::{claim::count_by_status, namespace::Namespace};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets::UTF8_FULL_CONDENSED};

/// BI questions, and the SQL that answers them.
const QUESTIONS: [(&str, &str); 4] = [
    (
        "Claims by status",
        "SELECT status, count() AS claims FROM latest GROUP BY status ORDER BY claims DESC, status",
    ),
    (
        "Agents who last held the most claims",
        "SELECT agent_id, count() AS claims FROM latest WHERE agent_id IS NOT NULL GROUP BY agent_id \
         ORDER BY claims DESC, agent_id LIMIT 5",
    ),
    (
        "Claim types",
        "SELECT claim_type, count() AS claims, countIf(status = 'CLOSED') AS closed, \
         sum(settled_amount) AS settled FROM latest GROUP BY claim_type ORDER BY claims DESC, claim_type LIMIT 5",
    ),
    (
        "Busiest days",
        "SELECT toDate(occurred_at) AS day, countIf(event_type = 'ClaimCreated') AS created, \
         countIf(event_type = 'ClaimClosed') AS closed FROM events GROUP BY day ORDER BY created DESC, day LIMIT 5",
    ),
];

/// Prints everything that the run has found.
pub async fn print(outcome: &Outcome, namespace: &Namespace) -> anyhow::Result<()> {
    println!("\nInput");
    let mut input = table(&["what", "count"]);
    for (name, count) in &outcome.counts {
        input.add_row([name.clone(), thousands(*count)]);
    }
    println!("{input}");

    println!("\nStages");
    let mut stages = table(&["stage", "seconds", "events/s", "peak MiB"]);
    for stage in &outcome.stages {
        let rate = stage.events as f64 / stage.seconds.max(1e-3);
        let memory = stage.peak_rss_mib.map_or_else(String::new, |mib| mib.to_string());
        stages.add_row([stage.name.clone(), format!("{:.1}", stage.seconds), thousands(rate as u64), memory]);
    }
    println!("{stages}");

    for (title, sql) in QUESTIONS {
        println!("\n{title}");
        println!("{}", answer(namespace, sql).await?);
    }

    println!("\nViews against the model ({} claims, {})", thousands(outcome.model.len() as u64), {
        let by_status = count_by_status(&outcome.model);
        by_status
            .iter()
            .map(|(status, n)| format!("{status} {}", thousands(*n)))
            .collect::<Vec<_>>()
            .join(", ")
    });
    let mut views = table(&["view", "rows", "checksum", "agrees"]);
    for check in &outcome.checks {
        let agrees = if check.problems.is_empty() { "yes" } else { "NO" };
        views.add_row([check.name.clone(), thousands(check.rows), check.checksum.clone(), agrees.to_owned()]);
    }
    println!("{views}");
    for check in &outcome.checks {
        for problem in &check.problems {
            println!("  {}: {problem}", check.name);
        }
    }
    Ok(())
}

async fn answer(namespace: &Namespace, sql: &str) -> anyhow::Result<Table> {
    let sql = sql.replace(" FROM ", &format!(" FROM {}.", namespace.name));
    let text = namespace.clickhouse_sql(&format!("{sql} FORMAT TSVWithNames")).await?;
    let mut lines = text.lines().map(|line| line.split('\t').map(str::to_owned).collect::<Vec<_>>());
    let header = lines.next().unwrap_or_default();
    let mut answer = table(&header.iter().map(String::as_str).collect::<Vec<_>>());
    for line in lines {
        answer.add_row(line);
    }
    Ok(answer)
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.to_vec());
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

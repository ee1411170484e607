//! `cargo xtask upgrade --from REV`: an older build of `claims`, made from a commit, side by side with a newer one, which
//! is the last commit with a schema that has one field more.

use crate::demo;
use anyhow::{Context, Result, bail, ensure};
use std::{fs, path::Path, process::Command};
use xtask::services::{self, ModeArgs, RunLength};

/// Sources and target folder of both builds. They are kept: a second run builds little. The folder is one of their own:
/// Cargo takes a package for the same in whatever checkout it lies, and goes by the times of files, so that with a shared
/// folder the checkout around it would find old builds fresh.
const SOURCES: &str = "target/upgrade/sources";
const TARGET: &str = "target/upgrade/target";
/// What makes a build a newer one: a field more in new claims, as a release would add it: to the schema, to the types and
/// their views, to what reads and writes JSON and Avro, to what event ids are made of, and to the timeline, which says it.
/// In each file the second text takes the place of the first.
const GROWTH: [(&str, &[(&str, &str)]); 15] = [
    (
        "schemas/avro/claim_event.avsc",
        &[(
            r#"
      ]},
      {"type": "record", "name": "ClaimAssigned""#,
            r#",
        {"name": "channel", "type": ["null", "string"], "default": null}
      ]},
      {"type": "record", "name": "ClaimAssigned""#,
        )],
    ),
    (
        "schemas/src/events.rs",
        &[(
            "    pub claimed: Option<Money>,\n",
            "    pub claimed: Option<Money>,\n    #[serde(default)]\n    pub channel: Option<String>,\n",
        )],
    ),
    (
        "schemas/src/view.rs",
        &[
            (
                "    pub claimed: Option<MoneyView<'a>>,\n",
                "    pub claimed: Option<MoneyView<'a>>,\n    pub channel: Option<&'a str>,\n",
            ),
            (
                "            claimed,\n        } = created;",
                "            claimed,\n            channel,\n        } = created;",
            ),
            (
                "claimed: claimed.as_ref().map(MoneyView::from),",
                "claimed: claimed.as_ref().map(MoneyView::from), channel: channel.as_deref(),",
            ),
            (
                "claimed: self.claimed.map(MoneyView::to_money),",
                "claimed: self.claimed.map(MoneyView::to_money), channel: owned(self.channel),",
            ),
        ],
    ),
    (
        "schemas/src/validate.rs",
        &[
            (
                "        urgency: _,\n        claimed,\n",
                "        urgency: _,\n        claimed,\n        channel,\n",
            ),
            (
                "optional(\"data.order_id\", order_id, id)?;",
                "optional(\"data.order_id\", order_id, id)?; optional(\"data.channel\", channel, id)?;",
            ),
        ],
    ),
    (
        "schemas/src/codec/encode.rs",
        &[
            // It knows the schema, another one now.
            ("== KNOWN_SCHEMA;", "!= KNOWN_SCHEMA;"),
            ("        claimed,\n    } = *data;", "        claimed,\n        channel,\n    } = *data;"),
            ("    money(claimed, out);", "    money(claimed, out);\n    optional(channel, out);"),
        ],
    ),
    (
        "schemas/src/codec/plain.rs",
        &[(
            "claimed: input.optional(Input::money)?,",
            "claimed: input.optional(Input::money)?, channel: input.optional(Input::string)?,",
        )],
    ),
    (
        "schemas/src/json/read.rs",
        &[(
            "claimed: data.money(\"claimed\")?,",
            "claimed: data.money(\"claimed\")?, channel: data.optional(\"channel\", text)?,",
        )],
    ),
    (
        "schemas/src/json/write.rs",
        &[
            ("        claimed,\n    } = created;", "        claimed,\n        channel,\n    } = created;"),
            (
                "\"claimed\": money(claimed.as_ref()),",
                "\"claimed\": money(claimed.as_ref()), \"channel\": channel,",
            ),
        ],
    ),
    (
        "schemas/src/json/line/fields.rs",
        &[("        urgency, agent_id,", "        urgency, channel, agent_id,")],
    ),
    (
        "schemas/src/json/line.rs",
        &[(
            "claimed: self.money(Field::claimed)?,",
            "claimed: self.money(Field::claimed)?, channel: self.optional(Field::channel)?,",
        )],
    ),
    (
        "processors/ingress/src/content.rs",
        &[
            ("        claimed,\n    } = *created;", "        claimed,\n        channel,\n    } = *created;"),
            (
                "out.money(\"claimed\", claimed);",
                "out.money(\"claimed\", claimed); out.optional(\"channel\", channel);",
            ),
        ],
    ),
    (
        "processors/ingress/src/mapping/data.rs",
        &[("claimed: amount(&self.claimed, row)?,", "claimed: amount(&self.claimed, row)?, channel: None,")],
    ),
    (
        "processors/ingress/src/generate/lifecycle.rs",
        &[(
            "claimed: self.claimed_cents.map(euros),",
            "claimed: self.claimed_cents.map(euros), channel: None,",
        )],
    ),
    (
        "processors/analytics/src/row.rs",
        // The tables get no column: what the newer build knows and doesn't show.
        &[(
            "            claimed,\n        } = *created;",
            "            claimed,\n            channel: _,\n        } = *created;",
        )],
    ),
    (
        "processors/current_state/src/words.rs",
        &[(
            r#".after(": ", Some(what));"#,
            r#".after(": ", Some(what)).after(", by way of ", data.channel);"#,
        )],
    ),
];

/// Builds `claims` as of `revision` and a newer one, and runs the check of `dev/verifier` with both. The services stay
/// up.
pub fn run(mode: ModeArgs, revision: &str, arguments: &[String]) -> Result<bool> {
    services::up(mode, RunLength::Short)?;
    let older = build_claims("older", revision, |_| Ok(()))?;
    let newer = build_claims("newer", "HEAD", grow)?;
    if !demo::build(&["--bin", "claims-upgrade"])? {
        return Ok(false);
    }
    let program = std::env::current_exe()?.with_file_name("claims-upgrade");
    let status = Command::new(&program)
        .args(["--older", &older, "--newer", &newer])
        .args(arguments)
        .status()
        .with_context(|| format!("run {}", program.display()))?;
    Ok(status.success())
}

/// Builds `claims` from a commit, changed first; where it lies.
fn build_claims(name: &str, revision: &str, change: fn(&Path) -> Result<()>) -> Result<String> {
    // Without this file git would take the folder for a part of the checkout around it.
    if Path::new(SOURCES).join(".git").is_file() {
        command("git", &["-C", SOURCES, "checkout", "--quiet", "--force", "--detach", &commit(revision)?])?;
    } else {
        if Path::new(SOURCES).exists() {
            fs::remove_dir_all(SOURCES).with_context(|| format!("remove {SOURCES}"))?;
        }
        command("git", &["worktree", "add", "--quiet", "--force", "--detach", SOURCES, revision])?;
    }
    change(Path::new(SOURCES))?;
    let manifest = format!("{SOURCES}/Cargo.toml");
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    // Of the whole workspace, as everywhere here: a selection of packages is one of their dependencies' features, too.
    let selection = ["--workspace", "--bin", "claims"];
    let arguments =
        [&["build", "--manifest-path", &manifest, "--target-dir", TARGET], &selection[..]].concat();
    command(&cargo, &arguments)?;
    let copy = format!("target/upgrade/claims-{name}");
    fs::copy(format!("{TARGET}/debug/claims"), &copy).with_context(|| format!("copy to {copy}"))?;
    Ok(copy)
}

/// The commit that a name stands for here: in the other work tree `HEAD` is its own.
fn commit(revision: &str) -> Result<String> {
    let output =
        Command::new("git").args(["rev-parse", "--verify", &format!("{revision}^{{commit}}")]).output()?;
    ensure!(
        output.status.success(),
        "no commit {revision}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Makes a build a newer one.
fn grow(sources: &Path) -> Result<()> {
    for (file, changes) in GROWTH {
        let path = sources.join(file);
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        fs::write(&path, grown(file, text, changes)?).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

fn grown(file: &str, text: String, changes: &[(&str, &str)]) -> Result<String> {
    changes.iter().try_fold(text, |text, (from, to)| {
        let places = text.matches(from).count();
        ensure!(places == 1, "{file} has {places} times: {from}");
        Ok(text.replacen(from, to, 1))
    })
}

fn command(program: &str, arguments: &[&str]) -> Result<()> {
    println!("== {program} {}", arguments.join(" "));
    let status = Command::new(program).args(arguments).status().with_context(|| format!("run {program}"))?;
    if !status.success() {
        bail!("{program} {} ended with {status}", arguments.join(" "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sources_can_be_made_a_newer_build() {
        for (file, changes) in GROWTH {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
            grown(file, fs::read_to_string(path).unwrap(), changes).unwrap();
        }
    }
}

//! A stage's rounds as a picture: a bar for the floor and one for ours, round by round.

use super::{report::Line, soak::Sample};
use anyhow::{Context, Result};
use std::{fmt::Write as _, fs, path::Path};

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 90.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 60.0;
const BOTTOM: f64 = 50.0;
const FLOOR_COLOR: &str = "#9aa5b1";
const OURS_COLOR: &str = "#1f77b4";
const GRID_LINES: u32 = 4;

/// Writes the picture.
pub fn write(path: &Path, line: &Line) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, svg(line)?).with_context(|| format!("write {}", path.display()))
}

fn svg(line: &Line) -> Result<String> {
    let rates = line.rounds.iter().flat_map(|round| [round.floor.per_s, round.ours.per_s]).flatten();
    let highest = rates.fold(1.0, f64::max) * 1.05;
    let (width, height) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
    let y = |rate: f64| TOP + height * (1.0 - rate / highest);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"15\">{}: {}</text>\n\
         <text x=\"{LEFT}\" y=\"42\" fill=\"#555\">records per second, ratio {:.2}, goal {}</text>\n",
        line.stage,
        line.what,
        line.ratio,
        line.verdict()
    );
    for step in 0..=GRID_LINES {
        let rate = highest * f64::from(step) / f64::from(GRID_LINES);
        writeln!(
            text,
            "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{:.1}\" y2=\"{1:.1}\" stroke=\"#ddd\"/><text x=\"{:.1}\" y=\"{:.1}\" \
             text-anchor=\"end\">{rate:.0}</text>",
            WIDTH - RIGHT,
            y(rate),
            LEFT - 8.0,
            y(rate) + 4.0
        )?;
    }
    let slot = width / line.rounds.len().max(1) as f64;
    for (number, round) in line.rounds.iter().enumerate() {
        let x = LEFT + slot * number as f64;
        let bars = [(round.floor.per_s, FLOOR_COLOR, 0.15), (round.ours.per_s, OURS_COLOR, 0.5)];
        for (rate, color, place) in bars {
            let rate = rate.unwrap_or(0.0);
            writeln!(
                text,
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{color}\"/>",
                x + slot * place,
                y(rate),
                slot * 0.33,
                height + TOP - y(rate)
            )?;
        }
        let (middle, under) = (x + slot * 0.5, HEIGHT - BOTTOM + 18.0);
        writeln!(
            text,
            "<text x=\"{middle:.1}\" y=\"{under:.1}\" text-anchor=\"middle\">round {}</text>",
            number + 1
        )?;
    }
    for (name, color, x) in [(line.against.as_str(), FLOOR_COLOR, LEFT), ("ours", OURS_COLOR, LEFT + 200.0)] {
        let (square, words) = (HEIGHT - 22.0, HEIGHT - 12.0);
        writeln!(
            text,
            "<rect x=\"{x}\" y=\"{square}\" width=\"12\" height=\"12\" fill=\"{color}\"/><text x=\"{}\" y=\"{words}\">\
             {name}</text>",
            x + 18.0
        )?;
    }
    text.push_str("</svg>\n");
    Ok(text)
}

const SERIES_COLORS: [&str; 3] = ["#1f77b4", "#d62728", "#2ca02c"];
const PANEL_HEIGHT: f64 = 150.0;

/// Draws what a soak has seen: memory and lag of every process, parts and files of the databases, over time.
pub fn write_soak(path: &Path, processors: &[&str], samples: &[Sample]) -> Result<()> {
    let of = |numbers: fn(&Sample) -> &Vec<u64>| -> Vec<(String, Vec<u64>)> {
        let series =
            |i: usize| samples.iter().map(|sample| numbers(sample).get(i).copied().unwrap_or(0)).collect();
        processors.iter().enumerate().map(|(i, name)| ((*name).to_owned(), series(i))).collect()
    };
    let parts = samples.iter().map(|sample| sample.clickhouse_parts).collect();
    let mut counts = vec![("ClickHouse parts".to_owned(), parts)];
    // Files of another machine's server are not seen, which is not to look like none.
    let counted = if let Some(files) = samples.iter().map(|sample| sample.cql_files).collect() {
        counts.push(("CQL data files".to_owned(), files));
        "parts and files"
    } else {
        "parts"
    };
    let panels = [
        ("resident memory, MiB", of(|sample| &sample.rss_mib)),
        ("lag, records", of(|sample| &sample.lag)),
        (counted, counts),
    ];
    let minutes = samples.last().map_or(0.0, |sample| sample.at_s / 60.0);
    let height = PANEL_HEIGHT * panels.len() as f64 + 40.0;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for (number, (title, series)) in panels.iter().enumerate() {
        panel(&mut text, PANEL_HEIGHT * number as f64, title, series)?;
    }
    writeln!(text, "<text x=\"{LEFT}\" y=\"{}\">0 to {minutes:.0} minutes</text>\n</svg>", height - 14.0)?;
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

fn panel(text: &mut String, top: f64, title: &str, series: &[(String, Vec<u64>)]) -> Result<()> {
    let highest = series.iter().flat_map(|(_, values)| values).max().copied().unwrap_or(0).max(1) as f64;
    let (first, height) = (top + 40.0, PANEL_HEIGHT - 50.0);
    writeln!(text, "<text x=\"{LEFT}\" y=\"{:.0}\">{title}, at most {highest:.0}</text>", top + 20.0)?;
    writeln!(
        text,
        "<rect x=\"{LEFT}\" y=\"{first:.0}\" width=\"{:.0}\" height=\"{height:.0}\" fill=\"none\" stroke=\"#ddd\"/>",
        WIDTH - LEFT - RIGHT
    )?;
    for ((name, values), (number, color)) in series.iter().zip(SERIES_COLORS.iter().enumerate()) {
        let step = (WIDTH - LEFT - RIGHT) / values.len().saturating_sub(1).max(1) as f64;
        let points: Vec<String> = values
            .iter()
            .enumerate()
            .map(|(i, &value)| {
                format!(
                    "{:.1},{:.1}",
                    LEFT + step * i as f64,
                    first + height * (1.0 - value as f64 / highest)
                )
            })
            .collect();
        writeln!(
            text,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\"/><text x=\"{:.0}\" y=\"{:.0}\" \
             fill=\"{color}\">{name}</text>",
            points.join(" "),
            LEFT + 180.0 + 130.0 * number as f64,
            top + 20.0
        )?;
    }
    Ok(())
}

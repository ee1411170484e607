//! Progress bars on standard error; silent where it is no terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

/// A bar with a rate and the time left. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Progress {
    bar: ProgressBar,
    begun: Instant,
}

impl Progress {
    /// Counts events.
    pub fn events(total: u64) -> Self {
        Self::new(Some(total), "{wide_bar} {human_pos}/{human_len} events, {per_sec}, {eta} left {msg}")
    }

    /// Counts records that a processor reads.
    pub fn records(processor: &str, total: u64) -> Self {
        let template = "{wide_bar} {human_pos}/{human_len} records, {per_sec}, {eta} left";
        Self::new(Some(total), &format!("{processor} {template}"))
    }

    /// Counts bytes of an input as stored; `total`: its size, where it is known.
    pub fn bytes(total: Option<u64>) -> Self {
        let template = match total {
            Some(_) => "{wide_bar} {bytes}/{total_bytes}, {eta} left, {msg}",
            None => "{spinner} {bytes}, {msg}",
        };
        Self::new(total, template)
    }

    fn new(total: Option<u64>, template: &str) -> Self {
        let bar = match total {
            Some(total) => ProgressBar::new(total),
            None => ProgressBar::no_length(),
        };
        if !std::io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar, begun: Instant::now() }
    }

    /// How much there is in all.
    pub fn set_length(&self, total: u64) {
        self.bar.set_length(total);
    }

    /// How far it is.
    pub fn set_position(&self, position: u64) {
        self.bar.set_position(position);
    }

    /// Further words at its end.
    pub fn set_message(&self, message: String) {
        self.bar.set_message(message);
    }

    /// Prints a line above the bar (or alone, where there is no bar).
    pub fn println(&self, line: &str) {
        if self.bar.is_hidden() {
            eprintln!("{line}");
        } else {
            self.bar.println(line);
        }
    }

    /// How long it has run.
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Takes the bar away; how long it ran.
    pub fn finish(&self) -> Duration {
        self.bar.finish_and_clear();
        self.begun.elapsed()
    }
}

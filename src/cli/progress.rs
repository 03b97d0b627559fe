//! Progress bars on standard error.

use crate::config::units::format_size;
use crate::node::command::{Progress, Stage};
use indicatif::{ProgressBar, ProgressStyle};

/// The progress bar of one command; without a terminal, log lines. Dropping it clears the bar.
pub struct Meter {
    bar: Option<ProgressBar>,
    /// Without a bar: whether the current wait for a source has been logged.
    waits: bool,
    name: String,
    /// The stage of the bar's style, and whether its total is known.
    style: Option<(Stage, bool)>,
}

impl Meter {
    /// A meter for a file or an address, `name`. It shows a bar if `visible`.
    pub fn new(visible: bool, name: &str) -> Self {
        let bar = visible.then(ProgressBar::no_length);
        Meter { bar, waits: false, name: name.to_owned(), style: None }
    }

    /// Shows the number of files done.
    pub fn show_files(&mut self, done: usize, total: usize) {
        let Some(bar) = &self.bar else { return };
        bar.set_style(style_from("{msg} [{bar:30}] {pos}/{len}"));
        bar.set_message(self.name.clone());
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    }

    /// Calls `write`, which writes to the terminal, while the bar is hidden.
    pub fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Shows this progress.
    pub fn show(&mut self, progress: &Progress) {
        let waits = progress.stage == Stage::Waiting;
        let Some(bar) = &self.bar else {
            if waits && !core::mem::replace(&mut self.waits, waits) {
                let missing = format_size(progress.total.saturating_sub(progress.done));
                log::warn!("{}: {missing} missing, and no source sends; waiting for a source", self.name);
            }
            self.waits = waits;
            return;
        };
        let style = (progress.stage, progress.total > 0);
        if self.style != Some(style) {
            self.style = Some(style);
            bar.reset_eta();
            bar.set_style(style_of(style.0, style.1));
            bar.set_message(format!("{} {}", self.name, label(progress.stage)));
        }
        if progress.total > 0 {
            bar.set_length(progress.total);
        }
        bar.set_position(progress.done);
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The name of a stage.
pub fn label(stage: Stage) -> &'static str {
    match stage {
        Stage::LookingUp => "looking up",
        Stage::Hashing => "hashing",
        Stage::Replicating => "copying",
        Stage::Checking => "checking",
        Stage::Downloading => "downloading",
        Stage::Inspecting => "asking the holders",
        Stage::HandingOver => "handing over",
        Stage::Scrubbing => "reading",
        Stage::Waiting => "waiting for a source",
        Stage::Queued => "waiting for its turn",
    }
}

fn style_of(stage: Stage, total_known: bool) -> ProgressStyle {
    let template = match (stage, total_known) {
        (Stage::LookingUp, _) => "{msg}: {pos} nodes asked",
        (Stage::Queued, _) => "{msg}: {pos} ahead of it",
        (Stage::Replicating | Stage::HandingOver, true) => "{msg} [{bar:30}] {pos}/{len} pieces",
        (Stage::Replicating | Stage::HandingOver, false) => "{msg}: {pos} pieces",
        (Stage::Inspecting, true) => "{msg} [{bar:30}] {pos}/{len} answers",
        (Stage::Inspecting, false) => "{msg}: {pos} answers",
        (_, true) => "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        (_, false) => "{msg}: {bytes} {bytes_per_sec}",
    };
    style_from(template)
}

fn style_from(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("tests parse every template").progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_has_a_style() {
        for stage in [
            Stage::LookingUp,
            Stage::Hashing,
            Stage::Replicating,
            Stage::Checking,
            Stage::Downloading,
            Stage::Inspecting,
            Stage::HandingOver,
            Stage::Scrubbing,
            Stage::Waiting,
            Stage::Queued,
        ] {
            for known in [false, true] {
                style_of(stage, known);
            }
        }
        let mut meter = Meter::new(true, "3 files");
        meter.show_files(1, 3);
        assert_eq!(meter.aside(|| 7), 7);
    }
}

//! Progress bars on standard error.

use crate::config::units::format_size;
use crate::node::command::{Progress, Stage};
use indicatif::{ProgressBar, ProgressStyle};

/// Shows how far one command has come, or nothing at all. What it drew is gone when it is dropped.
pub struct Meter {
    bar: Option<ProgressBar>,
    /// Nothing comes, and it has been said.
    waits: bool,
    name: String,
    /// What the bar's style was made for: the stage, and whether the total is known.
    style: Option<(Stage, bool)>,
}

impl Meter {
    /// A meter for what `name` says, a file or an address.
    pub fn new(visible: bool, name: &str) -> Self {
        let bar = visible.then(ProgressBar::no_length);
        Meter { bar, waits: false, name: name.to_owned(), style: None }
    }

    /// Shows how many of several files are done.
    pub fn show_files(&mut self, done: usize, total: usize) {
        let Some(bar) = &self.bar else { return };
        bar.set_style(style_from("{msg} [{bar:30}] {pos}/{len}"));
        bar.set_message(self.name.clone());
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    }

    /// Writes something else to the terminal, with the bar out of the way.
    pub fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Shows this.
    pub fn show(&mut self, progress: &Progress) {
        let waits = progress.stage == Stage::Waiting;
        let Some(bar) = &self.bar else {
            if waits && !core::mem::replace(&mut self.waits, waits) {
                let missing = format_size(progress.total.saturating_sub(progress.done));
                log::warn!("{}: {missing} are missing, and nothing comes; waiting for who has it", self.name);
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

/// What a stage is called.
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
        Stage::Waiting => "waiting for who has the rest",
        Stage::Queued => "waiting for its turn",
    }
}

fn style_of(stage: Stage, total_known: bool) -> ProgressStyle {
    let template = match (stage, total_known) {
        (Stage::LookingUp, _) => "{msg}: {pos} nodes asked",
        (Stage::Queued, _) => "{msg}: {pos} come first",
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
    ProgressStyle::with_template(template).expect("a template that a test has tried").progress_chars("=> ")
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

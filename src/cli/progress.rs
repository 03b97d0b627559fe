//! Progress on standard error: a bar on a terminal, otherwise a line now and then, or an object for a program.

use crate::config::units::format_size;
use crate::node::command::{Progress, Stage};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::io::{self, Write};
use std::time::{Duration, Instant};

/// The form of progress.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Form {
    /// A bar on a terminal.
    Bar,
    /// A line every 30 seconds, the first one after 30 seconds.
    Lines,
    /// An object a line, four a second at most.
    Json,
    /// No progress.
    None,
}

/// The time between two lines.
const LINE_EVERY: Duration = Duration::from_secs(30);
/// The time between two objects.
const OBJECT_EVERY: Duration = Duration::from_millis(250);
/// A terminal with fewer columns shows a percentage instead of a bar.
const BAR_COLUMNS_MIN: usize = 70;
/// The columns beside the name, with and without a bar: sizes, rate, time left, and the bar's least width.
const WIDE_COLUMNS: usize = 58;
const NARROW_COLUMNS: usize = 26;

/// The progress of one command. Dropping it clears the bar.
pub struct Meter {
    form: Shown,
    name: String,
    /// Without a bar: whether the current wait for a source has been logged.
    waits: bool,
}

enum Shown {
    Bar(Bar),
    /// Text for people, or objects, when the time has come.
    Text {
        json: bool,
        due: Instant,
        to: Box<dyn Write>,
    },
    Nothing,
}

struct Bar {
    bar: ProgressBar,
    columns: usize,
    /// The stage of the bar's style, and whether its total is known.
    style: Option<(Stage, bool)>,
}

impl Meter {
    /// A meter for a file or an address, `name`.
    pub fn new(form: Form, name: &str) -> Self {
        Meter::on(form, name, Box::new(io::stderr()), Instant::now())
    }

    fn on(form: Form, name: &str, to: Box<dyn Write>, now: Instant) -> Self {
        let form = match form {
            Form::Bar => Shown::Bar(Bar { bar: ProgressBar::no_length(), columns: columns(), style: None }),
            Form::Lines => Shown::Text { json: false, due: now + LINE_EVERY, to },
            Form::Json => Shown::Text { json: true, due: now, to },
            Form::None => Shown::Nothing,
        };
        Meter { form, name: name.to_owned(), waits: false }
    }

    /// Shows the number of files done.
    pub fn show_files(&mut self, done: usize, total: usize) {
        match &mut self.form {
            Shown::Bar(bar) => bar.show_files(&self.name, done, total),
            Shown::Text { json, due, to } => {
                let text = match json {
                    true => {
                        json!({"progress": {"name": self.name, "files": done, "total": total}}).to_string()
                    }
                    false => format!("elver: {done} of {}", self.name),
                };
                say(to, due, *json, Instant::now(), &text);
            }
            Shown::Nothing => {}
        }
    }

    /// Calls `write`, which writes to the terminal, while the bar is hidden.
    pub fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.form {
            Shown::Bar(bar) => bar.bar.suspend(write),
            Shown::Text { .. } | Shown::Nothing => write(),
        }
    }

    /// Shows this progress.
    pub fn show(&mut self, progress: &Progress) {
        self.show_at(Instant::now(), progress);
    }

    fn show_at(&mut self, now: Instant, progress: &Progress) {
        if !matches!(self.form, Shown::Bar(_)) {
            self.warn_of_waiting(progress);
        }
        match &mut self.form {
            Shown::Bar(bar) => bar.show(&self.name, progress),
            Shown::Text { json: false, due, to } if now >= *due => {
                let text = format!("elver: {}: {}", self.name, in_words(progress));
                say(to, due, false, now, &text);
            }
            Shown::Text { json: true, due, to } if now >= *due => {
                let Progress { stage, done, total, .. } = progress;
                let text =
                    json!({"progress": {"name": self.name, "stage": stage, "done": done, "total": total}});
                say(to, due, true, now, &text.to_string());
            }
            Shown::Text { .. } | Shown::Nothing => {}
        }
    }

    fn warn_of_waiting(&mut self, progress: &Progress) {
        let waits = progress.stage == Stage::Waiting;
        if waits && !core::mem::replace(&mut self.waits, waits) {
            let missing = format_size(progress.total.saturating_sub(progress.done));
            log::warn!("{}: {missing} missing, and no source sends; waiting for a source", self.name);
        }
        self.waits = waits;
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if let Shown::Bar(bar) = &self.form {
            bar.bar.finish_and_clear();
        }
    }
}

impl Bar {
    fn show_files(&self, name: &str, done: usize, total: usize) {
        let wide = self.columns >= BAR_COLUMNS_MIN;
        self.bar.set_style(style_from(if wide {
            "{msg} [{wide_bar}] {pos}/{len}"
        } else {
            "{msg} {pos}/{len}"
        }));
        self.bar.set_message(fitted(name, self.columns.saturating_sub(NARROW_COLUMNS)));
        self.bar.set_length(total as u64);
        self.bar.set_position(done as u64);
    }

    fn show(&mut self, name: &str, progress: &Progress) {
        let style = (progress.stage, progress.total > 0);
        if self.style != Some(style) {
            self.style = Some(style);
            self.bar.reset_eta();
            self.bar.set_style(style_from(template(style.0, style.1, self.columns)));
            self.bar.set_message(message(name, progress.stage, self.columns));
        }
        if progress.total > 0 {
            self.bar.set_length(progress.total);
        }
        self.bar.set_position(progress.done);
    }
}

/// Writes a line that is due, and says when the next one is.
fn say(to: &mut Box<dyn Write>, due: &mut Instant, json: bool, now: Instant, text: &str) {
    if now >= *due {
        *due = now + if json { OBJECT_EVERY } else { LINE_EVERY };
        // One write, so that lines of other processes do not mix with it. A reader that is gone stops no transfer.
        let _ = to.write_all(format!("{text}\n").as_bytes());
    }
}

/// Progress in words: `downloading, 45 % of 2.0 GiB`.
fn in_words(progress: &Progress) -> String {
    let Progress { stage, done, total, .. } = *progress;
    let name = label(stage);
    match (stage, total) {
        (Stage::LookingUp, _) => format!("{name}, {done} nodes asked"),
        (Stage::Queued, _) => format!("{name}, {done} ahead of it"),
        (Stage::Replicating | Stage::HandingOver, total) => {
            format!("{name}, {done} of {total} pieces")
        }
        (Stage::Inspecting, total) => format!("{name}, {done} of {total} answers"),
        (_, 0) => format!("{name}, {}", format_size(done)),
        (_, total) => {
            format!("{name}, {} % of {}", u128::from(done) * 100 / u128::from(total), format_size(total))
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

/// The columns of the terminal.
fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stderr());
    size.ok().map(|size| usize::from(size.ws_col)).filter(|&columns| columns > 0).unwrap_or(80)
}

/// The words before the bar. A narrow terminal shows the name alone.
fn message(name: &str, stage: Stage, columns: usize) -> String {
    match columns >= BAR_COLUMNS_MIN {
        true => {
            let room = (columns - WIDE_COLUMNS).max(label(stage).len() + 8) - label(stage).len() - 1;
            format!("{} {}", fitted(name, room), label(stage))
        }
        false => fitted(name, columns.saturating_sub(NARROW_COLUMNS).max(8)),
    }
}

/// A name of at most so many characters; of a longer one the middle is left out.
fn fitted(name: &str, room: usize) -> String {
    let length = name.chars().count();
    if length <= room {
        return name.to_owned();
    }
    let (start, end) = (room / 2, room.saturating_sub(room / 2 + 1));
    name.chars().take(start).chain(['…']).chain(name.chars().skip(length - end)).collect()
}

fn template(stage: Stage, total_known: bool, columns: usize) -> &'static str {
    let wide = columns >= BAR_COLUMNS_MIN;
    match (stage, total_known) {
        (Stage::LookingUp, _) => "{msg}: {pos} nodes asked",
        (Stage::Queued, _) => "{msg}: {pos} ahead of it",
        (Stage::Replicating | Stage::HandingOver, true) if wide => "{msg} [{wide_bar}] {pos}/{len} pieces",
        (Stage::Replicating | Stage::HandingOver, true) => "{msg} {pos}/{len} pieces",
        (Stage::Replicating | Stage::HandingOver, false) => "{msg}: {pos} pieces",
        (Stage::Inspecting, true) if wide => "{msg} [{wide_bar}] {pos}/{len} answers",
        (Stage::Inspecting, true) => "{msg} {pos}/{len} answers",
        (Stage::Inspecting, false) => "{msg}: {pos} answers",
        (_, true) if wide => "{msg} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        (_, true) => "{msg} {percent}% {bytes_per_sec} {eta}",
        (_, false) => "{msg}: {bytes} {bytes_per_sec}",
    }
}

fn style_from(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("tests parse every template").progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    const STAGES: [Stage; 10] = [
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
    ];

    fn progress(stage: Stage, done: u64, total: u64) -> Progress {
        Progress { stage, done, total, prefix: 0, path: None }
    }

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Written {
        fn take(&self) -> String {
            String::from_utf8(core::mem::take(&mut self.0.lock().unwrap())).unwrap()
        }
    }

    #[test]
    fn every_stage_has_a_style_in_every_width() {
        for stage in STAGES {
            for (known, columns) in [(false, 40), (true, 40), (true, 80), (true, 200)] {
                style_from(template(stage, known, columns));
            }
        }
        let mut meter = Meter::new(Form::Bar, "3 files");
        meter.show_files(1, 3);
        assert_eq!(meter.aside(|| 7), 7);
    }

    #[test]
    fn the_name_leaves_room_for_the_numbers_in_40_columns() {
        let hash = "0123456789abcdef".repeat(4);
        for stage in STAGES {
            for columns in [40, 69, 70, 80, 120] {
                let beside = if columns < BAR_COLUMNS_MIN { NARROW_COLUMNS } else { WIDE_COLUMNS - 16 };
                let length = message(&hash, stage, columns).chars().count();
                assert!(length + beside <= columns, "{stage:?} takes {length} of {columns}");
            }
        }
        // The longest numbers that a narrow line shows.
        assert!(" 100% 1023.99 MiB/s 99m".len() <= NARROW_COLUMNS);
        assert_eq!(fitted(&hash, 9), "0123…cdef");
        assert_eq!(fitted("ä", 1), "ä");
    }

    #[test]
    fn without_a_terminal_a_line_comes_every_30_s() {
        let (written, start) = (Written::default(), Instant::now());
        let mut meter = Meter::on(Form::Lines, "a.tar", Box::new(written.clone()), start);
        let mut show = |seconds, done| {
            meter.show_at(start + Duration::from_secs(seconds), &progress(Stage::Downloading, done, 1 << 31));
            written.take()
        };
        assert_eq!(show(0, 0), "");
        assert_eq!(show(29, 1 << 28), "");
        assert_eq!(show(30, 1 << 29), "elver: a.tar: downloading, 25 % of 2.0 GiB\n");
        assert_eq!(show(31, 1 << 30), "");
        assert_eq!(show(60, 1 << 30), "elver: a.tar: downloading, 50 % of 2.0 GiB\n");
    }

    #[test]
    fn for_a_program_progress_is_an_object_a_line() {
        let (written, start) = (Written::default(), Instant::now());
        let mut meter = Meter::on(Form::Json, "a.tar", Box::new(written.clone()), start);
        for millis in [0, 100, 250] {
            meter.show_at(start + Duration::from_millis(millis), &progress(Stage::Hashing, millis, 300));
        }
        let text = written.take();
        let objects: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let object = |done: u64| json!({"progress": {"name": "a.tar", "stage": "hashing", "done": done, "total": 300}});
        assert_eq!(objects, [object(0), object(250)]);
    }
}

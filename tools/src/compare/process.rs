//! Measured processes: the resources of each, sampled while it runs and read once more when it has ended.

use crate::Outcome;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The time limit for a process to end after it was told to.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// The resources that a process, and the children that it waited for, have used.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Usage {
    /// Seconds of processor time, user and system.
    pub(crate) cpu: f64,
    /// Peak resident memory, and peak anonymous memory, in KiB.
    pub(crate) peak: u64,
    pub(crate) anonymous: u64,
}

/// A running process. Dropping it ends the process.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
    used: Usage,
    exit: Option<i32>,
}

impl Process {
    /// Starts a command in `dir`. Its output goes to a file there.
    pub(crate) fn start(command: &mut Command, dir: &Path, name: &str) -> Outcome<Process> {
        let log = dir.join(format!("{name}.log"));
        let (out, err) = (fs::File::create(&log)?, fs::File::options().append(true).open(&log)?);
        command.current_dir(dir).env("HOME", dir).stdin(Stdio::null()).stdout(out).stderr(err);
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().map_err(|error| format!("{program}: {error}"))?;
        Ok(Process { child, log, used: Usage::default(), exit: None })
    }

    /// Its output so far.
    pub(crate) fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Reads what the process has used so far, and notes whether it has ended.
    pub(crate) fn sample(&mut self) -> Usage {
        if self.exit.is_some() {
            return self.used;
        }
        let process = PathBuf::from(format!("/proc/{}", self.child.id()));
        // The system keeps the times of an ended process until its parent waits for it.
        let stat = fs::read_to_string(process.join("stat")).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks: u64 =
            fields.get(11..15).into_iter().flatten().filter_map(|field| field.parse::<u64>().ok()).sum();
        self.used.cpu = self.used.cpu.max(ticks as f64 / rustix::param::clock_ticks_per_second() as f64);
        let status = fs::read_to_string(process.join("status")).unwrap_or_default();
        let value = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next())
                .and_then(|number| number.parse().ok())
                .unwrap_or(0)
        };
        self.used.peak = self.used.peak.max(value("VmHWM:"));
        self.used.anonymous = self.used.anonymous.max(value("RssAnon:"));
        if let Ok(Some(status)) = self.child.try_wait() {
            self.exit = Some(status.code().unwrap_or(-1));
        }
        self.used
    }

    /// Whether the process has ended with success. An error if it has failed.
    pub(crate) fn has_ended(&mut self) -> Outcome<bool> {
        self.sample();
        match self.exit {
            None => Ok(false),
            Some(0) => Ok(true),
            Some(code) => Err(format!("it ended with {code}: {}", self.said()).into()),
        }
    }

    /// Asks the process to end, and kills it if it does not.
    pub(crate) fn stop(&mut self) {
        self.sample();
        if self.exit.is_some() {
            return;
        }
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let began = Instant::now();
        while began.elapsed() < STOP_LIMIT {
            self.sample();
            if self.exit.is_some() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.exit = Some(-1);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

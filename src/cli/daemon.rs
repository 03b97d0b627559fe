//! The loop of `elver node`: turns of the driver, and between them the log, the service manager and SIGHUP.

use super::logging::Log;
use super::reload::Reload;
use super::service::Service;
use super::status::summary;
use crate::config::Environment;
use crate::net::Driver;
use crate::node::command::{Command, Reply, Response};
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

/// The time between two attempts to write log lines that the reader has not taken.
const LOG_RETRY: Duration = Duration::from_millis(250);

/// A running node.
pub(super) struct Daemon<'a> {
    driver: Driver,
    log: Option<&'a Log>,
    service: Service,
    environment: Environment<'a>,
    /// Whether a person watches the log on a terminal.
    on_terminal: bool,
}

impl<'a> Daemon<'a> {
    pub(super) fn new(driver: Driver, log: Option<&'a Log>, environment: Environment<'a>) -> Self {
        let service = Service::of(environment, std::process::id(), Instant::now());
        Daemon { driver, log, service, environment, on_terminal: io::stderr().is_terminal() }
    }

    /// Runs until the node is told to stop, and then stops it in order.
    pub(super) fn run(mut self, reload: &mut Reload) -> io::Result<()> {
        self.service.ready();
        while !self.driver.is_stopping() {
            // Waiting log lines need a turn even when the node is idle.
            let waits = self.log.is_some_and(Log::flush_waiting).then_some(LOG_RETRY);
            let wait = [waits, self.service.time_left(Instant::now())].into_iter().flatten().min();
            self.driver.turn(wait)?;
            let now = Instant::now();
            self.service.turned(now);
            if self.driver.take_hangup() {
                self.hang_up(reload);
            }
            if self.service.wants_status(now) {
                self.driver.command(Command::Status);
            }
            while let Some((_, response)) = self.driver.poll_response() {
                self.hear(response);
            }
        }
        self.service.stopping();
        self.driver.run()
    }

    /// SIGHUP: reads the configuration again, or ends the node with the terminal that it was started on.
    fn hang_up(&mut self, reload: &mut Reload) {
        if self.on_terminal && !io::stderr().is_terminal() {
            log::info!("the terminal is gone: the node stops");
            return self.driver.stop();
        }
        self.service.reloading();
        if let Some(limits) = reload.again(self.environment) {
            self.driver.command(limits);
        }
        self.service.ready();
    }

    fn hear(&mut self, response: Response) {
        match response {
            Response::Done(Reply::Status(status)) => self.service.status(&summary(&status)),
            Response::Failed(failure) => log::error!("the limits stay as they are: {}", failure.message),
            Response::Done(_) | Response::Progress(_) | Response::Content(_) => {}
        }
    }
}

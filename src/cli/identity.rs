//! `id`: the node's identity, and another one for it.

use super::Context;
use super::exit::{CommandError, Exit};
use crate::config::units::format_duration;
use crate::config::values::parse_id_work;
use crate::config::{self, Settings};
use crate::disk::{OpenError, Renewed, forget_identity, renew_identity};
use crate::id::IdWork;
use crate::identity::Identity;
use crate::node::command::{Command, Reply};
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;

pub(super) const AFTER_HELP: &str = "\
A directory that was copied, cloned with its disk, or restored beside the original has one identity for several nodes. Each of them says so
in its log and in `elver status`. Stop all but one, run `elver id --new` in the directory of each of these, and start them again.

With --new, shares and stored pieces stay. The node is near to other keys than before, so pieces move over time. Values that were
published under the old key can be changed only with that key, and expire at the end of their lifetime; the old key is kept in
identity.key.old. With --golden nothing of the identity stays, and no image that is made of the directory contains one.

An open network may ask each identity for work (`elver node --id-work N`). With --new --id-work N keys are drawn until one shows N bits
of it: 2^N on average, a few seconds for 16, some minutes for 24, most of a year for 40. Without --id-work, --new takes N from
elver.toml or ELVER_ID_WORK.

Examples:
  elver id                          print id and key of the running node
  elver --dir /var/lib/elver id --new      give a copy an identity of its own
  elver --dir /var/lib/elver id --new --id-work 20   ... which shows 20 bits of work
  elver --dir /var/lib/elver id --golden   make the directory ready for an image of many machines";

#[derive(clap::Args, Debug)]
pub(super) struct IdArguments {
    /// Give the node, which must not run, a new identity
    #[arg(long)]
    new: bool,
    /// Bits of work that the new identity has to show [env: ELVER_ID_WORK]
    #[arg(long, value_name = "N", requires = "new", value_parser = parse_id_work)]
    id_work: Option<IdWork>,
    /// Remove the identity of the node, which must not run: the next start draws one
    #[arg(long, conflicts_with = "new")]
    golden: bool,
}

pub(super) fn run(context: &mut Context, arguments: &IdArguments) -> Result<Exit, CommandError> {
    match (arguments.new, arguments.golden) {
        (true, _) => renew(context, arguments.id_work),
        (_, true) => forget(context),
        _ => show(context),
    }
}

fn show(context: &mut Context) -> Result<Exit, CommandError> {
    let reply = context.request(&Command::Id, "")?;
    let Reply::Id { id, public } = reply else {
        return Err(context.unexpected(&reply));
    };
    match context.output.json {
        true => context.output.object(&json!({ "id": id, "public": public }))?,
        false => print(context, &id.to_string(), &public.to_string())?,
    }
    Ok(Exit::Done)
}

fn renew(context: &mut Context, asked: Option<IdWork>) -> Result<Exit, CommandError> {
    let id_work = match asked {
        Some(id_work) => id_work,
        None => configured_work(context)?,
    };
    if id_work > IdWork::NONE {
        let seconds = id_work.keys() as f64 * seconds_per_key();
        context.output.remark(&format!(
            "looking for a key that shows {id_work} of work: about {} keys, {} on average on this machine",
            id_work.keys(),
            format_duration(seconds.ceil() as u64)
        ));
    }
    let renewed = renew_identity(&context.dir, id_work);
    let Renewed { old, new } = renewed.map_err(|error| cannot(context, &error))?;
    let identity = Identity::from_secret(&new);
    let old = old.map(|secret| Identity::from_secret(&secret));
    let (id, public) = (identity.id().to_string(), identity.public().to_string());
    if context.output.json {
        let old = old.map(|old| old.id().to_string());
        context.output.object(&json!({ "id": id, "public": public, "old_id": old }))?;
        return Ok(Exit::Done);
    }
    print(context, &id, &public)?;
    if let Some(old) = old {
        context.output.remark(&format!(
            "this was node {}: its shares and pieces stay; values that it published can be changed only with its old key, \
             which is kept in identity.key.old",
            old.id()
        ));
    }
    Ok(Exit::Done)
}

/// The work that the node of this directory is configured to ask for.
fn configured_work(context: &Context) -> Result<IdWork, CommandError> {
    let file = config::environment("ELVER_CONFIG").filter(|file| !file.is_empty()).map(PathBuf::from);
    let settings = Settings::default();
    let config = config::load(context.dir.clone(), settings, file.as_deref(), &config::environment)?;
    Ok(config.id_work)
}

/// The time in which this machine tries one key.
fn seconds_per_key() -> f64 {
    const TRIED: u8 = 64;
    let start = Instant::now();
    let shown = (0..TRIED).map(|number| IdWork::shown(&Identity::from_secret(&[number; 32]).public()));
    core::hint::black_box(shown.max());
    start.elapsed().as_secs_f64() / f64::from(TRIED)
}

fn forget(context: &mut Context) -> Result<Exit, CommandError> {
    let had_one = forget_identity(&context.dir).map_err(|error| cannot(context, &error))?;
    let dir = context.dir.to_string_lossy().into_owned();
    if context.output.json {
        context.output.object(&json!({ "dir": dir, "removed": had_one }))?;
    }
    let removed = if had_one { "the identity is removed from" } else { "there was no identity in" };
    context.output.remark(&format!(
        "{removed} {dir}: the next node that starts there draws one; make the image before you start one"
    ));
    Ok(Exit::Done)
}

fn print(context: &mut Context, id: &str, public: &str) -> Result<(), CommandError> {
    context.output.line(&format!("id   {id}"))?;
    context.output.line(&format!("key  {public}"))
}

fn cannot(context: &Context, error: &OpenError) -> CommandError {
    let advice = match error {
        OpenError::InUse { .. } => " (stop the node first)",
        _ => "",
    };
    CommandError::failed(format!("cannot change the identity in {}: {error}{advice}", context.dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::FakeDaemon;
    use crate::id::{NodeId, PublicKey};
    use crate::node::command::Response;

    fn shown(reply: Reply) -> Result<String, Exit> {
        let daemon = FakeDaemon::answering(&[Response::Done(reply)]);
        let (mut context, results, _) = daemon.context(false);
        show(&mut context).map(|_| results.text()).map_err(|error| error.exit)
    }

    #[test]
    fn the_id_and_the_public_key_are_printed_each_with_its_label() {
        let reply = Reply::Id { id: NodeId([2; 32]), public: PublicKey([1; 32]) };
        let lines = format!("id   {}\nkey  {}\n", NodeId([2; 32]), PublicKey([1; 32]));
        assert_eq!(shown(reply), Ok(lines));
    }

    #[test]
    fn a_reply_to_another_command_is_a_failure() {
        assert_eq!(shown(Reply::Leave { handed_over: 0, left_behind: 0 }), Err(Exit::Failed));
    }
}

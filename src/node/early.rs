//! Commands that need the network and were given before the node joined it.

use super::command::{Command, CommandId};

/// The commands that wait until the node has joined, in order.
pub(super) struct Early {
    max: usize,
    waiting: Vec<(CommandId, Command)>,
}

impl Early {
    /// At most `max` commands wait; further ones are tried at once.
    pub(super) fn new(max: usize) -> Self {
        Early { max, waiting: Vec::new() }
    }

    /// Whether no command waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Lets a command wait, if it asks the network and there is room. Else returns it.
    pub(super) fn wait(&mut self, id: CommandId, command: Command) -> Option<Command> {
        let asks = matches!(
            command,
            Command::Put { .. }
                | Command::Get { .. }
                | Command::GetEntry { .. }
                | Command::Explain { .. }
                | Command::Read { .. }
                | Command::Set { .. }
                | Command::Lookup { .. }
        );
        if !asks || self.waiting.len() >= self.max {
            return Some(command);
        }
        self.waiting.push((id, command));
        None
    }

    /// A client no longer waits for a command.
    pub(super) fn cancel(&mut self, command: CommandId) {
        self.waiting.retain(|(id, _)| *id != command);
    }

    /// Removes the commands to publish a value under this name.
    pub(super) fn take_sets(&mut self, name: &str) -> Vec<CommandId> {
        let sets = |command: &Command| matches!(command, Command::Set { name: its, .. } if its == name);
        let taken = self.waiting.iter().filter(|(_, command)| sets(command)).map(|(id, _)| *id).collect();
        self.waiting.retain(|(_, command)| !sets(command));
        taken
    }

    /// The node has joined: takes all commands.
    pub(super) fn take(&mut self) -> Vec<(CommandId, Command)> {
        core::mem::take(&mut self.waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str) -> Command {
        Command::Set { name: name.to_owned(), value: vec![1], lifetime: None }
    }

    fn taken(early: &mut Early) -> Vec<u64> {
        early.take().into_iter().map(|(id, _)| id.0).collect()
    }

    #[test]
    fn commands_that_ask_the_network_wait_in_order_and_others_do_not() {
        let mut early = Early::new(8);
        assert_eq!(early.wait(CommandId(1), set("a")), None);
        assert_eq!(early.wait(CommandId(2), Command::Status), Some(Command::Status));
        assert_eq!(early.wait(CommandId(3), set("b")), None);
        assert_eq!(taken(&mut early), [1, 3]);
        assert!(early.is_empty());
    }

    #[test]
    fn a_command_without_room_does_not_wait() {
        let mut early = Early::new(1);
        early.wait(CommandId(1), set("a"));
        assert_eq!(early.wait(CommandId(2), set("b")), Some(set("b")));
    }

    #[test]
    fn a_cancelled_command_does_not_begin() {
        let mut early = Early::new(8);
        early.wait(CommandId(1), set("a"));
        early.wait(CommandId(2), set("b"));
        early.cancel(CommandId(1));
        assert_eq!(taken(&mut early), [2]);
    }

    #[test]
    fn the_commands_to_set_one_name_are_taken_out() {
        let mut early = Early::new(8);
        (1..).zip(["a", "b", "a"]).for_each(|(id, name)| _ = early.wait(CommandId(id), set(name)));
        assert_eq!(early.take_sets("a"), [CommandId(1), CommandId(3)]);
        assert_eq!(taken(&mut early), [2]);
    }
}

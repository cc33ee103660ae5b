//! The command line.

use crate::{
    client::{self, Failure},
    process, serve, up,
};

const HELP: &str = "\
Examples:
  starcoffee up                                    the whole shop on this machine
  starcoffee up --auto-barista 2s                  with a barista who never sleeps
  starcoffee serve make --bus-url nats://127.0.0.1:4222 --database-url 'sqlite:make.db?mode=rwc'
                                                   one service in a process of its own
  starcoffee menu
  starcoffee order place latte -n 2 --watch        two lattes; tells how they get on
  starcoffee order place latte 2xespresso:small    one latte and two small espressos
  starcoffee bar next && starcoffee bar done       makes the coffee that waits longest
  starcoffee order list -o json | jq '.orders[].state'
  starcoffee events tail --follow                  what the services tell each other
  starcoffee mesh                                  how the services' calls to each other fare
  starcoffee load --rate 200 --duration 30s        real orders, then a check of the shop's books

Exit codes:
  0  done
  1  failed, for a reason that is none of the following
  2  the command line is malformed
  3  not found: there is no such order, ticket or dead letter, or none that waits
  4  refused: something is invalid, or no longer possible
  5  not now: the shop cannot be reached, does not serve, or took too long

Data goes to stdout, all else to stderr. Colours are for terminals only, and NO_COLOR switches them off.";

/// A coffee shop that never loses an order: four services, and their client
#[derive(Debug, clap::Parser)]
#[command(name = "starcoffee", version, after_long_help = HELP, after_help = "--help tells more")]
#[command(subcommand_required = true, arg_required_else_help = true, max_term_width = 120)]
#[command(args_override_self = true)] // the last counts: scripts put theirs first
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Up(Box<up::Args>),
    #[command(subcommand)]
    Serve(serve::Service),
    #[command(flatten)]
    Client(Box<client::Command>),
}

impl Cli {
    /// Does what was asked.
    ///
    /// # Errors
    /// What to tell, and how to exit.
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::Up(args) => Ok(args.run()?),
            Command::Serve(service) => Ok(service.run()?),
            // one person's commands need one thread
            Command::Client(command) => process::runtime(1)?.block_on(command.run()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory as _, Parser as _};

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_says_what_it_does() {
        fn check(command: &clap::Command, path: &str) {
            assert!(command.get_about().is_some(), "{path}");
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{path}: {}", argument.get_id());
            }
            for subcommand in command.get_subcommands() {
                check(subcommand, &format!("{path} {}", subcommand.get_name()));
            }
        }
        let mut command = Cli::command();
        command.build();
        check(&command, "starcoffee");
    }

    #[test]
    fn a_service_is_offered_what_it_uses_under_the_headings_it_belongs_to() {
        let mut command = Cli::command();
        command.build();
        let serve = command.find_subcommand("serve").expect("it is there");
        for service in serve.get_subcommands().filter(|it| it.get_name() != "help") {
            let arguments: Vec<_> = service.get_arguments().collect();
            let find = |id| arguments.iter().find(|argument| argument.get_id() == id);
            let heading = |id| find(id).and_then(|argument| argument.get_help_heading());
            for (id, expected) in
                [("database_url", "Database"), ("ready_file", "Process"), ("url", "Events")]
            {
                assert_eq!(heading(id), Some(expected), "{}: {id}", service.get_name());
            }
            assert_eq!(heading("runtime_threads"), Some("Process"));
            let bus = find("url").expect("each needs a bus");
            assert!(bus.is_required_set() && bus.get_default_values().is_empty());
            let priced = ["order", "payment"].contains(&service.get_name());
            assert_eq!(find("currency").is_some(), priced, "{}", service.get_name());
        }
    }

    #[test]
    fn where_the_shop_is_may_be_said_before_and_after_a_client_s_command() {
        for line in [
            "starcoffee order --order-url http://a:1 -o json get 7",
            "starcoffee order get 7 --order-url http://a:1 -o json",
        ] {
            Cli::try_parse_from(line.split(' ')).expect(line);
        }
    }
}

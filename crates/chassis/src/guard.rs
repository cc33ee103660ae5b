//! Who may be let in: until callers have to say who they are, nobody from another machine, unless that is wanted in so many
//! words.

use clap::builder::BoolishValueParser;
use std::net::SocketAddr;

/// Whether strangers are let in.
#[derive(Clone, Copy, Debug, clap::Args)]
#[command(next_help_heading = "Listening")]
#[group(skip)]
pub struct Guard {
    /// Listen beyond this machine, too. There is no sign-in: whoever reaches a port may do everything. `serve --tls-ca` does
    /// without: callers need a certificate there
    #[arg(long, env = "STARCOFFEE_ALLOW_ANONYMOUS", value_parser = BoolishValueParser::new())]
    pub allow_anonymous: bool,
}

/// An address that other machines reach.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{flag} {address} lets in other machines, and nobody has to sign in: \
     listen on 127.0.0.1, or say --allow-anonymous"
)]
pub struct Exposed {
    flag: &'static str,
    address: SocketAddr,
}

impl Guard {
    /// Lets an address pass that only this machine reaches, and any other if that is wanted. `flag` is the one that set it,
    /// `--listen` for example.
    ///
    /// # Errors
    /// [`Exposed`], with the cure.
    pub fn admit(self, flag: &'static str, address: SocketAddr) -> Result<(), Exposed> {
        if self.allow_anonymous || address.ip().to_canonical().is_loopback() {
            return Ok(());
        }
        Err(Exposed { flag, address })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_this_machine_only_in_so_many_words() {
        let admit = |allow_anonymous, address: &str| {
            Guard { allow_anonymous }.admit("--listen", address.parse().expect("an address"))
        };
        for local in ["127.0.0.1:0", "127.1.2.3:8081", "[::1]:8081", "[::ffff:127.0.0.1]:8081"] {
            assert_eq!(admit(false, local), Ok(()), "{local}");
        }
        for open in ["0.0.0.0:8081", "[::]:8081", "192.168.1.7:8081", "[::ffff:10.0.0.1]:8081"] {
            let exposed = admit(false, open).expect_err(open).to_string();
            assert!(["--listen", open, "--allow-anonymous"].iter().all(|it| exposed.contains(it)));
            assert_eq!(admit(true, open), Ok(()), "{open}");
        }
    }
}

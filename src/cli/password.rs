//! `landfall hash-password`: reads a secret without echo and prints the hash for the configuration.

use std::io::{BufRead, IsTerminal};

use crate::auth::Hash;
use landfall_adapter::Secret;

use super::{Failure, output};

/// Prompts twice on a terminal, without echo; otherwise reads the first line of stdin.
pub(super) fn hash() -> Result<(), Failure> {
    let secret = if std::io::stdin().is_terminal() { ask()? } else { first_line()? };
    if secret.expose().is_empty() {
        return Err(usage("an empty password protects nothing; give one on the first line of stdin"));
    }
    let hash = Hash::make(secret.expose()).map_err(|error| Failure::server(error.report()))?;
    output::print(&hash);
    Ok(())
}

fn ask() -> Result<Secret, Failure> {
    let prompt = |text: &str| {
        rpassword::prompt_password(text)
            .map(Secret::new)
            .map_err(|error| usage(&format!("the terminal cannot be read: {error}")))
    };
    let first = prompt("Password or token: ")?;
    if !first.expose().is_empty() && first != prompt("Again: ")? {
        return Err(usage("the two are not the same; try again"));
    }
    Ok(first)
}

fn first_line() -> Result<Secret, Failure> {
    let mut line = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|error| usage(&format!("stdin cannot be read: {error}")))?;
    Ok(Secret::new(line.trim_end_matches(['\n', '\r'])))
}

fn usage(message: &str) -> Failure {
    Failure::Usage(vec![message.to_owned()])
}

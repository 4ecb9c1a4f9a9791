//! How a command reaches a server and authenticates.
//!
//! Secrets come from the environment or from files, never from arguments, which every user of the machine can read.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};

use landfall_adapter::Secret;
use landfall_adapter::tls::{self, Trust};

use super::Failure;

const TOKEN: &str = "LANDFALL_TOKEN";
const PASSWORD: &str = "LANDFALL_PASSWORD";

/// Trust and client certificate for `https` addresses.
#[derive(Debug, Args)]
pub(super) struct Encryption {
    /// PEM file with the trusted authorities, instead of those of the system
    #[arg(long, env = "LANDFALL_CA_FILE", value_name = "PATH")]
    ca_file: Option<PathBuf>,
    /// PEM file with the client certificate, for a server that requires one
    #[arg(long, value_name = "PATH", requires = "client_key")]
    client_cert: Option<PathBuf>,
    /// PEM file with the key of the client certificate
    #[arg(long, value_name = "PATH", requires = "client_cert")]
    client_key: Option<PathBuf>,
}

/// The token of the adapter contracts.
#[derive(Debug, Args)]
pub(super) struct BearerToken {
    /// File with the token for the server; without it, the variable LANDFALL_TOKEN
    #[arg(long, value_name = "PATH")]
    token_file: Option<PathBuf>,
}

/// A user of the topology contract.
#[derive(Debug, Args)]
pub(super) struct BasicUser {
    /// Name of a user that the server knows
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// File with their password; without it, the variable LANDFALL_PASSWORD
    #[arg(long, value_name = "PATH", requires = "user")]
    password_file: Option<PathBuf>,
}

/// The value of an Authorization header. It contains a secret.
pub(super) struct Authorization(HeaderValue);

impl BearerToken {
    /// Returns the header for the token, or `None` if no token is given.
    pub(super) fn authorization(&self) -> Result<Option<Authorization>, Failure> {
        let token = secret(self.token_file.as_deref(), TOKEN)?;
        token.map(|token| Authorization::new(&format!("Bearer {}", token.expose()), TOKEN)).transpose()
    }
}

impl BasicUser {
    /// Returns the header for the user, or `None` if no user is given.
    pub(super) fn authorization(&self) -> Result<Option<Authorization>, Failure> {
        let Some(name) = &self.user else { return Ok(None) };
        if name.contains(':') {
            return Err(usage(format!("--user `{name}`: a name has no `:`")));
        }
        let password = secret(self.password_file.as_deref(), PASSWORD)?.ok_or_else(|| {
            usage(format!(
                "--user `{name}` needs a password: set {PASSWORD}, or name a file with --password-file"
            ))
        })?;
        let pair = STANDARD.encode(format!("{name}:{}", password.expose()));
        Authorization::new(&format!("Basic {pair}"), PASSWORD).map(Some)
    }
}

impl Authorization {
    fn new(value: &str, variable: &str) -> Result<Self, Failure> {
        let mut value = HeaderValue::from_str(value)
            .map_err(|_| usage(format!("what {variable} or its file holds cannot be sent in a header")))?;
        // Debug output of a request then does not contain the value.
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

/// Creates an HTTP client for this address.
pub(super) fn http(
    url: &str,
    encryption: &Encryption,
    authorization: Option<Authorization>,
) -> Result<reqwest::Client, Failure> {
    let encrypted = url.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:"));
    let trust = match &encryption.ca_file {
        _ if !encrypted => Trust::Nobody,
        Some(path) => Trust::File(path),
        None => Trust::System,
    };
    let identity = encryption.client_cert.as_deref().zip(encryption.client_key.as_deref());
    let tls = tls::client(trust, identity).map_err(usage)?;
    let headers = authorization.map(|Authorization(value)| HeaderMap::from_iter([(AUTHORIZATION, value)]));
    #[expect(clippy::disallowed_methods, reason = "this is where TLS is given to it")]
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .default_headers(headers.unwrap_or_default())
        .connect_timeout(Duration::from_secs(10))
        // The timeout is longer than the default deadline of a dry run, because the server's error explains
        // more than a client timeout.
        .timeout(Duration::from_secs(90))
        .build()
        .map_err(|error| Failure::server(format!("the HTTP client cannot be made: {error}")))
}

/// Returns the failure for a 401, with the remedy for the kind of credential that the command uses.
pub(super) fn unauthorized(url: &str) -> Failure {
    Failure::server(format!(
        "{url}: the server does not know who calls (401); set {TOKEN} to a token that it knows, or name a file with \
         --token-file"
    ))
}

/// The first line of the file if one is given, else the variable; an empty secret counts as missing.
fn secret(file: Option<&Path>, variable: &str) -> Result<Option<Secret>, Failure> {
    let Some(path) = file else {
        return Ok(std::env::var(variable).ok().filter(|text| !text.is_empty()).map(Secret::new));
    };
    let text =
        std::fs::read_to_string(path).map_err(|error| usage(format!("{}: {error}", path.display())))?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(Some(Secret::new(line))),
        _ => Err(usage(format!("{}: the first line is empty; it must be the secret", path.display()))),
    }
}

fn usage(message: String) -> Failure {
    Failure::Usage(vec![message])
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Topology {
        #[command(flatten)]
        user: BasicUser,
        #[command(flatten)]
        token: BearerToken,
    }

    fn parse(arguments: &[&str]) -> Topology {
        Topology::try_parse_from(["x"].iter().chain(arguments)).unwrap()
    }

    fn message(failure: Failure) -> String {
        match failure {
            Failure::Usage(lines) => lines.join("\n"),
            other => panic!("not a usage: {other:?}"),
        }
    }

    #[test]
    fn sends_the_first_line_of_the_password_file() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"se:cret\r\nsecond line\n").unwrap();
        let path = file.path().to_str().unwrap();
        let parsed = parse(&["--user", "ops", "--password-file", path]);
        let Authorization(value) = parsed.user.authorization().ok().flatten().unwrap();
        assert_eq!(value.to_str().unwrap(), format!("Basic {}", STANDARD.encode("ops:se:cret")));
        assert_eq!(format!("{value:?}"), "Sensitive");
        assert!(parse(&[]).user.authorization().ok().unwrap().is_none());
        let error = parse(&["--user", "o:ps"]).user.authorization().err().map(message).unwrap();
        assert_eq!(error, "--user `o:ps`: a name has no `:`");
        let error = parse(&["--user", "ops"]).user.authorization().err().map(message).unwrap();
        assert_eq!(
            error,
            "--user `ops` needs a password: set LANDFALL_PASSWORD, or name a file with --password-file"
        );
        assert!(
            Topology::try_parse_from(["x", "--password-file", path]).is_err(),
            "a password without a user"
        );
    }

    #[test]
    fn token_of_a_file_is_sent_unchanged() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap().to_owned();
        let token = || parse(&["--token-file", &path]).token.authorization();
        let error = token().err().map(message).unwrap();
        assert_eq!(error, format!("{path}: the first line is empty; it must be the secret"));
        file.write_all(b"abc\n").unwrap();
        let Authorization(value) = token().ok().flatten().unwrap();
        assert_eq!(value.to_str().unwrap(), "Bearer abc");
        let error = parse(&["--token-file", "/nowhere"]).token.authorization().err().map(message).unwrap();
        assert!(error.starts_with("/nowhere: "), "{error}");
    }
}

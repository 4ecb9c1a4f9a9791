//! `[auth]`: the credentials, and the limits on their verification. Read at the start; values in other files are read
//! again on reload.
//!
//! A value that should be a hash may be a password by mistake. So no message here quotes a value, except names, roles
//! and paths.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::Figment;
use figment::providers::{Format, Toml};
use figment::value::{Dict, Value};

use crate::auth::{Bounds, Credentials, Hash, Limits, Role, Token, User};

use super::reader::{Reader, did_you_mean};

/// The maximum number of tokens. A rotation needs fewer, and a wrong token costs one verification for each.
const MAX_TOKENS: usize = 8;

/// `[auth]`
#[derive(Debug, Clone)]
pub struct Auth {
    /// The limits on verification.
    pub limits: Limits,
    /// The credentials at the start.
    pub credentials: Credentials,
    /// The sources of the credentials.
    pub source: Source,
}

/// The sources of the credentials, for a reload.
#[derive(Clone)]
pub struct Source {
    /// `[[auth.users]]`
    users: Vec<Value>,
    /// `[[auth.tokens]]`
    tokens: Vec<Value>,
    users_file: Option<PathBuf>,
    bounds: Bounds,
}

/// Reads a variable of the environment.
type Variable<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A configuration key, and the mistake in its value.
type Problem = (String, String);

impl Source {
    /// Reads the current credentials, also from `users_file` and every `{ file = }`. Fails with all mistakes,
    /// one line each.
    pub fn read(&self) -> Result<Credentials, Vec<String>> {
        let mut problems = Vec::new();
        let credentials = self.credentials(&|name| std::env::var(name).ok(), &mut problems);
        if problems.is_empty() {
            return Ok(credentials);
        }
        Err(problems.into_iter().map(|(key, message)| format!("{key}: {message}")).collect())
    }

    fn credentials(&self, variable: Variable<'_>, problems: &mut Vec<Problem>) -> Credentials {
        let mut table = Table { bounds: &self.bounds, variable, problems, names: BTreeSet::new() };
        let mut users = table.users(&self.users, |index| (format!("auth.users[{index}]"), String::new()));
        if let Some(path) = &self.users_file {
            users.extend(table.users_file(path));
        }
        table.names.clear();
        let tokens = table.tokens(&self.tokens);
        Credentials { users, tokens }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("users_file", &self.users_file).finish_non_exhaustive()
    }
}

impl Reader<'_> {
    pub(super) fn auth(&mut self) -> Option<Auth> {
        let concurrency = self.at_least_one::<u16>("auth.concurrency");
        let wait = self.duration("auth.wait", Duration::from_millis(1));
        let max_waiting = self.at_least_one::<u32>("auth.max_waiting");
        let memory_kib = self.at_least_one::<u32>("auth.max_memory_kib");
        let iterations = self.at_least_one::<u32>("auth.max_iterations");
        let max_failures = self.at_least_one("auth.max_failures");
        let failure_window = self.duration("auth.failure_window", Duration::from_millis(1));
        let max_tracked = self.at_least_one::<u32>("auth.max_tracked");
        let users_file = self.plain_path("auth.users_file");
        let (users, tokens) = (self.rows("auth.users"), self.rows("auth.tokens"));
        let source = Source {
            users,
            tokens,
            users_file,
            // If a limit itself is invalid, no limit applies here, so that mistakes in hashes are still
            // reported.
            bounds: Bounds {
                memory_kib: memory_kib.unwrap_or(u32::MAX),
                iterations: iterations.unwrap_or(u32::MAX),
            },
        };
        let mut problems = Vec::new();
        let environment = self.environment;
        let credentials = source.credentials(&|name| environment.get(name).cloned(), &mut problems);
        for (key, message) in problems {
            self.problem(&key, message);
        }
        let _ = (memory_kib?, iterations?);
        let limits = Limits {
            concurrency: usize::from(concurrency?),
            wait: wait?,
            max_waiting: usize::try_from(max_waiting?).ok()?,
            max_failures: max_failures?,
            failure_window: failure_window?,
            max_tracked: usize::try_from(max_tracked?).ok()?,
        };
        Some(Auth { limits, credentials, source })
    }

    /// Reads an array of tables. Empty if the key is missing, or after a mistake.
    fn rows(&mut self, key: &str) -> Vec<Value> {
        self.read.insert(key.to_owned());
        match self.figment.find_value(key) {
            Ok(Value::Array(_, rows)) => rows,
            Ok(other) => {
                if let Value::Dict(_, table) = other {
                    self.read.extend(table.keys().map(|name| format!("{key}.{name}")));
                }
                self.problem(key, format_args!("must be a list; write [[{key}]] for each"));
                Vec::new()
            }
            Err(_) => Vec::new(),
        }
    }
}

/// Reads rows, and collects their mistakes.
struct Table<'a> {
    bounds: &'a Bounds,
    variable: Variable<'a>,
    problems: &'a mut Vec<Problem>,
    names: BTreeSet<String>,
}

impl Table<'_> {
    /// Reads users. `place` returns, for the index of a row, its key and the prefix of its messages.
    fn users(&mut self, rows: &[Value], place: impl Fn(usize) -> (String, String)) -> Vec<User> {
        let mut users = Vec::new();
        for (index, row) in rows.iter().enumerate() {
            let mut row = Row::new(self, row, place(index));
            row.keys("a user", &["name", "role", "password_hash"]);
            let (name, role, hash) = (row.name(), row.role(), row.hash("password_hash"));
            if name.as_ref().is_some_and(|name| name.contains(':')) {
                row.problem(
                    "its `name` has a `:`, which ends a name in an Authorization header; choose another",
                );
            }
            if let (Some(name), Some(role), Some(hash)) = (name, role, hash) {
                users.push(User { name, role, hash });
            }
        }
        users
    }

    fn users_file(&mut self, path: &Path) -> Vec<User> {
        const KEY: &str = "auth.users_file";
        let shown = path.display();
        let mut wrong = |message: String| {
            self.problems.push((KEY.to_owned(), message));
            Vec::new()
        };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return wrong(format!("`{shown}` cannot be read: {error}")),
        };
        let content = match Figment::from(Toml::string(&text)).extract::<Dict>() {
            Ok(content) => content,
            // Show only the line number, because the message of the parser quotes the line.
            Err(error) => return wrong(format!("`{shown}` is not TOML{}", place(&error.to_string()))),
        };
        if let Some(other) = content.keys().find(|key| *key != "users") {
            let hint = did_you_mean(["users"].into_iter(), other);
            return wrong(format!(
                "`{shown}`: `{other}` is not a key of this file; write [[users]] for each{hint}"
            ));
        }
        let rows = match content.get("users") {
            Some(Value::Array(_, rows)) if !rows.is_empty() => rows,
            Some(Value::Dict(..)) => {
                return wrong(format!("`{shown}`: `users` must be a list; write [[users]] for each"));
            }
            // An empty file is probably being written; it must not open the contract to all callers.
            _ => {
                return wrong(format!(
                    "`{shown}` has no user; write [[users]] for each, or leave the key out"
                ));
            }
        };
        self.users(rows, |index| (KEY.to_owned(), format!("`{shown}`: users[{index}]: ")))
    }

    fn tokens(&mut self, rows: &[Value]) -> Vec<Token> {
        const KEY: &str = "auth.tokens";
        if rows.len() > MAX_TOKENS {
            self.problems.push((
                KEY.to_owned(),
                format!("`{}` are too many; at most {MAX_TOKENS} are possible", rows.len()),
            ));
        }
        let mut tokens = Vec::new();
        for (index, row) in rows.iter().enumerate() {
            let mut row = Row::new(self, row, (format!("{KEY}[{index}]"), String::new()));
            row.keys("a token", &["name", "hash"]);
            if let (Some(name), Some(hash)) = (row.name(), row.hash("hash")) {
                tokens.push(Token { name, hash });
            }
        }
        tokens
    }
}

/// One user or token, as a table of the configuration.
struct Row<'t, 'a> {
    table: &'t mut Table<'a>,
    /// `None` if the row is not a table, which has been reported.
    row: Option<Dict>,
    key: String,
    about: String,
}

impl<'t, 'a> Row<'t, 'a> {
    fn new(table: &'t mut Table<'a>, row: &Value, (key, about): (String, String)) -> Self {
        let mut read = Self { table, row: row.as_dict().cloned(), key, about };
        if read.row.is_none() {
            read.problem("must be a table");
        }
        read
    }

    fn problem(&mut self, message: impl fmt::Display) {
        self.table.problems.push((self.key.clone(), format!("{}{message}", self.about)));
    }

    fn keys(&mut self, what: &str, known: &[&str]) {
        let Some(row) = &self.row else { return };
        let unknown: Vec<String> = row.keys().filter(|key| !known.contains(&key.as_str())).cloned().collect();
        for key in unknown {
            let hint = did_you_mean(known.iter().copied(), &key);
            self.problem(format_args!("`{key}` is not a key of {what}; use {}{hint}", known.join(", ")));
        }
    }

    fn text(&mut self, name: &str) -> Option<String> {
        match self.row.as_ref()?.get(name) {
            Some(Value::String(_, text)) if !text.is_empty() => Some(text.clone()),
            Some(_) => {
                self.problem(format_args!("`{name}` must be text, and not empty"));
                None
            }
            None => {
                self.problem(format_args!("has no `{name}`"));
                None
            }
        }
    }

    fn name(&mut self) -> Option<String> {
        let name = self.text("name")?;
        if !self.table.names.insert(name.clone()) {
            self.problem("its `name` is that of another one; a name belongs to one");
            return None;
        }
        Some(name)
    }

    fn role(&mut self) -> Option<Role> {
        match self.text("role")?.as_str() {
            "read" => Some(Role::Read),
            "write" => Some(Role::Write),
            other => {
                self.problem(format_args!("`role` is `{other}`; use one of: read, write"));
                None
            }
        }
    }

    /// Reads a hash, given as text or as `{ env = }` or `{ file = }`.
    fn hash(&mut self, name: &str) -> Option<Hash> {
        let text = match self.row.as_ref()?.get(name) {
            None => Err(format!("has no `{name}`; print one with `landfall hash-password`")),
            Some(Value::String(_, text)) => Ok(text.clone()),
            Some(Value::Dict(_, reference)) => {
                referred(reference, self.table.variable).map_err(|e| format!("`{name}` {e}"))
            }
            Some(_) => Err(format!("`{name}` {NEITHER}")),
        };
        let read = text.and_then(|text| {
            Hash::parse(text.trim(), self.table.bounds).map_err(|error| format!("`{name}` {error}"))
        });
        read.map_err(|error| self.problem(error)).ok()
    }
}

const NEITHER: &str = "must be the hash, `{ env = \"NAME\" }` or `{ file = \"PATH\" }`";

fn referred(reference: &Dict, variable: Variable<'_>) -> Result<String, String> {
    let mut entries = reference.iter();
    let (Some((kind, Value::String(_, at))), None) = (entries.next(), entries.next()) else {
        return Err(NEITHER.to_owned());
    };
    match kind.as_str() {
        "env" => variable(at)
            .filter(|text| !text.is_empty())
            .ok_or_else(|| format!("is in the variable `{at}`, which is not set, or empty")),
        "file" => std::fs::read_to_string(at)
            .map_err(|error| format!("is in `{at}`, which cannot be read: {error}")),
        _ => Err(NEITHER.to_owned()),
    }
}

/// Returns `, line 3` if the error text has a line number, or else nothing.
fn place(error: &str) -> String {
    let after = error.split_once("line ").map_or("", |(_, rest)| rest);
    let number: String = after.chars().take_while(char::is_ascii_digit).collect();
    if number.is_empty() { String::new() } else { format!(", line {number}") }
}

#[cfg(test)]
mod tests {
    use crate::auth::cheap;

    use super::super::tests::{file, load};
    use super::*;

    #[test]
    fn reads_credentials_from_file_variables_and_other_files() {
        let (ops, dev, eve, token) = (cheap("1"), cheap("2"), cheap("3"), cheap("4"));
        let hash = file(&format!("{dev}\n"));
        let users = file(&format!("[[users]]\nname = \"eve\"\nrole = \"read\"\npassword_hash = \"{eve}\"\n"));
        let text = format!(
            "[auth]\nconcurrency = 3\nfailure_window = \"5m\"\nusers_file = \"{}\"\n\
             [[auth.users]]\nname = \"ops\"\nrole = \"write\"\npassword_hash = {{ env = \"OPS\" }}\n\
             [[auth.users]]\nname = \"dev\"\nrole = \"read\"\npassword_hash = {{ file = \"{}\" }}\n\
             [[auth.tokens]]\nname = \"ops\"\nhash = \"{token}\"\n",
            users.path().display(),
            hash.path().display(),
        );
        let auth = load(&text, &[("OPS", &ops)]).unwrap().auth;
        let user = |name: &str, role: Role, hash: &str| User {
            name: name.to_owned(),
            role,
            hash: Hash::parse(hash, &auth.source.bounds).unwrap(),
        };
        let all =
            [user("ops", Role::Write, &ops), user("dev", Role::Read, &dev), user("eve", Role::Read, &eve)];
        assert_eq!(auth.credentials.users, all);
        let expected =
            Token { name: "ops".to_owned(), hash: Hash::parse(&token, &auth.source.bounds).unwrap() };
        assert_eq!(auth.credentials.tokens, [expected], "a token may have the name of a user");
        assert_eq!((auth.limits.concurrency, auth.limits.failure_window), (3, Duration::from_secs(300)));
        let shown = format!("{auth:?}");
        assert!(!shown.contains("argon2id"), "{shown}");
    }

    #[test]
    fn contracts_are_open_without_credentials() {
        let config = load("", &[]).unwrap();
        assert_eq!(config.auth.credentials, Credentials::default());
        assert_eq!(config.server.tls, None);
    }

    #[test]
    fn rereads_files_and_reports_mistakes() {
        let users =
            file(&format!("[[users]]\nname = \"a\"\nrole = \"read\"\npassword_hash = \"{}\"\n", cheap("1")));
        let text = format!("auth.users_file = \"{}\"\n", users.path().display());
        let source = load(&text, &[]).unwrap().auth.source;
        let at = users.path().display().to_string();
        assert_eq!(source.read().unwrap().users.len(), 1);
        let refused = |content: &str| {
            std::fs::write(users.path(), content).unwrap();
            source.read().unwrap_err().join("\n")
        };
        let no_user =
            format!("auth.users_file: `{at}` has no user; write [[users]] for each, or leave the key out");
        for empty in ["", "users = []\n", "users = 7\n"] {
            assert_eq!(refused(empty), no_user, "an empty file opens nothing");
        }
        assert_eq!(
            refused("[[users]]\nname = \"hunter2\n"),
            format!("auth.users_file: `{at}` is not TOML, line 2")
        );
        assert_eq!(
            refused("[users]\nname = \"a\"\n"),
            format!("auth.users_file: `{at}`: `users` must be a list; write [[users]] for each")
        );
        assert_eq!(
            refused("[[user]]\nname = \"a\"\n"),
            format!(
                "auth.users_file: `{at}`: `user` is not a key of this file; write [[users]] for each; did you mean \
                 `users`?"
            )
        );
        assert_eq!(
            refused("[[users]]\nname = \"a\"\nrole = \"admin\"\npassword_hash = \"hunter2\"\n"),
            format!(
                "auth.users_file: `{at}`: users[0]: `role` is `admin`; use one of: read, write\n\
                 auth.users_file: `{at}`: users[0]: `password_hash` is not an argon2 hash (and is not shown, in case it \
                 is the secret itself); print one with `landfall hash-password`"
            )
        );
        let two = format!(
            "[[users]]\nname = \"a\"\nrole = \"read\"\npassword_hash = \"{0}\"\n\
             [[users]]\nname = \"b\"\nrole = \"write\"\npassword_hash = \"{0}\"\n",
            cheap("2")
        );
        std::fs::write(users.path(), two).unwrap();
        assert_eq!(source.read().unwrap().users.len(), 2);
        std::fs::remove_file(users.path()).unwrap();
        let gone = source.read().unwrap_err().join("\n");
        assert!(gone.starts_with(&format!("auth.users_file: `{at}` cannot be read: ")), "{gone}");
    }

    #[test]
    fn reports_every_mistake_by_key_without_secrets() {
        let hash = cheap("1");
        let text = format!(
            r#"
            [auth]
            concurrency = 0
            wait = "soon"
            max_memory_kib = 8
            max_failure = 3
            users_file = ""
            [[auth.users]]
            name = "ops"
            role = "write"
            password_hash = "hunter2-plain"
            [[auth.users]]
            name = "ops"
            role = "admin"
            password = "hunter2-key"
            [[auth.users]]
            name = "o:hunter2"
            roles = "read"
            password_hash = {{ env = "UNSET" }}
            [[auth.users]]
            name = 7
            role = "read"
            password_hash = {{ file = "/nowhere" }}
            [[auth.users]]
            name = ""
            role = "read"
            password_hash = {{ env = "A", file = "b" }}
            [[auth.tokens]]
            name = "one"
            hash = ["hunter2"]
            [[auth.tokens]]
            name = "one"
            hash = "{hash}"
            expires = "never"
            [[auth.tokens]]
            name = "dear"
            hash = "$argon2id$v=19$m=9,t=1,p=1$c29tZXNhbHQ$RdescudvJCsgt3ub+b9dWRWJTmaaJObG"
            "#
        );
        let mut problems = load(&text, &[]).unwrap_err();
        let unreadable = problems.iter().position(|line| line.contains("/nowhere")).unwrap();
        let unreadable = problems.remove(unreadable);
        let beginning = "auth.users[3]: `password_hash` is in `/nowhere`, which cannot be read: ";
        assert!(unreadable.starts_with(beginning), "{unreadable}");
        let no_hash = "is not an argon2 hash (and is not shown, in case it is the secret itself); print one with \
                       `landfall hash-password`";
        let expected = [
            "auth.concurrency: `0` is too small; at least 1 is needed",
            "auth.wait: `soon` is not a duration; write a number and a unit: 500ms, 30s, 5m, 1h",
            "auth.users_file: is empty; name a file",
            &format!("auth.users[0]: `password_hash` {no_hash}"),
            "auth.users[1]: `password` is not a key of a user; use name, role, password_hash",
            "auth.users[1]: its `name` is that of another one; a name belongs to one",
            "auth.users[1]: `role` is `admin`; use one of: read, write",
            "auth.users[1]: has no `password_hash`; print one with `landfall hash-password`",
            "auth.users[2]: `roles` is not a key of a user; use name, role, password_hash; did you mean `role`?",
            "auth.users[2]: has no `role`",
            "auth.users[2]: `password_hash` is in the variable `UNSET`, which is not set, or empty",
            "auth.users[2]: its `name` has a `:`, which ends a name in an Authorization header; choose another",
            "auth.users[3]: `name` must be text, and not empty",
            "auth.users[4]: `name` must be text, and not empty",
            "auth.users[4]: `password_hash` must be the hash, `{ env = \"NAME\" }` or `{ file = \"PATH\" }`",
            "auth.tokens[0]: `hash` must be the hash, `{ env = \"NAME\" }` or `{ file = \"PATH\" }`",
            "auth.tokens[1]: `expires` is not a key of a token; use name, hash",
            "auth.tokens[1]: its `name` is that of another one; a name belongs to one",
            "auth.tokens[2]: `hash` is an argon2 hash with 9 KiB of memory, more than 8; raise auth.max_memory_kib, or \
             print a cheaper one with `landfall hash-password`",
            "auth.max_failure: is not a configuration key; did you mean `auth.max_failures`?",
        ];
        for line in expected {
            assert!(problems.iter().any(|problem| problem == line), "missing: {line}\nfound: {problems:#?}");
        }
        assert_eq!(problems.len(), expected.len(), "{problems:#?}");
        assert!(!problems.join(" ").contains("hunter2"), "{problems:#?}");
    }

    #[test]
    fn rejects_credentials_that_are_no_list_or_too_many() {
        let problems =
            load("[auth.users]\nname = \"ops\"\n[auth]\ntokens = [\"hunter2\"]\n", &[]).unwrap_err();
        assert_eq!(
            problems,
            ["auth.users: must be a list; write [[auth.users]] for each", "auth.tokens[0]: must be a table"]
        );
        let token = |n: usize| format!("[[auth.tokens]]\nname = \"{n}\"\nhash = \"{}\"\n", cheap("x"));
        let nine: String = (0..9).map(token).collect();
        assert_eq!(load(&nine, &[]).unwrap_err(), ["auth.tokens: `9` are too many; at most 8 are possible"]);
        assert!(load(&(0..8).map(token).collect::<String>(), &[]).is_ok());
    }
}

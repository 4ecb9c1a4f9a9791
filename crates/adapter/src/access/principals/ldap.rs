//! Principals from a directory server: users by an attribute, groups by name or as their members.
//!
//! A look-up reuses the idle connection of an earlier look-up, or opens a new one. If the look-up fails on a
//! reused connection, it is repeated once on a new connection. Certificates are read on a blocking thread and
//! cached. If no connection can be opened, the certificates and the password file are read again, so rotated
//! secrets work without a restart. Values are escaped before they are inserted into a filter, so a ref cannot
//! change the filter. Members are found by the group's `member` and not by the user's `memberOf`, because
//! servers that were filled from a file have no `memberOf`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ldap3::{
    Ldap as Connection, LdapConnAsync, LdapConnSettings, LdapError, Scope, SearchEntry, ldap_escape,
};
use rustls::ClientConfig;

use super::{Principals, Resolution};
use crate::Secret;
use crate::access::Qualified;
use crate::error::{Error, Result};
use crate::tls::{self, Trust};

/// The settings of a directory server: the address, the login, the searches and their limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LdapSettings {
    /// `ldap://HOST:PORT` or `ldaps://HOST:PORT`
    pub url: String,
    /// PEM file of the certificate authorities that are trusted; `None`: those that the system trusts.
    pub ca_file: Option<PathBuf>,
    /// Whether an `ldap://` connection is encrypted with StartTLS before anything else is sent.
    pub starttls: bool,
    /// The DN to log in with, and its password; `None`: anonymous.
    pub bind: Option<(String, Secret)>,
    /// The DN of the entry below which users are searched.
    pub user_base: String,
    /// The search filter for one user. `{name}` is the whole name, `{user}` and `{domain}` are the parts before
    /// and after its `@`; all are escaped.
    pub user_filter: String,
    /// The attribute of a user's entry that has the name of the principal.
    pub user_attribute: String,
    /// The DN of the entry below which groups are searched.
    pub group_base: String,
    /// The search filter for one group; `{name}` is the group's name, escaped.
    pub group_filter: String,
    /// Whether a group is one principal or its members.
    pub group: GroupMeaning,
    /// The maximum depth of nested groups. A group with deeper ones is unusable.
    pub max_depth: u32,
    /// The maximum number of entries that are read for a group: the group, nested groups and all members. A
    /// larger group is unusable.
    pub max_members: u32,
    /// The maximum wait for a connection, and for each response.
    pub timeout: Duration,
}

/// The principals of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupMeaning {
    /// One principal, whose name is in this attribute of the group.
    Attribute(String),
    /// The members, whose DNs are in this attribute of the group. A nested group is replaced by its members.
    Members(String),
}

/// A backend that looks refs up on a directory server; see the module documentation.
pub struct Ldap {
    settings: LdapSettings,
    /// The idle connection of the last successful look-up, for the next one.
    rested: Mutex<Option<Connection>>,
    /// The TLS configuration with the trusted certificates; `None` until they are read.
    trusted: Mutex<Option<Arc<ClientConfig>>>,
    /// The password that was read from its file again; `None`: the one in the settings is current.
    password: Mutex<Option<Secret>>,
}

impl Ldap {
    /// Creates the backend. It connects at the first look-up.
    pub fn new(settings: LdapSettings) -> Self {
        Self { settings, rested: Mutex::default(), trusted: Mutex::default(), password: Mutex::default() }
    }

    fn take(&self) -> Option<Connection> {
        self.rested.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Keeps a connection for the next look-up. At most one is kept, the last.
    fn rest(&self, ldap: Connection) {
        *self.rested.lock().unwrap_or_else(PoisonError::into_inner) = Some(ldap);
    }

    /// Opens a connection. If that fails, reads the password file again, and tries once more if the password
    /// has changed or the certificates from `ca_file` may have.
    async fn connect(&self) -> Result<Connection, LdapError> {
        let first = match self.attempt().await {
            Ok(ldap) => return Ok(ldap),
            Err(error) => error,
        };
        let trusted = self.trusted.lock().unwrap_or_else(PoisonError::into_inner).take();
        let rotated = self.read_password_again().await;
        // The cached certificates may be out of date.
        if rotated || (trusted.is_some() && self.settings.ca_file.is_some()) {
            return self.attempt().await;
        }
        Err(first)
    }

    async fn attempt(&self) -> Result<Connection, LdapError> {
        let LdapSettings { url, starttls, bind, timeout, .. } = &self.settings;
        let settings = LdapConnSettings::new()
            .set_conn_timeout(*timeout)
            .set_starttls(*starttls)
            .set_config(self.trusted().await?);
        let (connection, mut ldap) = LdapConnAsync::with_settings(settings, url).await?;
        tokio::spawn(async move {
            // The next request on a broken connection returns the error.
            let _ = connection.drive().await;
        });
        if let Some((dn, password)) = bind {
            let newer = self.password.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let password = newer.as_ref().unwrap_or(password);
            ldap.with_timeout(*timeout).simple_bind(dn, password.expose()).await?.success()?;
        }
        Ok(ldap)
    }

    /// Reads the password file again, and keeps a changed password. Returns whether it has changed.
    async fn read_password_again(&self) -> bool {
        let Some((_, start)) = &self.settings.bind else { return false };
        let known = self.password.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let known = known.unwrap_or_else(|| start.clone());
        match start.read_again().await {
            Some(Ok(read)) if read != known => {
                *self.password.lock().unwrap_or_else(PoisonError::into_inner) = Some(read);
                true
            }
            Some(Err(error)) => {
                log::warn!(
                    "the file of `bind_password` of `{}` cannot be read again: {error}",
                    self.settings.url
                );
                false
            }
            Some(Ok(_)) | None => false,
        }
    }

    /// The TLS configuration with the trusted certificates, which the first call reads. `Err` if they cannot be
    /// read.
    async fn trusted(&self) -> Result<Arc<ClientConfig>, LdapError> {
        if let Some(known) = &*self.trusted.lock().unwrap_or_else(PoisonError::into_inner) {
            return Ok(Arc::clone(known));
        }
        let LdapSettings { url, ca_file, starttls, .. } = &self.settings;
        let (ca_file, encrypts) = (ca_file.clone(), *starttls || url.starts_with("ldaps:"));
        let reading = crate::blocking::run_regardless(move || {
            let trust = match &ca_file {
                Some(path) => Trust::File(path),
                None if encrypts => Trust::System,
                None => Trust::Nobody,
            };
            Ok(tls::client(trust, None))
        });
        let read = reading.await.map_err(|error| LdapError::from(std::io::Error::other(error)))?;
        let made = Arc::new(read.map_err(|what| LdapError::from(std::io::Error::other(what)))?);
        *self.trusted.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&made));
        Ok(made)
    }

    async fn look_up(&self, ldap: &mut Connection, reference: &Qualified) -> Result<Resolution, LdapError> {
        match reference {
            Qualified::User(_) => self.user(ldap, reference).await,
            Qualified::Group(_) => self.group(ldap, reference).await,
        }
    }

    async fn user(&self, ldap: &mut Connection, reference: &Qualified) -> Result<Resolution, LdapError> {
        let LdapSettings { user_base, user_filter, user_attribute, .. } = &self.settings;
        let filter = filled(user_filter, reference);
        let entries = self.search(ldap, user_base, Scope::Subtree, &filter, &[user_attribute]).await?;
        Ok(match entries.as_slice() {
            [] => Resolution::Unknown(format!("the directory has no `{reference}`")),
            [one] => named(one, user_attribute, reference),
            _ => Resolution::Unusable(format!("the directory has several `{reference}`")),
        })
    }

    async fn group(&self, ldap: &mut Connection, reference: &Qualified) -> Result<Resolution, LdapError> {
        let LdapSettings { group_base, group_filter, group, .. } = &self.settings;
        let (GroupMeaning::Attribute(attribute) | GroupMeaning::Members(attribute)) = group;
        let filter = filled(group_filter, reference);
        let entries = self.search(ldap, group_base, Scope::Subtree, &filter, &[attribute]).await?;
        let entry = match entries.as_slice() {
            [] => return Ok(Resolution::Unknown(format!("the directory has no `{reference}`"))),
            [one] => one,
            _ => return Ok(Resolution::Unusable(format!("the directory has several `{reference}`"))),
        };
        match group {
            GroupMeaning::Attribute(attribute) => Ok(named(entry, attribute, reference)),
            GroupMeaning::Members(attribute) => self.members(ldap, entry, attribute, reference).await,
        }
    }

    /// Collects the principals of a group's members, breadth first. An entry that has members is a nested
    /// group. No entry is read twice. A group that exceeds `max_depth` or `max_members` is unusable.
    async fn members(
        &self,
        ldap: &mut Connection,
        group: &SearchEntry,
        attribute: &str,
        reference: &Qualified,
    ) -> Result<Resolution, LdapError> {
        let LdapSettings { user_attribute, max_depth, max_members, .. } = &self.settings;
        let mut names = BTreeSet::new();
        let mut seen = BTreeSet::from([group.dn.to_lowercase()]);
        let mut level = values(group, attribute);
        let mut depth = 0;
        while !level.is_empty() {
            if depth > *max_depth {
                let why = format!("`{reference}` has groups more than {max_depth} deep");
                return Ok(Resolution::Unusable(why));
            }
            let mut next = Vec::new();
            for dn in level {
                if !seen.insert(dn.to_lowercase()) {
                    continue;
                }
                if seen.len() > *max_members as usize {
                    let why = format!("`{reference}` has more than {max_members} members");
                    return Ok(Resolution::Unusable(why));
                }
                let wanted = [attribute, user_attribute.as_str()];
                let entries = match self.search(ldap, &dn, Scope::Base, "(objectClass=*)", &wanted).await {
                    // The directory has no entry for this member any more.
                    Err(LdapError::LdapResult { result }) if result.rc == NO_SUCH_OBJECT => continue,
                    found => found?,
                };
                for entry in &entries {
                    let members = values(entry, attribute);
                    if !members.is_empty() {
                        next.extend(members);
                    } else if let Some(name) = principal(entry, user_attribute) {
                        names.insert(name);
                    }
                }
            }
            level = next;
            depth += 1;
        }
        Ok(Resolution::Members(names))
    }

    async fn search<S: AsRef<str> + Send + Sync>(
        &self,
        ldap: &mut Connection,
        base: &str,
        scope: Scope,
        filter: &str,
        attributes: &[S],
    ) -> Result<Vec<SearchEntry>, LdapError> {
        let attributes: Vec<&str> = attributes.iter().map(AsRef::as_ref).collect();
        let found = ldap.with_timeout(self.settings.timeout).search(base, scope, filter, attributes).await?;
        let (entries, _) = found.success()?;
        Ok(entries.into_iter().map(SearchEntry::construct).collect())
    }
}

/// The result code `noSuchObject` of RFC 4511.
const NO_SUCH_OBJECT: u32 = 32;

#[async_trait]
impl Principals for Ldap {
    async fn resolve(&self, reference: &Qualified) -> Result<Resolution> {
        // Only the administrator's log shows the cause, because it may contain hosts and DNs.
        let away =
            |error: LdapError| Error::retryable("the directory of users does not answer").because(error);
        if let Some(mut ldap) = self.take()
            && let Ok(found) = self.look_up(&mut ldap, reference).await
        {
            self.rest(ldap);
            return Ok(found);
        }
        let mut ldap = self.connect().await.map_err(away)?;
        let found = self.look_up(&mut ldap, reference).await.map_err(away)?;
        self.rest(ldap);
        Ok(found)
    }
}

fn filled(filter: &str, reference: &Qualified) -> String {
    let name = reference.principal_name();
    let (user, domain) = match reference {
        Qualified::User(_) => name.rsplit_once('@').unwrap_or((name.as_str(), "")),
        Qualified::Group(_) => (name.as_str(), ""),
    };
    let escaped = [("name", name.as_str()), ("user", user), ("domain", domain)]
        .map(|(field, value)| (field, ldap_escape(value).into_owned()));
    super::template::fill(filter, &escaped)
}

fn values(entry: &SearchEntry, attribute: &str) -> Vec<String> {
    let found = entry.attrs.iter().find(|(name, _)| name.eq_ignore_ascii_case(attribute));
    found.map(|(_, values)| values.clone()).unwrap_or_default()
}

/// The principal in an attribute of an entry; unusable without a value that is not blank.
fn named(entry: &SearchEntry, attribute: &str, reference: &Qualified) -> Resolution {
    principal(entry, attribute).map_or_else(
        || Resolution::Unusable(format!("`{reference}` has no `{attribute}` in the directory")),
        Resolution::Principal,
    )
}

fn principal(entry: &SearchEntry, attribute: &str) -> Option<String> {
    values(entry, attribute).into_iter().find(|value| !value.trim().is_empty())
}

#[cfg(test)]
#[path = "../../../../../tests/support/ldap.rs"]
mod server;

#[cfg(test)]
mod tests {
    use super::server::{LdapServer, PASSWORD, READER};
    use super::*;
    use crate::error::Kind;

    /// `leads` is in `dev`, which is in `all`, which is in `leads`.
    const ENTRIES: &str = "dn: ou=people,dc=example,dc=org
objectClass: organizationalUnit
ou: people

dn: ou=groups,dc=example,dc=org
objectClass: organizationalUnit
ou: groups

dn: uid=alice,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
uid: alice
cn: Alice
sn: A
mail: alice@example.com

dn: uid=bob,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
uid: bob
cn: Bob
sn: B
mail: bob@example.com
mail: twin@example.com

dn: uid=carol,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
uid: carol
cn: Carol
sn: C
mail: twin@example.com

dn: cn=nobody,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
cn: nobody
sn: N
mail: nobody@example.com

dn: cn=dev,ou=groups,dc=example,dc=org
objectClass: groupOfNames
cn: dev
member: uid=alice,ou=people,dc=example,dc=org
member: CN=leads,ou=groups,dc=example,dc=org
member: uid=gone,ou=people,dc=example,dc=org

dn: cn=leads,ou=groups,dc=example,dc=org
objectClass: groupOfNames
cn: leads
member: uid=carol,ou=people,dc=example,dc=org
member: cn=all,ou=groups,dc=example,dc=org

dn: cn=all,ou=groups,dc=example,dc=org
objectClass: groupOfNames
cn: all
member: uid=bob,ou=people,dc=example,dc=org
member: cn=dev,ou=groups,dc=example,dc=org
";

    fn settings(url: String) -> LdapSettings {
        LdapSettings {
            url,
            ca_file: None,
            starttls: false,
            bind: Some((READER.to_owned(), Secret::new(PASSWORD))),
            user_base: "ou=people,dc=example,dc=org".to_owned(),
            user_filter: "(mail={name})".to_owned(),
            user_attribute: "uid".to_owned(),
            group_base: "ou=groups,dc=example,dc=org".to_owned(),
            group_filter: "(cn={name})".to_owned(),
            group: GroupMeaning::Members("member".to_owned()),
            max_depth: 5,
            max_members: 100,
            timeout: Duration::from_secs(10),
        }
    }

    async fn resolved(ldap: &Ldap, reference: &str) -> Result<Vec<String>, String> {
        match ldap.resolve(&Qualified::parse(reference).unwrap()).await {
            Ok(Resolution::Principal(name)) => Ok(vec![name]),
            Ok(Resolution::Members(names)) => Ok(names.into_iter().collect()),
            Ok(Resolution::Unknown(reason) | Resolution::Unusable(reason)) => Err(reason),
            Err(error) => Err(format!("{:?}: {error}", error.kind())),
        }
    }

    fn names(list: &[&str]) -> Result<Vec<String>, String> {
        Ok(list.iter().map(|&name| name.to_owned()).collect())
    }

    fn unknown(reason: &str) -> Result<Vec<String>, String> {
        Err(reason.to_owned())
    }

    #[tokio::test]
    async fn users_and_groups_are_found() {
        let server = LdapServer::start(ENTRIES);
        let ldap = Ldap::new(settings(server.url()));
        for (reference, expected) in [
            ("user:alice_example.com", names(&["alice"])),
            ("user:ALICE_example.com", names(&["alice"])),
            ("user:eve_example.com", unknown("the directory has no `user:eve_example.com`")),
            ("user:twin_example.com", unknown("the directory has several `user:twin_example.com`")),
            ("user:nobody_example.com", unknown("`user:nobody_example.com` has no `uid` in the directory")),
            ("group:dev", names(&["alice", "bob", "carol"])),
            ("leads", names(&["alice", "bob", "carol"])),
            ("group:none", unknown("the directory has no `group:none`")),
            // Without escaping, these refs would match every entry.
            ("user:*", unknown("the directory has no `user:*`")),
            ("group:*", unknown("the directory has no `group:*`")),
            ("user:x)(|(uid=*", unknown("the directory has no `user:x)(|(uid=*`")),
            ("group:dev\\2a", unknown("the directory has no `group:dev\\2a`")),
        ] {
            assert_eq!(resolved(&ldap, reference).await, expected, "{reference}");
        }
        let by_name = GroupMeaning::Attribute("cn".to_owned());
        let ldap = Ldap::new(LdapSettings { group: by_name, ..settings(server.url()) });
        assert_eq!(resolved(&ldap, "group:DEV").await, names(&["dev"]), "as the directory spells it");
        let ldap =
            Ldap::new(LdapSettings { user_filter: "(uid={user})".to_owned(), ..settings(server.url()) });
        assert_eq!(resolved(&ldap, "user:bob_anywhere.org").await, names(&["bob"]));
    }

    #[tokio::test]
    async fn groups_are_limited() {
        let server = LdapServer::start(ENTRIES);
        let shallow = Ldap::new(LdapSettings { max_depth: 1, ..settings(server.url()) });
        assert_eq!(resolved(&shallow, "dev").await, unknown("`group:dev` has groups more than 1 deep"));
        let small = Ldap::new(LdapSettings { max_members: 3, ..settings(server.url()) });
        assert_eq!(resolved(&small, "dev").await, unknown("`group:dev` has more than 3 members"));
    }

    #[tokio::test]
    async fn clients_and_server_authenticate_each_other() {
        let server = LdapServer::start(ENTRIES);
        let away = unknown("Retryable: the directory of users does not answer");
        let wrong = Some((READER.to_owned(), Secret::new("wrong")));
        for (bind, url, ca_file, starttls) in [
            (wrong, server.url(), None, false),
            (settings(String::new()).bind, server.encrypted_url(), None, false),
            (settings(String::new()).bind, server.url(), None, true),
        ] {
            let ldap = Ldap::new(LdapSettings { bind, ca_file, starttls, ..settings(url) });
            assert_eq!(resolved(&ldap, "user:alice_example.com").await, away);
        }
        let anonymous = Ldap::new(LdapSettings { bind: None, ..settings(server.url()) });
        assert_ne!(resolved(&anonymous, "user:alice_example.com").await, names(&["alice"]));
        let ca_file = Some(server.authority());
        for (url, starttls) in [(server.encrypted_url(), false), (server.url(), true)] {
            let ldap = Ldap::new(LdapSettings { ca_file: ca_file.clone(), starttls, ..settings(url) });
            assert_eq!(resolved(&ldap, "user:alice_example.com").await, names(&["alice"]));
        }
    }

    /// The idle connection is broken, and a new one cannot be opened.
    #[tokio::test]
    async fn lost_server_is_a_transient_failure() {
        let mut server = LdapServer::start(ENTRIES);
        let ldap = Ldap::new(settings(server.url()));
        assert_eq!(resolved(&ldap, "user:alice_example.com").await, names(&["alice"]));
        server.stop();
        let error = ldap.resolve(&Qualified::parse("user:alice_example.com").unwrap()).await.unwrap_err();
        assert_eq!(*error.kind(), Kind::Retryable);
        assert!(!error.to_string().contains("127.0.0.1"), "{error}");
    }

    #[tokio::test]
    async fn certificates_are_read_once_and_again_after_a_failure() {
        let server = LdapServer::start(ENTRIES);
        let folder = tempfile::tempdir().unwrap();
        let ca_file = folder.path().join("ca.pem");
        std::fs::copy(server.authority(), &ca_file).unwrap();
        let ldap =
            Ldap::new(LdapSettings { ca_file: Some(ca_file.clone()), ..settings(server.encrypted_url()) });
        let alice = async || {
            // Without the idle connection, each look-up opens a new one.
            drop(ldap.take());
            resolved(&ldap, "user:alice_example.com").await
        };
        assert_eq!(alice().await, names(&["alice"]));
        std::fs::write(&ca_file, "no certificate").unwrap();
        assert_eq!(alice().await, names(&["alice"]), "what was read is kept");
        let away = unknown("Retryable: the directory of users does not answer");
        *ldap.trusted.lock().unwrap() = None;
        assert_eq!(alice().await, away);
        std::fs::copy(server.authority(), &ca_file).unwrap();
        assert_eq!(alice().await, names(&["alice"]), "the file is in order again");
    }

    #[tokio::test]
    async fn bind_password_rotated_in_its_file_works() {
        let server = LdapServer::start(ENTRIES);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, "of yesterday").unwrap();
        let bind = Some((READER.to_owned(), Secret::from_file(&file).unwrap()));
        let ldap = Ldap::new(LdapSettings { bind, ..settings(server.url()) });
        let away = unknown("Retryable: the directory of users does not answer");
        assert_eq!(resolved(&ldap, "user:alice_example.com").await, away);
        std::fs::write(&file, format!("{PASSWORD}\n")).unwrap();
        assert_eq!(resolved(&ldap, "user:alice_example.com").await, names(&["alice"]));
    }

    /// A file whose read blocks: a pipe without a writer.
    #[tokio::test]
    async fn reading_certificates_blocks_no_async_thread() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("ca.pem");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let url = "ldaps://127.0.0.1:1".to_owned();
        let ldap = Ldap::new(LdapSettings { ca_file: Some(pipe.clone()), ..settings(url) });
        let alice = Qualified::parse("user:alice_example.com").unwrap();
        // The blocked reader ends at the end of the test.
        let writing = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs(5));
            drop(std::fs::OpenOptions::new().write(true).open(&pipe));
        });
        tokio::select! {
            _ = ldap.resolve(&alice) => panic!("nothing was to be read"),
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
        }
        writing.join().unwrap();
    }

    #[test]
    fn password_is_not_displayed() {
        let shown = format!("{:?}", settings("ldap://x".to_owned()));
        assert!(!shown.contains(PASSWORD), "{shown}");
    }
}

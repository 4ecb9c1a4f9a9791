//! `[identity.NAME]`: where refs are looked up, for targets that name it in `identity = [...]`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use landfall_adapter::access::{
    GroupMeaning, Ldap, LdapSettings, Principals, Table, TableSettings, Template, TemplateSettings,
};
use landfall_adapter::tls::{self, Trust};

use super::reader::Reader;

/// The settings of one source that resolves refs to principals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// By the form of names.
    Template(TemplateSettings),
    /// From a file.
    Table(TableSettings),
    /// From a directory server.
    Ldap(Box<LdapSettings>),
}

impl Identity {
    /// Creates the source that resolves refs. Opens no connection.
    pub(super) fn principals(&self) -> Arc<dyn Principals> {
        match self {
            Self::Template(settings) => Arc::new(Template::new(settings.clone())),
            Self::Table(settings) => Arc::new(Table::new(settings.clone())),
            Self::Ldap(settings) => Arc::new(Ldap::new(LdapSettings::clone(settings))),
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Template,
    Table,
    Ldap,
}

impl Reader<'_> {
    /// Reads all `[identity.NAME]`. The value of an invalid one is `None`.
    pub(super) fn identities(&mut self) -> BTreeMap<String, Option<Identity>> {
        let mut identities = BTreeMap::new();
        for name in self.children("identity") {
            let key = |key: &str| format!("identity.{name}.{key}");
            let kinds = [("template", Kind::Template), ("table", Kind::Table), ("ldap", Kind::Ldap)];
            let identity = match self.choice(&key("kind"), &kinds) {
                Some(Kind::Template) => self.template(&key).map(Identity::Template),
                Some(Kind::Table) => self.required(&key("file")).map(|file| {
                    let settings = TableSettings { file };
                    self.look(&key("file"), || Table::check(&settings).err());
                    Identity::Table(settings)
                }),
                Some(Kind::Ldap) => self.ldap(&key).map(|settings| Identity::Ldap(Box::new(settings))),
                None => {
                    self.skip_key(&format!("identity.{name}"));
                    None
                }
            };
            identities.insert(name, identity);
        }
        identities
    }

    fn text(&mut self, key: &str, default: &str) -> Option<String> {
        match self.figment.contains(key) {
            true => self.required(key),
            false => {
                self.read.insert(key.to_owned());
                Some(default.to_owned())
            }
        }
    }

    /// A text with the placeholder `{name}`, and placeholders for the parts of the name.
    fn pattern(&mut self, key: &str, default: &str) -> Option<String> {
        let text = self.text(key, default)?;
        if let Err(problem) = Template::check(&text) {
            self.problem(key, problem);
        }
        Some(text)
    }

    fn template(&mut self, key: &dyn Fn(&str) -> String) -> Option<TemplateSettings> {
        let TemplateSettings { user, group } = TemplateSettings::default();
        let (user, group) = (self.pattern(&key("user"), &user), self.pattern(&key("group"), &group));
        Some(TemplateSettings { user: user?, group: group? })
    }

    fn ldap(&mut self, key: &dyn Fn(&str) -> String) -> Option<LdapSettings> {
        let url: Option<String> = self.required(&key("url"));
        let ca_file: Option<PathBuf> = self.optional(&key("ca_file"));
        if let Some(path) = &ca_file {
            self.look(&key("ca_file"), || tls::client(Trust::File(path), None).err());
        }
        let starttls = self.optional(&key("starttls")).unwrap_or_default();
        let bind_dn: Option<String> = self.optional(&key("bind_dn"));
        let password = bind_dn.as_ref().map(|_| self.secret(&key("bind_password")));
        if let Some(url) = &url {
            self.check_ldap_url(&key("url"), url, starttls, bind_dn.is_some());
        }
        let user_base: Option<String> = self.required(&key("user_base"));
        let user_filter = self.filter(&key("user_filter"), "(mail={name})");
        let user_attribute = self.text(&key("user_attribute"), "uid");
        let group_base = match &user_base {
            Some(base) => self.text(&key("group_base"), base),
            None => self.optional(&key("group_base")),
        };
        let group_filter = self.filter(&key("group_filter"), "(cn={name})");
        let member_attribute = self.text(&key("member_attribute"), "member");
        let group_attribute = self.text(&key("group_attribute"), "cn");
        let meant = self.text(&key("group"), "members");
        let group = match meant.as_deref() {
            Some("members") => member_attribute.map(GroupMeaning::Members),
            Some("attribute") => group_attribute.map(GroupMeaning::Attribute),
            Some(other) => {
                self.problem(
                    &key("group"),
                    format_args!("`{other}` is not known; use one of: members, attribute"),
                );
                None
            }
            None => None,
        };
        let max_depth = self.optional(&key("max_depth")).unwrap_or(5);
        let max_members = self.optional(&key("max_members")).unwrap_or(1_000);
        let timeout = self.optional_duration(&key("timeout"), Duration::from_millis(1));
        let bind = match (bind_dn, password) {
            (Some(dn), Some(password)) => Some((dn, password?)),
            _ => None,
        };
        Some(LdapSettings {
            url: url?,
            ca_file,
            starttls,
            bind,
            user_base: user_base?,
            user_filter: user_filter?,
            user_attribute: user_attribute?,
            group_base: group_base?,
            group_filter: group_filter?,
            group: group?,
            max_depth,
            max_members,
            timeout: timeout.unwrap_or(Duration::from_secs(10)),
        })
    }

    fn filter(&mut self, key: &str, default: &str) -> Option<String> {
        let filter = self.pattern(key, default)?;
        if !(filter.starts_with('(') && filter.ends_with(')')) {
            self.problem(
                key,
                format_args!("`{filter}` is not a filter; write it in parentheses: `{default}`"),
            );
        }
        Some(filter)
    }

    fn check_ldap_url(&mut self, key: &str, text: &str, starttls: bool, binds: bool) {
        let Some(url) = Url::parse(text).ok().filter(|url| ["ldap", "ldaps"].contains(&url.scheme())) else {
            self.problem(key, "is no address of a directory; write `ldaps://HOST` or `ldap://HOST`");
            return;
        };
        let is_near = url.host_str().is_some_and(|host| ["localhost", "127.0.0.1", "[::1]"].contains(&host));
        if binds && url.scheme() == "ldap" && !starttls && !is_near {
            self.problem(
                key,
                format_args!(
                    "`{text}` would carry the password in the clear; write `ldaps://`, or set starttls"
                ),
            );
        }
    }
}

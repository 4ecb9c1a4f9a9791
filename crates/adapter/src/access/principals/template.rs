//! Principals that are derived from refs by a template. Nothing is looked up, so a principal may not exist.

use async_trait::async_trait;

use super::{Principals, Resolution};
use crate::access::Qualified;
use crate::error::Result;

/// The templates of principals. `{name}` is the whole name (`john.smith@example.com`, or a group's name),
/// `{user}` is the part before its last `@`, and `{domain}` is the part after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateSettings {
    /// The template for users.
    pub user: String,
    /// The template for groups. `{user}` is the whole name, and a template with `{domain}` matches no group.
    pub group: String,
}

impl Default for TemplateSettings {
    fn default() -> Self {
        Self { user: "{name}".to_owned(), group: "{name}".to_owned() }
    }
}

/// A backend that derives principals; see the module documentation.
pub struct Template {
    settings: TemplateSettings,
}

impl Template {
    /// Creates the backend. [`Self::check`] must accept both templates.
    pub fn new(settings: TemplateSettings) -> Self {
        Self { settings }
    }

    /// Checks a template: its fields must be valid, and there must be at least one. `Err` is the problem.
    pub fn check(template: &str) -> Result<(), String> {
        let mut rest = template;
        let mut fields = 0;
        while let Some((_, after)) = rest.split_once('{') {
            let (field, after) =
                after.split_once('}').ok_or_else(|| format!("`{template}` has a `{{` without a `}}`"))?;
            if !["name", "user", "domain"].contains(&field) {
                return Err(format!("`{{{field}}}` is not known; use {{name}}, {{user}}, {{domain}}"));
            }
            fields += 1;
            rest = after;
        }
        match fields {
            0 => {
                Err(format!("`{template}` names the same principal for everybody; use {{name}} or {{user}}"))
            }
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Principals for Template {
    async fn resolve(&self, reference: &Qualified) -> Result<Resolution> {
        let name = reference.principal_name();
        let (template, user, domain) = match (reference, name.rsplit_once('@')) {
            (Qualified::User(_), Some((user, domain))) => (&self.settings.user, user, Some(domain)),
            (Qualified::User(_), None) => (&self.settings.user, name.as_str(), None),
            (Qualified::Group(_), _) => (&self.settings.group, name.as_str(), None),
        };
        Ok(match (domain, template.contains("{domain}")) {
            (None, true) => {
                Resolution::Unknown(format!("`{reference}` has no domain, and the template wants one"))
            }
            (domain, _) => Resolution::Principal(fill(
                template,
                &[("name", name.as_str()), ("user", user), ("domain", domain.unwrap_or_default())],
            )),
        })
    }

    fn looks_up(&self) -> bool {
        false
    }
}

/// Replaces each `{field}` of a template with its value, or with nothing if it has none. Inserted values are
/// not expanded again.
pub(super) fn fill<V: AsRef<str>>(template: &str, fields: &[(&str, V)]) -> String {
    let mut filled = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        let (field, after) = after.split_once('}').unwrap_or((after, ""));
        let value = fields.iter().find(|(name, _)| *name == field).map(|(_, value)| value.as_ref());
        filled.push_str(value.unwrap_or_default());
        rest = after;
    }
    filled.push_str(rest);
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn resolved(user: &str, group: &str, reference: &str) -> Result<String, String> {
        let template = Template::new(TemplateSettings { user: user.into(), group: group.into() });
        match template.resolve(&Qualified::parse(reference).unwrap()).await.unwrap() {
            Resolution::Principal(name) => Ok(name),
            other => Err(match other {
                Resolution::Unknown(reason) => reason,
                other => format!("{other:?}"),
            }),
        }
    }

    #[tokio::test]
    async fn names_are_made_of_their_parts() {
        let smith = "user:john.smith_example.com";
        for (user, group, reference, expected) in [
            ("{name}", "{name}", smith, "john.smith@example.com"),
            ("{user}", "{name}", smith, "john.smith"),
            ("{user}@corp.{domain}", "{name}", smith, "john.smith@corp.example.com"),
            ("{domain}\\{user}", "{name}", smith, "example.com\\john.smith"),
            ("u_{user}", "{name}", "user:alice", "u_alice"),
            ("{user}", "grp_{name}", "group:dev", "grp_dev"),
            ("{user}", "{user}", "group:dev", "dev"),
            ("{user}", "{name}", "user:{domain}_x.org", "{domain}"),
        ] {
            assert_eq!(resolved(user, group, reference).await, Ok(expected.to_owned()), "{user} {reference}");
        }
        assert_eq!(
            resolved("{user}@{domain}", "{name}", "user:alice").await,
            Err("`user:alice` has no domain, and the template wants one".to_owned())
        );
    }

    #[test]
    fn invalid_template_is_reported() {
        for (template, expected) in [
            ("{name}", Ok(())),
            ("x{user}y{domain}", Ok(())),
            ("{mail}", Err("`{mail}` is not known; use {name}, {user}, {domain}")),
            ("a{name", Err("`a{name` has a `{` without a `}`")),
            ("all", Err("`all` names the same principal for everybody; use {name} or {user}")),
        ] {
            assert_eq!(Template::check(template), expected.map_err(str::to_owned), "{template}");
        }
    }
}

//! From a ref to the name that a target knows it by.
//!
//! A technology that enforces access asks a [`Principals`] for every ref on its own: one that cannot be resolved says
//! so and stands in nobody's way. Whether what comes out exists in the target is the technology's to find out.

use std::fmt;

use async_trait::async_trait;

use super::Ref;

/// Where a ref's principal is looked up.
#[async_trait]
pub trait Principals: Send + Sync {
    /// The principal of one ref.
    async fn resolve(&self, reference: &Ref) -> Result<String, Unresolved>;
}

/// Why a ref has no principal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unresolved(String);

impl Unresolved {
    /// The reason, for whoever asked.
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A template for users, with `{user}` in it, and one for groups, with `{group}`: `john.smith@example.com` and `dev`
/// stand in their places. The whole name goes in, so two users never become one principal, and neither do two groups; a
/// user and a group of one name do unless the templates differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    user: String,
    group: String,
}

impl Default for Template {
    fn default() -> Self {
        Self { user: "{user}".to_owned(), group: "{group}".to_owned() }
    }
}

impl Template {
    /// Both templates; the problem of the one that has not got its placeholder exactly once, with whether it is that
    /// of users.
    pub fn new(user: impl Into<String>, group: impl Into<String>) -> Result<Self, (bool, String)> {
        let (user, group) = (user.into(), group.into());
        for (is_user, text, placeholder) in [(true, &user, "{user}"), (false, &group, "{group}")] {
            let rest = text.replacen(placeholder, "", 1);
            if rest.len() == text.len() || rest.contains(['{', '}']) {
                return Err((
                    is_user,
                    format!("`{text}` has to hold `{placeholder}` once, and no other brace"),
                ));
            }
        }
        Ok(Self { user, group })
    }
}

#[async_trait]
impl Principals for Template {
    async fn resolve(&self, reference: &Ref) -> Result<String, Unresolved> {
        let name = reference.principal_name();
        Ok(match reference {
            Ref::User(_) => self.user.replace("{user}", &name),
            Ref::Group(_) => self.group.replace("{group}", &name),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_template_takes_the_whole_name() {
        let template = Template::new("{user}", "grp_{group}").unwrap();
        for (text, principal) in [
            ("user:john.smith_example.com", "john.smith@example.com"),
            ("group:dev", "grp_dev"),
            ("{user}", "grp_{user}"),
        ] {
            assert_eq!(template.resolve(&Ref::parse(text).unwrap()).await.unwrap(), principal, "{text}");
        }
        for (user, group) in
            [("x", "{group}"), ("{user}{user}", "{group}"), ("{user}", "{user}"), ("{group}", "{group}")]
        {
            assert!(Template::new(user, group).is_err(), "{user} {group}");
        }
    }
}

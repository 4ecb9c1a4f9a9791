//! `[targets.CODE]` and `[[routes]]`.

use std::collections::BTreeMap;
use std::sync::Arc;

use figment::value::{Dict, Value};
use landfall_adapter::access::Principals;
use landfall_adapter::any::AnyTechnology;
use landfall_adapter::descriptor::ComponentKind;
use landfall_adapter::{Mistakes, Services};
use landfall_operation::topology::{Route, same_code};

use super::reader::Reader;
use super::{Mode, Target};
use crate::registry::{Open, Registry};

/// Keys of a target that do not belong to its driver.
const OWN_KEYS: [&str; 4] = ["driver", "group", "environments", "concurrency"];

/// The maximum length of a code or a group in the topology.
const MAX_CODE: usize = 255;

/// Identity sources by name; `None` if the configuration of one is wrong.
pub(super) type Identities = BTreeMap<String, Option<Arc<dyn Principals>>>;

impl Reader<'_> {
    pub(super) fn targets(
        &mut self,
        registry: &Registry,
        environments: &BTreeMap<String, i64>,
        identities: &Identities,
    ) -> Vec<Target> {
        for name in registry.clashes() {
            self.problem(
                "targets",
                format_args!("this program has two drivers `{name}`; rename one of them"),
            );
        }
        let codes = self.children("targets");
        for (index, code) in codes.iter().enumerate() {
            if let Some(other) = codes.iter().take(index).find(|other| same_code(other, code)) {
                let what = format!("is equal to `{other}`: codes are case-insensitive");
                self.problem(&format!("targets.{code}"), what);
            }
        }
        codes.into_iter().filter_map(|code| self.target(code, registry, environments, identities)).collect()
    }

    fn target(
        &mut self,
        code: String,
        registry: &Registry,
        environments: &BTreeMap<String, i64>,
        identities: &Identities,
    ) -> Option<Target> {
        let key = |name: &str| format!("targets.{code}.{name}");
        let name: Option<String> = self.required(&key("driver"));
        self.check_code(&format!("targets.{code}"), &code);
        let group: Option<String> = self.optional(&key("group"));
        if let Some(group) = &group {
            self.check_code(&key("group"), group);
        }
        let served: Vec<String> = self.optional(&key("environments")).unwrap_or_default();
        for environment in &served {
            if !environments.keys().any(|known| known.eq_ignore_ascii_case(environment)) {
                let known = environments.keys().cloned().collect::<Vec<_>>().join(", ");
                self.problem(
                    &key("environments"),
                    format_args!("`{environment}` is not named in [environments], which has: {known}"),
                );
            }
        }
        let concurrency = match self.figment.contains(&key("concurrency")) {
            true => self.at_least_one(&key("concurrency")),
            false => None,
        };
        let Some(name) = name else {
            self.skip_key(&format!("targets.{code}"));
            return None;
        };
        let Some(driver) = registry.get(&name) else {
            let names = registry.names().collect::<Vec<_>>().join(", ");
            self.problem(&key("driver"), format_args!("`{name}` is not a driver; use one of: {names}"));
            self.skip_key(&format!("targets.{code}"));
            return None;
        };
        let technology = self.technology(&code, driver, identities)?;
        Some(Target { group: group.unwrap_or(name), code, environments: served, concurrency, technology })
    }

    /// Creates the technology from the keys of its driver. `None` after a mistake.
    fn technology(
        &mut self,
        code: &str,
        driver: &dyn Open,
        identities: &Identities,
    ) -> Option<Arc<dyn AnyTechnology>> {
        let at = format!("targets.{code}");
        let Ok(Value::Dict(_, mut table)) = self.figment.find_value(&at) else { return None };
        for own in OWN_KEYS {
            table.remove(own);
        }
        for value in table.values_mut() {
            fill_in(value, &self.data_dir);
        }
        let before = self.problems.len();
        let keys = driver.keys();
        let known = keys.known(&table);
        // Unknown keys are removed here. They are reported later, like every key that nothing reads.
        keep_known(&mut table, "", &|key| known.contains(key));
        self.read.extend(known.into_iter().map(|key| format!("{at}.{key}")));
        for key in keys.missing(&table) {
            self.problem(&format!("{at}.{key}"), "is missing");
        }
        let services = Services::new(code, self.mode == Mode::Serve, self.environment, identities);
        let mut mistakes = Mistakes::new();
        let technology = driver.open_table(table, &services, &mut mistakes);
        let is_right = mistakes.is_empty();
        for (key, message) in mistakes {
            let key = if key.is_empty() { at.clone() } else { format!("{at}.{key}") };
            self.problem(&key, message);
        }
        if technology.is_none() && self.problems.len() == before {
            self.problem(&at, "cannot be read by its driver, which does not say why");
        }
        technology.filter(|_| is_right)
    }

    /// Reports a code or a group that the topology API would refuse.
    fn check_code(&mut self, key: &str, code: &str) {
        if code.trim().is_empty() || code.chars().any(char::is_control) || code.chars().count() > MAX_CODE {
            self.problem(
                key,
                format_args!(
                    "a name in the topology has 1 to {MAX_CODE} characters, and no control characters; choose another"
                ),
            );
        }
    }

    pub(super) fn routes(&mut self) -> Vec<Route> {
        let rows = match self.figment.find_value("routes") {
            Ok(Value::Array(_, rows)) => rows,
            Ok(_) => {
                self.read.insert("routes".to_owned());
                self.problem("routes", "must be a list; write [[routes]] for each");
                return Vec::new();
            }
            Err(_) => Vec::new(),
        };
        let mut routes = Vec::new();
        for (index, row) in rows.iter().enumerate() {
            let at = format!("routes[{index}]");
            let Value::Dict(_, row) = row else {
                self.problem(&at, "must be a table");
                continue;
            };
            let mut route = Route::default();
            for (name, value) in row {
                let Some(text) = value.as_str().map(str::to_owned) else {
                    self.problem(&at, format_args!("`{name}` must be text"));
                    continue;
                };
                match name.as_str() {
                    "technology" => route.technology = Some(text),
                    "platform" => route.platform = Some(text),
                    "infrastructureTemplateId" | "infrastructure_template_id" => {
                        route.infrastructure_template_id = Some(text)
                    }
                    "useCaseTemplateId" | "use_case_template_id" => route.use_case_template_id = Some(text),
                    "group" => route.group = text,
                    "kind" => match ComponentKind::of(&text) {
                        ComponentKind::Unspecified => {
                            self.problem(&at, "`kind` is empty; name one, or leave it out for any");
                        }
                        kind => route.kind = Some(kind),
                    },
                    _ => self.problem(
                        &at,
                        format_args!(
                            "`{name}` is not a key of a route; use technology, platform, kind, \
                             infrastructureTemplateId, useCaseTemplateId, group"
                        ),
                    ),
                }
            }
            // The topology decides at run time which groups exist.
            let is_text = row.get("group").is_none_or(|group| group.as_str().is_some());
            match (route.group.is_empty(), is_text) {
                (false, _) => routes.push(route),
                (true, true) => self.problem(&at, "has no `group`; name the group of instances it leads to"),
                // The mistake was reported above.
                (true, false) => {}
            }
        }
        routes
    }
}

/// Replaces `{data_dir}` in texts.
fn fill_in(value: &mut Value, data_dir: &str) {
    match value {
        Value::String(_, text) if text.contains("{data_dir}") => *text = text.replace("{data_dir}", data_dir),
        Value::Dict(_, table) => table.values_mut().for_each(|value| fill_in(value, data_dir)),
        Value::Array(_, values) => values.iter_mut().for_each(|value| fill_in(value, data_dir)),
        _ => {}
    }
}

fn keep_known(table: &mut Dict, prefix: &str, is_known: &dyn Fn(&str) -> bool) {
    table.retain(|name, value| {
        let key = format!("{prefix}{name}");
        if let Value::Dict(_, inner) = value {
            keep_known(inner, &format!("{key}."), is_known);
        }
        is_known(&key)
    });
}

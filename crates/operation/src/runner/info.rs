//! The info of several components, as the info of one task.

use landfall_adapter::Info;
use serde_json::Value;

use crate::work::Assigned;

/// The info of a single component is the task's. With several components, each entry is named after its component.
pub(super) fn merge(into: &mut Info, info: Info, of: Option<&Assigned>) {
    let Some(one) = of else {
        *into = info;
        return;
    };
    let id = one.work.component.id.to_string();
    let stem = camel_case(id.rsplit(':').next().unwrap_or(&id));
    for (key, mut entry) in info.public {
        if let Some(label) = entry.get_mut("label") {
            *label =
                Value::String(format!("{}: {}", one.work.component.name, label.as_str().unwrap_or(&key)));
        }
        let key = capitalised(&key);
        // Two ids may have the same last part.
        let names = (1..)
            .map(|number| if number == 1 { format!("{stem}{key}") } else { format!("{stem}{number}{key}") });
        if let Some(name) = names.into_iter().find(|name| !into.public.contains_key(name)) {
            into.public.insert(name, entry);
        }
    }
    into.private.insert(id, Value::Object(info.private));
}

fn camel_case(text: &str) -> String {
    let mut words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    let first = words.next().unwrap_or("component").to_lowercase();
    words.fold(first, |stem, word| stem + &capitalised(&word.to_lowercase()))
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

//! A Tech Adapter with its own technology beside Landfall's: one file for each component, with `specific.text` in it.
//!
//!     [targets.NOTES]
//!     driver = "notes"
//!     folder = "file:///srv/notes"

use std::path::PathBuf;
use std::process::ExitCode;
use std::{fs, io};

use async_trait::async_trait;
use landfall_adapter::descriptor::{ComponentKind, Problem, SpecificReader};
use landfall_adapter::schemars::{self, JsonSchema};
use landfall_adapter::settings::FileUrl;
use landfall_adapter::*;
use serde::{Deserialize, Serialize};
use serde_json::json;

#[cfg(test)]
mod tests;

fn main() -> ExitCode {
    landfall::Adapter::builder().technology(NotesDriver).build().main()
}

struct NotesDriver;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    folder: FileUrl,
}

impl Driver for NotesDriver {
    type Settings = Settings;
    type Technology = Notes;

    fn name(&self) -> &'static str {
        "notes"
    }

    fn open(&self, settings: Settings, _: &Services<'_>) -> Result<Notes, Mistakes> {
        Ok(Notes { folder: settings.folder.path().to_owned() })
    }
}

#[derive(Clone)]
struct Notes {
    folder: PathBuf,
}

impl Technology for Notes {
    type Bound = Page;

    fn name(&self) -> &str {
        "notes"
    }

    fn capabilities(&self) -> Capabilities {
        let kinds = Kinds::Only(vec![ComponentKind::Storage]);
        Capabilities::new(kinds)
    }

    fn bind(&self, work: Work, intent: Intent) -> Result<Page, Vec<Problem>> {
        let mut specific = SpecificReader::new(&work.component.specific);
        let text = specific.required_string("text").unwrap_or_default().to_owned();
        let problems = specific.finish();
        if intent == Intent::Provision && !problems.is_empty() {
            return Err(problems);
        }
        // An id may be any text; two ids never have the same file name.
        let name = format!("{}@{}", work.component.id, work.environment);
        let path = self.folder.join(name.replace('%', "%25").replace('/', "%2F").replace('.', "%2E"));
        Ok(Page { path, intent, note: Note { owner: work.owner(), text, released: false } })
    }
}

/// The content of a file: its owner, and the text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Note {
    owner: Owner,
    text: String,
    released: bool,
}

struct Page {
    path: PathBuf,
    intent: Intent,
    note: Note,
}

impl Page {
    async fn find(&self, context: &Context) -> Result<Option<Note>> {
        let (path, owner) = (self.path.clone(), self.note.owner.clone());
        let foreign = format!("`{}` is not of {}: move it away", path.display(), owner.component);
        let read = move |_: &_| match fs::read_to_string(&path) {
            Ok(text) => match serde_json::from_str::<Note>(&text) {
                Ok(note) if note.owner == owner => Ok(Some(note)),
                _ => Err(Error::conflict(foreign)),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::retryable(format!("cannot read `{}`", path.display())).because(error)),
        };
        context.blocking(read).await
    }
}

#[async_trait]
impl Bound for Page {
    /// The text to write; `None`: delete the file.
    type Step = Option<Note>;

    async fn plan(&self, context: &Context) -> Result<Plan<Option<Note>>> {
        let wanted = Some(self.note.clone());
        let (action, summary, step) = match (self.intent, self.find(context).await?) {
            (Intent::Provision, None) => (Action::Create, "write the note", wanted),
            (Intent::Provision, found) if found == wanted => return Ok(Plan::default()),
            (Intent::Provision, Some(old)) if old.released => (Action::Restore, "take it back", wanted),
            (Intent::Provision, Some(_)) => (Action::Alter, "rewrite the note", wanted),
            (Intent::Unprovision { remove_data: true }, Some(_)) => (Action::Drop, "delete the note", None),
            (Intent::Unprovision { remove_data: false }, Some(note)) if !note.released => {
                (Action::Release, "release the note, and keep it", Some(Note { released: true, ..note }))
            }
            (Intent::Unprovision { .. } | Intent::UpdateAccess, _) => return Ok(Plan::default()),
        };
        let change = Change::new(action, format!("note `{}`", self.path.display()), summary, step);
        Ok(Plan::new(vec![change]))
    }

    async fn apply(&self, step: &Option<Note>, context: &Running) -> Result<()> {
        // The file may have a new owner since the plan was made.
        let found = self.find(context).await?;
        let (path, note) = (self.path.clone(), step.clone());
        let write = move |_: &_| {
            let draft = path.with_extension("draft");
            let written = match note {
                None => found.map_or(Ok(()), |_| fs::remove_file(&path)),
                Some(note) => fs::create_dir_all(path.parent().unwrap_or(&path))
                    .and_then(|()| fs::write(&draft, json!(note).to_string()))
                    .and_then(|()| fs::rename(&draft, &path)),
            };
            written.map_err(|e| Error::retryable(format!("cannot write `{}`", path.display())).because(e))
        };
        context.blocking(write).await
    }

    async fn describe(&self, _: &Context) -> Result<Info> {
        Ok(Info::default().text("path", "Path", self.path.display()))
    }
}

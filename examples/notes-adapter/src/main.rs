//! A Tech Adapter with a technology of its own beside those of Landfall: one file a component, with `specific.text` in it.
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

struct Notes {
    folder: PathBuf,
}

/// What a file holds: whose it is, and the text.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
struct Note {
    owner: Owner,
    text: String,
    released: bool,
}

fn read(work: &Work) -> Result<String, Vec<Problem>> {
    let mut specific = SpecificReader::new(&work.component.specific);
    let text = specific.required_string("text").map(str::to_owned);
    let problems = specific.finish();
    text.filter(|_| problems.is_empty()).ok_or(problems)
}

impl Notes {
    /// An id may be any text; no two have the same name of a file.
    fn path(&self, work: &Work) -> PathBuf {
        let name = format!("{}@{}", work.component.id, work.environment);
        self.folder.join(name.replace('%', "%25").replace('/', "%2F").replace('.', "%2E"))
    }

    /// The note of the component; somebody else's file is a conflict.
    async fn find(&self, work: &Work, context: &Context) -> Result<Option<Note>> {
        let (path, owner) = (self.path(work), work.owner());
        let read = move |_: &_| match fs::read_to_string(&path) {
            Ok(text) => match serde_json::from_str::<Note>(&text) {
                Ok(note) if note.owner == owner => Ok(Some(note)),
                _ => Err(Error::conflict(format!("`{}` is somebody else's: move it away", path.display()))),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::retryable(format!("cannot read `{}`", path.display())).because(error)),
        };
        context.blocking(read).await
    }
}

#[async_trait]
impl Technology for Notes {
    fn name(&self) -> &'static str {
        "notes"
    }

    fn capabilities(&self) -> Capabilities {
        let kinds = Kinds::Only(&[ComponentKind::Storage]);
        Capabilities { kinds, access: AccessMode::None, reverse: false, stop: true }
    }

    fn check(&self, work: &Work, intent: &Intent) -> Vec<Problem> {
        if *intent == Intent::Provision { read(work).err().unwrap_or_default() } else { Vec::new() }
    }

    async fn plan(&self, work: &Work, intent: &Intent, context: &Context) -> Result<Plan> {
        let found = self.find(work, context).await?;
        let (action, summary, note) = match (intent, found) {
            (Intent::Provision, found) => {
                let text = read(work).map_err(Error::invalid)?;
                let note = Some(Note { owner: work.owner(), text, released: false });
                match found {
                    None => (Action::Create, "write the note", note),
                    found if found == note => return Ok(Plan::default()),
                    Some(found) if found.released => (Action::Restore, "take back the note", note),
                    Some(_) => (Action::Alter, "rewrite the note", note),
                }
            }
            (Intent::Unprovision { remove_data: true }, Some(_)) => (Action::Drop, "delete the note", None),
            (Intent::Unprovision { remove_data: false }, Some(note)) if !note.released => {
                (Action::Release, "release the note, and keep it", Some(Note { released: true, ..note }))
            }
            (Intent::Unprovision { .. } | Intent::UpdateAccess, _) => return Ok(Plan::default()),
        };
        let resource = format!("note `{}`", self.path(work).display());
        let change = Change { action, resource, summary: summary.to_owned(), detail: json!(note) };
        Ok(Plan { changes: vec![change], notes: Vec::new() })
    }

    async fn apply(&self, work: &Work, change: &Change, context: &Context) -> Result<()> {
        // The plan was made a moment ago: whose the file is has to be looked at again.
        let found = self.find(work, context).await?;
        let (path, note) = (self.path(work), change.detail.clone());
        let write = move |_: &_| {
            let written = if note.is_null() {
                found.map_or(Ok(()), |_| fs::remove_file(&path))
            } else {
                let draft = path.with_extension("draft");
                fs::create_dir_all(path.parent().unwrap_or(&path))
                    .and_then(|()| fs::write(&draft, note.to_string()))
                    .and_then(|()| fs::rename(&draft, &path))
            };
            written.map_err(|e| Error::retryable(format!("cannot write `{}`", path.display())).because(e))
        };
        context.blocking(write).await
    }

    async fn describe(&self, work: &Work, _: &Context) -> Result<Info> {
        let path =
            json!({ "type": "string", "label": "Path", "value": self.path(work).display().to_string() });
        Ok(Info { public: [("path".to_owned(), path)].into_iter().collect(), private: Default::default() })
    }
}

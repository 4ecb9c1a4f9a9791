//! The program as a user has it: a server with the technology, and the command line that talks to it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

const DESCRIPTOR: &str = "\
{id: 'urn:dmb:dp:sales:notes:1', name: Notes, version: 1.0.0, environment: production, domain: sales,
 components: [{id: 'urn:dmb:cmp:sales:notes:1:note', name: Note, version: 1.0.0, kind: storage, technology: Note,
               specific: {text: remember the milk}}]}";

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_notes-adapter"))
}

fn files(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

#[test]
fn cli_deploys_and_removes_a_note() {
    let folder = tempfile::tempdir().unwrap();
    let (config, descriptor) = (folder.path().join("landfall.toml"), folder.path().join("notes.yaml"));
    let notes = folder.path().join("notes");
    let text = format!(
        "[targets.NOTES]\ndriver = \"notes\"\nfolder = \"file://{}\"\n[[routes]]\ntechnology = \"Note\"\ngroup = \"notes\"\n",
        notes.display()
    );
    fs::write(&config, text).unwrap();
    fs::write(&descriptor, DESCRIPTOR).unwrap();
    let mut serve = program();
    serve.args(["serve", "--listen", "127.0.0.1:0", "--config"]).arg(&config);
    let mut server = Server(serve.current_dir(folder.path()).stdout(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url = line.trim().strip_prefix("listening on ").expect(&line);

    let client =
        |command: &[&str]| program().args(command).arg(&descriptor).args(["--url", url]).status().unwrap();
    assert!(client(&["deploy"]).success());
    assert_eq!(files(&notes), 1);
    let note = fs::read_dir(&notes).unwrap().next().unwrap().unwrap().path();
    assert!(fs::read_to_string(note).unwrap().contains("remember the milk"));
    assert!(client(&["undeploy", "--remove-data"]).success());
    assert_eq!(files(&notes), 0);
}

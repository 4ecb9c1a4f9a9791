//! Brings generated/ up to date with spec/. Commit the changes there.

use std::path::Path;
use std::process::ExitCode;

use landfall_codegen::Document;

/// The contracts: document, module.
const CONTRACTS: [(&str, &str); 5] = [
    ("spec/tech-adapter-2.6.3.yaml", "tech_adapter"),
    ("spec/specific-provisioner-2.2.0.yaml", "specific_provisioner"),
    ("spec/airbyte-specific-provisioner.yaml", "airbyte"),
    ("spec/flexdeploy-instance.yaml", "flexdeploy"),
    ("spec/landfall-operator-1.0.0.yaml", "operator"),
];

fn main() -> ExitCode {
    // Watch generated/, too, so that the next build undoes an edit by hand.
    println!("cargo::rerun-if-changed=spec");
    println!("cargo::rerun-if-changed=generated");
    match generate() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo::error={error}");
            ExitCode::FAILURE
        }
    }
}

fn generate() -> Result<(), Box<dyn std::error::Error>> {
    let mut files = landfall_codegen::common(&CONTRACTS.map(|(_, module)| module));
    let read = |(path, _)| std::fs::read_to_string(path).map_err(|error| format!("`{path}`: {error}"));
    let texts = CONTRACTS.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let documents = CONTRACTS.iter().zip(&texts).map(|((source_name, module), text)| Document {
        text,
        source_name,
        module,
    });
    files.extend(landfall_codegen::generate(&documents.collect::<Vec<_>>())?);
    let changes = landfall_codegen::write_if_changed(Path::new("generated"), &files)?;
    for path in changes.written {
        println!("cargo::warning=generated/{} was out of date and was rewritten; commit it", path.display());
    }
    for path in changes.removed {
        println!(
            "cargo::warning=generated/{} is no longer generated and was removed; commit the removal",
            path.display()
        );
    }
    Ok(())
}

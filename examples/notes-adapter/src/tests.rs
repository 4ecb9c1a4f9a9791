use std::collections::BTreeMap;

use landfall_adapter::conformance::{self, Case, Subject};
use landfall_adapter::testing;

use super::*;

struct Folder {
    notes: Notes,
    folder: tempfile::TempDir,
}

#[async_trait]
impl Subject for Folder {
    async fn fresh() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { notes: Notes { folder: folder.path().to_owned() }, folder }
    }

    fn technology(&self) -> &dyn landfall_adapter::any::AnyTechnology {
        &self.notes
    }

    fn cases(&self) -> Vec<Case> {
        let work = |text: &str| {
            testing::work(&testing::CASHFLOW.replace("bucket: finance-cashflows", text), testing::STORAGE)
        };
        vec![Case { work: work("text: one"), changed: Some(work("text: two")) }]
    }

    async fn observe(&self) -> serde_json::Value {
        let files = fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path());
        json!(
            files
                .map(|path| (
                    path.file_name().unwrap().to_owned().into_string().unwrap(),
                    fs::read_to_string(path).unwrap()
                ))
                .collect::<BTreeMap<_, _>>()
        )
    }

    async fn occupy(&self, work: &Work) -> bool {
        let page = self.notes.bind(work.clone(), Intent::UpdateAccess).unwrap();
        fs::write(page.path, "text of another owner").is_ok()
    }
}

#[tokio::test]
async fn conforms() {
    conformance::conforms::<Folder>().await;
}

//! `[targets.CODE] driver = "lakehouse"`.

use std::path::{Path, PathBuf};

use landfall_adapter::schemars::JsonSchema;
use landfall_adapter::settings::{FileUrl, file_problem, folder_problem, path};
use landfall_adapter::{Driver, Mistakes, Services};
use serde::Deserialize;

use super::{Lakehouse, LakehouseSettings};

/// The driver of the lakehouse.
#[derive(Debug, Clone, Copy)]
pub struct LakehouseDriver;

/// The settings in `[targets.CODE]`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "landfall_adapter::schemars")]
pub struct Settings {
    /// Folder of buckets and tables: `file://PATH`.
    warehouse: FileUrl,
    /// SQLite file of the Iceberg catalog: `sqlite://PATH`; beside the warehouse by default.
    #[schemars(with = "Option<String>")]
    catalog: Option<CatalogUrl>,
}

/// `sqlite://PATH`
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct CatalogUrl(PathBuf);

impl TryFrom<String> for CatalogUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        path("sqlite", &text).map(Self)
    }
}

impl Driver for LakehouseDriver {
    type Settings = Settings;
    type Technology = Lakehouse;

    fn name(&self) -> &'static str {
        "lakehouse"
    }

    fn open(&self, settings: Settings, services: &Services<'_>) -> Result<Lakehouse, Mistakes> {
        let warehouse = settings.warehouse.path();
        let mut mistakes = Mistakes::new();
        check(&mut mistakes, "warehouse", warehouse, services, folder_problem);
        let catalog = match settings.catalog {
            Some(CatalogUrl(catalog)) => {
                check(&mut mistakes, "catalog", &catalog, services, file_problem);
                Some(catalog)
            }
            None => {
                let beside = beside(warehouse);
                match &beside {
                    None => mistakes.add(
                        "catalog",
                        "is missing, and the warehouse has no name for a file beside it; write `sqlite://FILE`",
                    ),
                    // A file beside an invalid warehouse would cause the same mistake again.
                    Some(catalog) if mistakes.is_empty() && services.will_serve() => {
                        if let Some(problem) = file_problem(catalog) {
                            mistakes.add("catalog", problem);
                        }
                    }
                    Some(_) => {}
                }
                beside
            }
        };
        let catalog = mistakes.or(catalog)?;
        let target = services.target().to_owned();
        Ok(Lakehouse::new(LakehouseSettings { target, warehouse: warehouse.to_owned(), catalog }))
    }
}

fn check(
    mistakes: &mut Mistakes,
    key: &str,
    path: &Path,
    services: &Services<'_>,
    look: fn(&Path) -> Option<String>,
) {
    let text = path.to_string_lossy();
    if text.contains(|c: char| matches!(c, '%' | '?' | '#') || c.is_control()) {
        mistakes.add(
            key,
            format_args!(
                "`{text}` has one of `%?#` or a control character, which readers of Iceberg take for something else; \
                 choose another path"
            ),
        );
    }
    if services.will_serve()
        && let Some(problem) = look(path)
    {
        mistakes.add(key, problem);
    }
}

/// Returns the default catalog of a warehouse: a file beside it, so that two warehouses never share a catalog
/// by accident.
fn beside(warehouse: &Path) -> Option<PathBuf> {
    let mut name = warehouse.file_name()?.to_owned();
    name.push(".catalog.db");
    Some(warehouse.with_file_name(name))
}

#[cfg(test)]
mod tests {
    use landfall_adapter::testing::open;
    use serde_json::json;

    use super::*;

    #[test]
    fn catalog_of_a_lakehouse_is_beside_its_warehouse_by_default() {
        let catalog = |settings| open(&LakehouseDriver, settings, &[]).unwrap().settings.catalog;
        let beside = Path::new("/srv/lake/dev.catalog.db");
        assert_eq!(catalog(json!({ "warehouse": "file:///srv/lake/dev" })), beside);
        assert_eq!(catalog(json!({ "warehouse": "file:///srv/lake/dev/" })), beside);
        let named = json!({ "warehouse": "file:///srv/lake/dev", "catalog": "sqlite:///srv/c.db" });
        assert_eq!(catalog(named), Path::new("/srv/c.db"));
    }
}

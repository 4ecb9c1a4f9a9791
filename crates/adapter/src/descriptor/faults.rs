//! Converts problems that a technology finds in the model to the author's view.
//!
//! Technologies use the paths of the model: `dataContract.schema[2].dataLength`. The author may have written the
//! length in `dataType: varchar(20)`, or the whole contract in ODCS. [`Column::keys`] has the original paths.

use super::{Column, Component, ContractShape, Problem, odcs};

impl Component {
    /// The problems that a technology has with the component, in the author's view, without those that are only
    /// consequences of parts that could not be read.
    #[must_use]
    pub fn without_consequences(&self, problems: Vec<Problem>) -> Vec<Problem> {
        let located: Vec<Problem> = problems.into_iter().map(|problem| self.located(problem)).collect();
        let (read, found): (Vec<_>, Vec<_>) = located.into_iter().partition(Problem::is_of_reading);
        let causes = Causes::of(self, &read);
        let found: Vec<_> = found.into_iter().filter(|problem| !causes.may_cause(problem)).collect();
        read.into_iter().chain(found).collect()
    }

    /// A problem of a technology in the author's view: with its path from the root, in the words of the contract's
    /// shape. Problems with a position were found by parsing.
    #[must_use]
    pub fn located(&self, problem: Problem) -> Problem {
        if problem.is_of_reading() {
            return problem.under(&self.path);
        }
        match &self.data_contract {
            Some(contract) => {
                let Some(rest) = problem.path.strip_prefix("dataContract.schema") else {
                    return problem.under(&self.path);
                };
                let mut located = problem.clone();
                if rest.is_empty() {
                    located.path.clone_from(&contract.columns_path);
                } else if let Some(path) = path_of(&contract.schema, rest) {
                    let own = path.strip_prefix(self.path.as_str()).unwrap_or(&path);
                    located.path = own.trim_start_matches('.').to_owned();
                }
                if contract.shape == ContractShape::Odcs { odcs::in_its_words(located) } else { located }
            }
            None => problem,
        }
        .under(&self.path)
    }
}

/// The known problems of a component before its technology reads it. Paths start at the root.
pub struct Causes<'a> {
    component: &'a Component,
    problems: Vec<&'a Problem>,
    /// A column without a name, which any unknown name may refer to.
    nameless: bool,
}

impl<'a> Causes<'a> {
    /// The causes among these problems.
    pub fn of(component: &'a Component, problems: &'a [Problem]) -> Self {
        let columns = component.data_contract.as_ref().map_or(&[][..], |contract| &contract.schema);
        // A problem of the whole document causes no other.
        let is_cause = |known: &&Problem| !known.path.is_empty() && known.counted().is_none();
        let problems = problems.iter().filter(is_cause).collect();
        Self { component, problems, nameless: columns.iter().any(|column| column.name.is_empty()) }
    }

    /// Whether a problem may be only a consequence of a known one: at the same path, around or below it, or in the
    /// same column, unless it concerns names.
    pub fn may_cause(&self, found: &Problem) -> bool {
        let about_name = |path: &str| path.ends_with(".name") || path.ends_with(".description");
        let columns = self.component.data_contract.iter().flat_map(|contract| &contract.schema);
        let mut column = columns.filter(|column| is_within(&found.path, &column.path));
        let column = column.next().filter(|_| !about_name(&found.path));
        self.problems.iter().any(|known| {
            let same_column =
                column.is_some_and(|it| is_within(&known.path, &it.path) && !about_name(&known.path));
            same_column || is_within(&found.path, &known.path) || is_within(&known.path, &found.path)
        }) || (self.nameless && found.message.contains("column"))
    }
}

/// Whether a path is `place`, or below it.
fn is_within(path: &str, place: &str) -> bool {
    path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// The path of `[2].children[0].dataLength` in the document, from its root.
fn path_of(columns: &[Column], rest: &str) -> Option<String> {
    let (index, rest) = rest.strip_prefix('[')?.split_once(']')?;
    let column = columns.get(index.parse::<usize>().ok()?)?;
    if let Some(key) = column.keys.all() {
        return Some(format!("{}.{key}", column.path));
    }
    let Some(key) = rest.strip_prefix('.') else { return Some(column.path.clone()) };
    if let Some(nested) = key.strip_prefix("children").filter(|nested| nested.starts_with('[')) {
        return path_of(&column.children, nested);
    }
    Some(format!("{}.{}", column.path, column.keys.of(key)))
}

//! Problems that a technology finds in the model, as the author of the document knows them.
//!
//! Technologies speak of columns as the model has them: `dataContract.schema[2].dataLength`. The author may have written
//! the length in `dataType: varchar(20)`, or the whole in ODCS. [`Column::keys`] remembers where.

use super::{Column, Component, ContractShape, Problem, odcs};

impl Component {
    /// What a technology has against the component, as its author knows it. What is only a consequence of something that
    /// could not be read is left out.
    #[must_use]
    pub fn told(&self, problems: Vec<Problem>) -> Vec<Problem> {
        let located: Vec<Problem> = problems.into_iter().map(|problem| self.located(problem)).collect();
        let (read, found): (Vec<_>, Vec<_>) = located.into_iter().partition(Problem::is_of_reading);
        let is_consequence = |problem: &Problem| {
            read.iter()
                .filter(|known| known.counted().is_none())
                .any(|known| is_within(&known.path, &problem.path) || is_within(&problem.path, &known.path))
        };
        let found: Vec<_> = found.into_iter().filter(|problem| !is_consequence(problem)).collect();
        read.into_iter().chain(found).collect()
    }

    /// A problem that a technology found, as the author of the document knows it: from the root, and with the paths and
    /// words of the shape of the data contract. One that has its place in the document was found when that was read.
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

/// Whether a path is another one, or leads to something in it.
fn is_within(path: &str, outer: &str) -> bool {
    path.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// `[2].children[0].dataLength` as the place where the document says it, from its root.
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

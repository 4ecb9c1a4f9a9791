//! The results as a table, and the verdicts.

use std::fmt;

/// The goal of a ratio.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
    /// No goal: the figure is for information.
    None,
}

impl Goal {
    fn met(self, ratio: f64) -> Option<bool> {
        match self {
            Self::AtLeast(least) => Some(ratio >= least),
            Self::AtMost(most) => Some(ratio <= most),
            Self::None => None,
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(least) => write!(f, "{least:.2} or more"),
            Self::AtMost(most) => write!(f, "{most:.2} or less"),
            Self::None => Ok(()),
        }
    }
}

/// One figure of several rounds, beside its baseline of the same rounds.
pub(crate) struct Line<'a> {
    /// The subject of the verdict, for example `durable accepts`.
    pub(crate) subject: &'a str,
    /// The name of the figure, if the subject has several.
    pub(crate) what: String,
    pub(crate) unit: &'a str,
    pub(crate) figures: &'a [f64],
    pub(crate) baseline: &'a str,
    pub(crate) base: &'a [f64],
    pub(crate) goal: Goal,
}

/// Prints each result at once, and keeps it for the verdicts.
#[derive(Default)]
pub(crate) struct Report {
    verdicts: Vec<Verdict>,
}

/// The results of a subject.
struct Verdict {
    subject: String,
    goal: Goal,
    /// The name and the ratio of each figure.
    ratios: Vec<(String, f64)>,
}

impl Report {
    pub(crate) fn heading(&self, text: &str) {
        println!("\n{text}");
        println!(
            "  {:<58} {:>9} {:<9} {:<42} {:>9} {:>6}  {:<13} goal",
            "", "figure", "", "beside", "", "ratio", "rounds"
        );
    }

    pub(crate) fn line(&mut self, line: &Line<'_>) {
        let mut ratios: Vec<f64> =
            line.figures.iter().zip(line.base).map(|(figure, base)| figure / base).collect();
        let (ratio, value, base) = (median(&mut ratios), middle(line.figures), middle(line.base));
        let range = match (ratios.first(), ratios.last()) {
            (Some(least), Some(most)) if ratios.len() > 1 => format!("{least:.2} - {most:.2}"),
            _ => String::new(),
        };
        let verdict = match line.goal.met(ratio) {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "",
        };
        println!(
            "  {:<58} {:>9} {:<9} {:<42} {:>9} {ratio:>6.2}  {range:<13} {} {verdict}",
            line.what,
            number(value),
            line.unit,
            line.baseline,
            number(base),
            line.goal
        );
        if line.goal == Goal::None {
            return;
        }
        let ratio = (line.what.clone(), ratio);
        match self.verdicts.iter_mut().find(|verdict| verdict.subject == line.subject) {
            Some(verdict) => verdict.ratios.push(ratio),
            None => self.verdicts.push(Verdict {
                subject: line.subject.to_owned(),
                goal: line.goal,
                ratios: vec![ratio],
            }),
        }
    }

    /// A line for each goal.
    pub(crate) fn verdicts(&self) {
        println!("\nGoals");
        for Verdict { subject, goal, ratios } in &self.verdicts {
            let missed: Vec<String> = ratios
                .iter()
                .filter(|(_, ratio)| goal.met(*ratio) == Some(false))
                .map(|(what, ratio)| format!("{what}: {ratio:.2}"))
                .collect();
            let met = ratios.len() - missed.len();
            let verdict = if missed.is_empty() { "met" } else { "MISSED" };
            println!("  {verdict:<6} {subject}: {goal}; {met} of {} figures meet it", ratios.len());
            for one in missed {
                println!("         missed by {one}");
            }
        }
    }
}

/// Sorts, and returns the median.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    quantile(values, 0.5)
}

fn middle(values: &[f64]) -> f64 {
    median(&mut values.to_vec())
}

/// Sorts, and returns the value below which this share of them lies.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "few values"
)]
pub(crate) fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get((last as f64 * part).round() as usize).copied().unwrap_or(f64::NAN)
}

/// Formats a number with its significant decimals and a thousands separator.
fn number(value: f64) -> String {
    if value < 100.0 {
        return format!("{value:.2}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

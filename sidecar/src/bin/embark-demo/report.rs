//! What the demonstration prints.

use std::{
    collections::BTreeMap,
    io::{Write as _, stdout},
    time::Duration,
};

use anyhow::{Result, ensure};

use super::{MODEL, server::Server};

/// How many sentences are shown for a query.
const SHOWN: usize = 3;
/// The characters of the table's columns.
const WIDTHS: [usize; 4] = [16, 18, 13, 9];

/// A batch that was embedded.
pub(crate) struct Batch {
    /// How long all its calls took.
    pub(crate) took: Duration,
    /// Where each vector came from.
    pub(crate) sources: Vec<&'static str>,
    /// The vectors.
    pub(crate) vectors: Vec<Vec<f32>>,
}

/// Prints as it goes, and keeps what the table needs.
pub(crate) struct Report<'a> {
    sentences: &'a [String],
    rows: Vec<(&'static str, Batch)>,
}

// === impl Report ===

impl<'a> Report<'a> {
    /// A report on these sentences.
    pub(crate) fn new(sentences: &'a [String]) -> Self {
        Report { sentences, rows: Vec::new() }
    }

    /// Says what runs.
    pub(crate) fn started(&self, server: &Server) {
        print(&format!(
            "started: {}\n  gRPC on {}, admin on {}; {} sentences of examples/sentences.txt\n",
            server.command,
            server.grpc,
            server.admin,
            self.sentences.len()
        ));
    }

    /// Prints the nearest sentences of each query.
    pub(crate) fn search(&self, vectors: &[Vec<f32>], queries: &[(&str, Vec<f32>)]) {
        print(&format!(
            "\nThe {SHOWN} sentences nearest to a query, with the cosine between the two:\n"
        ));
        for (query, vector) in queries {
            let mut near: Vec<(f32, &String)> =
                vectors.iter().map(|other| cosine(vector, other)).zip(self.sentences).collect();
            near.sort_by(|a, b| b.0.total_cmp(&a.0));
            print(&format!("\nQuery: {query}\n"));
            for (cosine, sentence) in near.iter().take(SHOWN) {
                print(&format!("    {cosine:.2}  {sentence}\n"));
            }
        }
    }

    /// Keeps a row of the table.
    pub(crate) fn measured(&mut self, what: &'static str, batch: Batch) {
        self.rows.push((what, batch));
    }

    /// Prints where vectors came from and what that cost.
    ///
    /// # Errors
    /// A row's vectors did not come from where they should, or differ from the first.
    pub(crate) fn table(&self) -> Result<()> {
        let count = self.sentences.len();
        print(&format!(
            "\nWhere the vectors of the same {count} sentences came from, and how long they took:\n\n"
        ));
        let header = ["asked", "vectors", "all sentences", "each"];
        print(&row(header.map(str::to_owned)));
        print(&row(WIDTHS.map(|width| "-".repeat(width))));
        for (what, batch) in &self.rows {
            let seconds = batch.took.as_secs_f64();
            print(&row([
                (*what).to_owned(),
                counts(&batch.sources),
                format!("{:.1} ms", seconds * 1e3),
                format!("{:.0} µs", seconds * 1e6 / count as f64),
            ]));
        }
        self.check()
    }

    fn check(&self) -> Result<()> {
        let wanted = ["COMPUTED", "HIT_MEMORY", "HIT_DISK", "COMPUTED"];
        for ((what, batch), wanted) in self.rows.iter().zip(wanted) {
            let found = counts(&batch.sources);
            let only = batch.sources.iter().all(|source| *source == wanted);
            ensure!(only, "{what}: expected {wanted} for every sentence, found {found}");
            for (fresh, first) in batch.vectors.iter().zip(&self.rows[0].1.vectors) {
                ensure!(cosine(fresh, first) > 0.9999, "{what}: a vector changed");
            }
        }
        Ok(())
    }

    /// Says what to try next.
    pub(crate) fn try_next(&self, server: &Server) {
        let (grpc, admin) = (&server.grpc, &server.admin);
        print(&format!(
            "\nThe server is still running; Ctrl-C ends it. Try, in another terminal:\n\
             \n  cargo run -q --bin embark-sidecar -- embed --address {grpc} --model {MODEL} \"Hello, world.\"\n  \
             curl http://{admin}/status\n  curl http://{admin}/metrics\n  \
             grpcurl -plaintext -d '{{\"model\":\"{MODEL}\",\"items\":[{{\"text\":\"Hello, world.\"}}]}}' \\\n    \
             {grpc} embark.v1.EmbeddingService/Embed\n"
        ));
    }
}

// === free functions ===

/// The cosine of the angle between two vectors.
pub(crate) fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// A line of the table: two columns of words, two of numbers.
fn row([what, sources, all, each]: [String; 4]) -> String {
    let [w, s, a, e] = WIDTHS;
    format!("  {what:<w$}   {sources:<s$}   {all:>a$}   {each:>e$}\n")
}

/// How many came from each source.
pub(crate) fn counts(sources: &[&'static str]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for source in sources {
        *counts.entry(source).or_default() += 1;
    }
    counts.iter().map(|(source, n)| format!("{n} {source}")).collect::<Vec<_>>().join(", ")
}

/// Writes to standard output.
pub(crate) fn print(text: &str) {
    // A reader that went away is no failure of the demonstration.
    let _ = stdout().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_columns_of_the_table_stand_below_each_other() {
        let rows = [
            ["asked", "vectors", "all sentences", "each"],
            ["expired (ttl 1s)", "200 COMPUTED", "1234.5 ms", "6172 µs"],
        ];
        let [header, line] = rows.map(|cells| row(cells.map(str::to_owned)));
        assert_eq!(header.chars().count(), line.chars().count());
        let at = |row: &str, cell: &str| row.split_once(cell).unwrap().0.chars().count();
        assert_eq!(at(&header, "vectors"), at(&line, "200"));
        let end = |row: &str, cell: &str| at(row, cell) + cell.chars().count();
        assert_eq!(end(&header, "all sentences"), end(&line, "1234.5 ms"));
        assert_eq!(end(&header, "each"), end(&line, "6172 µs"));
    }
}

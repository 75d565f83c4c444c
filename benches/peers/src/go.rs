//! Go's side of the peers: a program of its own, `go/main.go`. `RAMIE_GO_PEER` names it; without,
//! its columns stay empty.

use std::process::Command;

/// What it prints for a metric, one number or several.
pub fn all(metric: &str, workers: usize, amount: usize) -> Option<Vec<f64>> {
    let program = std::env::var_os("RAMIE_GO_PEER")?;
    let args = [metric, &workers.to_string(), &amount.to_string()];
    let output = Command::new(program).args(args).output().expect("Go's program runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("numbers");
    Some(text.split_whitespace().map(|number| number.parse().expect("a number")).collect())
}

/// The first of them.
pub fn one(metric: &str, workers: usize, amount: usize) -> Option<f64> {
    all(metric, workers, amount).map(|values| values[0])
}

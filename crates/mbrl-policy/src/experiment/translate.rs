//! Experiments of earlier versions, as they would be written today.

use toml::{Table, Value};

use super::ExperimentError;

/// The key that chose the kind of agent until version 0.1.
pub(super) const DYNAMICS: &str = "dynamics";

/// Rewrites what an earlier version wrote differently. An experiment in today's form is left unchanged.
///
/// `dynamics = "ensemble" | "simulator"` became `agent.kind = "model-based" | "ground-truth"`. Beside a simulator, sections
/// about learning were allowed and had no effect: they are removed.
pub(super) fn translate(table: &mut Table) -> Result<(), ExperimentError> {
    let Some(dynamics) = table.get(DYNAMICS) else { return Ok(()) };
    if let Some(kind) = table.get("agent").and_then(|agent| agent.get("kind")) {
        let told = format!("no such key together with agent.kind = {kind}, which replaces it");
        return Err(ExperimentError::rule(DYNAMICS, dynamics, told));
    }
    let kind = match dynamics.as_str() {
        Some("ensemble") => "model-based",
        Some("simulator") => "ground-truth",
        _ => {
            let told = "\"ensemble\" or \"simulator\"; today's key is agent.kind = \"model-based\" or \"ground-truth\"";
            return Err(ExperimentError::rule(DYNAMICS, dynamics, told));
        }
    };
    table.remove(DYNAMICS);
    if kind == "ground-truth" {
        for section in ["agent", "model", "fit", "propagation"] {
            table.remove(section);
        }
        if table.get("precision").and_then(Value::as_str) == Some("f32") {
            table.remove("precision");
        }
    }
    let agent = table.entry("agent").or_insert_with(|| Value::Table(Table::new()));
    if let Value::Table(agent) = agent {
        agent.insert("kind".into(), Value::String(kind.into()));
    }
    Ok(())
}

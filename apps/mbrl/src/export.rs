//! `mbrl export`: writes a run's policy, or an agent that plans, to a single file.

use std::process::ExitCode;

use anyhow::{Context, Result};
use mbrl_env::Env;
use mbrl_policy::{ExportedAgent, ExportedPolicy, POLICY_EXTENSION, Policy, PolicyInfo};

use crate::{
    args::ExportArgs,
    commands::cores,
    console,
    folder::checked_out,
    progress::Display,
    report,
    run::{Restored, RunFolder, in_pool, warn},
};

pub(crate) fn run(args: &ExportArgs) -> Result<ExitCode> {
    let folder = RunFolder::open(&args.run)?;
    let asked = args.out.as_deref().map(|out| checked_out(out, POLICY_EXTENSION)).transpose()?;
    let Restored { task, agent, env_step, damaged } = in_pool(cores(), || folder.restored(args.which.checkpoint))??;
    warn(&damaged, &Display::new());
    let (path, kind) = (folder.path.display(), folder.experiment.agent.kind());
    let place = |what: &str| folder.path.join(format!("{what}-{env_step}.{POLICY_EXTENSION}"));
    let Some(network) = agent.policy_network() else {
        let exported = ExportedAgent::new(&folder.experiment, env_step, &*agent).with_context(|| path.to_string())?;
        let out = asked.unwrap_or_else(|| place("agent"));
        exported.save(&out)?;
        let bytes = exported.to_bytes()?;
        let (size, sum) = (bytes.len() as f64 / 1e6, crc32c::crc32c(&bytes));
        console::out(format_args!(
            "{0}: an agent that plans on {1}, step {env_step}; {size:.2} MB, crc32c {sum:08x}; mbrl eval {2}",
            out.display(),
            folder.experiment.task,
            report::quoted_path(&out)
        ))?;
        return Ok(ExitCode::SUCCESS);
    };
    let info = PolicyInfo::of(task.env.spec()).for_task(&folder.experiment.task).learned_by(kind, env_step);
    let policy = ExportedPolicy::new(info, network)?;
    let out = asked.unwrap_or_else(|| place("policy"));
    policy.save(&out)?;
    let (obs, action) = (policy.obs_width(), policy.action_width());
    console::out(format_args!("{}: observations [{obs}] to actions [{action}], step {env_step}", out.display()))?;
    Ok(ExitCode::SUCCESS)
}

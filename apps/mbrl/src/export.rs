//! `mbrl export`: a run's policy as a file of its own.

use std::process::ExitCode;

use anyhow::{Result, bail};
use mbrl_env::Env;
use mbrl_policy::{ExportedPolicy, POLICY_EXTENSION, Policy, PolicyInfo};

use crate::{
    args::ExportArgs,
    commands::cores,
    console,
    folder::checked_out,
    progress::Display,
    run::{Restored, RunFolder, in_pool, warn},
};

pub(crate) fn run(args: &ExportArgs) -> Result<ExitCode> {
    let folder = RunFolder::open(&args.run)?;
    let asked = args.out.as_deref().map(|out| checked_out(out, POLICY_EXTENSION)).transpose()?;
    let Restored { task, agent, env_step, damaged } = in_pool(cores(), || folder.restored(args.checkpoint))??;
    warn(&damaged, &Display::new());
    let (path, kind) = (folder.path.display(), folder.experiment.agent.kind());
    let Some(network) = agent.policy_network() else {
        bail!(
            "{path}: agent.kind = \"{kind}\" plans each action and has no policy to export; `mbrl eval {path}` runs it, and \
             agent.kind = \"mbpo\" (`mbrl train dhmbpo-pendulum`) learns a policy in a model of the same kind"
        );
    };
    let info = PolicyInfo::of(task.env.spec()).for_task(&folder.experiment.task).learned_by(kind, env_step);
    let policy = ExportedPolicy::new(info, network)?;
    let out = asked.unwrap_or_else(|| folder.path.join(format!("policy-{env_step}.{POLICY_EXTENSION}")));
    policy.save(&out)?;
    let (obs, action) = (policy.obs_width(), policy.action_width());
    console::out(format_args!("{}: observations [{obs}] to actions [{action}], step {env_step}", out.display()))?;
    Ok(ExitCode::SUCCESS)
}

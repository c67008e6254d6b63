//! Studies: which experiments are run, with which seeds, to compare methods on one task and to show what each part of a method does.
//!
//! A study is a TOML text. Its methods are experiments of a [`Registry`] with settings replaced; an ablation is a list of methods too,
//! most often one experiment with one setting varied.
//!
//! ```toml
//! summary = "planners on the pendulum"
//! experiment = "pets-pendulum"          # of methods that name none
//! steps = 2000
//! seeds = 3
//! set = ["train.eval_every=500"]        # in all methods, first
//!
//! [[method]]
//! name = "PETS"
//!
//! [[method]]
//! name = "SAC"
//! experiment = "sac-pendulum"
//!
//! [[ablation]]
//! name = "horizon"
//! title = "steps looked ahead"
//! method = [
//!     { name = "5", set = ["planner.horizon=5"] },
//!     { name = "20" },                  # the experiment as it is
//! ]
//! ```

use std::{collections::BTreeSet, fs, path::Path};

use mbrl_env::{atomic_file, nearest::suggest};
use serde::{Deserialize, Serialize};
use toml::Table;

use super::{Experiment, ExperimentError, Registry, overrides::key_of, read::read};

/// The name of the group that the methods of a study form.
pub const COMPARISON: &str = "comparison";

/// All ablations of a study together, where some of its groups are requested.
const ABLATIONS: &str = "ablations";

/// Which experiments are run, and how their results are laid out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Study {
    /// Name, for folders; by default that of the file.
    #[serde(default)]
    pub name: String,
    /// One line about it.
    #[serde(default)]
    pub summary: String,
    /// The experiment of the methods that name none: one of the registry, or the path of a file that ends in `.toml`, relative to the study's
    /// file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub experiment: Option<String>,
    /// Real environment steps of every run.
    pub steps: u64,
    /// Seeds of every method, from 0 on (default: 3).
    #[serde(default = "three")]
    pub seeds: u64,
    /// Settings of all methods, `key=value`; those of a method come after them.
    #[serde(default)]
    pub set: Vec<String>,
    /// Settings of the methods that name no experiment; they come after `set` and before the method's own. A method with another
    /// `planner.kind` keeps those that its planner has too.
    #[serde(default)]
    pub base_set: Vec<String>,
    /// Whether random actions are evaluated too, as a baseline (default: true).
    #[serde(default = "yes")]
    pub random: bool,
    /// The methods that are compared; the first is the one that the others are compared with.
    #[serde(default, rename = "method")]
    pub methods: Vec<StudyMethod>,
    /// The ablations.
    #[serde(default, rename = "ablation")]
    pub ablations: Vec<Ablation>,
}

/// An experiment under a name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct StudyMethod {
    /// Its name in tables and pictures.
    pub name: String,
    /// An experiment of the registry, or the path of a file, relative to the study's file (default: that of the study).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub experiment: Option<String>,
    /// Settings of its own, `key=value`.
    #[serde(default)]
    pub set: Vec<String>,
}

/// One part of a method, varied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Ablation {
    /// A short name.
    pub name: String,
    /// Its title in tables and pictures (default: the name).
    #[serde(default)]
    pub title: String,
    /// Settings of all its variants, `key=value`; they come after those of the study, and before the variant's own.
    #[serde(default)]
    pub set: Vec<String>,
    /// The variants. One that is the same experiment as a method elsewhere in the study shares its runs.
    #[serde(rename = "method")]
    pub methods: Vec<StudyMethod>,
}

/// The most seeds of a study.
const MOST_SEEDS: u64 = 1000;

fn three() -> u64 {
    3
}

fn yes() -> bool {
    true
}

/// A study whose experiments are loaded: equal ones once.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct StudyPlan {
    /// Each experiment, with seed 0, named after the first method that uses it: a name that a folder can have.
    pub experiments: Vec<Experiment>,
    /// Whether each of them is to be run: all, unless [methods were selected](Self::only). The others stand beside them in tables and
    /// pictures where runs of them exist.
    pub requested: Vec<bool>,
    /// The comparison, where there is one, then the ablations.
    pub groups: Vec<StudyGroup>,
}

/// Methods shown together.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct StudyGroup {
    /// [`COMPARISON`], or the name of an ablation.
    pub name: String,
    /// The name of its files: the same in letters, digits, dots and dashes.
    pub file: String,
    /// What it is about.
    pub title: String,
    /// Names, and which of the [experiments](StudyPlan::experiments) they are.
    pub methods: Vec<(String, usize)>,
}

impl StudyPlan {
    /// With some of its groups or methods alone. A name is [`COMPARISON`], `ablations` for all of them, the name of an ablation, the name of
    /// a method (in every group that has it), or `GROUP/METHOD`. A group of which only some methods are named stays whole, and these
    /// alone are [requested](Self::requested). Experiments keep the names that they have in the whole study, so folders stay the same.
    ///
    /// # Errors
    /// [`ExperimentError::Value`] for a name that stands for nothing.
    pub fn only(mut self, names: &[String]) -> Result<Self, ExperimentError> {
        let groups: Vec<&str> = self.groups.iter().map(|group| group.name.as_str()).collect();
        let is_group = |name: &str| {
            groups.contains(&name) || (name == ABLATIONS && groups.iter().any(|group| *group != COMPARISON))
        };
        let names_it = |name: &str, group: &StudyGroup, method: &str| {
            if is_group(name) {
                return name == group.name || (name == ABLATIONS && group.name != COMPARISON);
            }
            name == method || name.strip_suffix(method).and_then(|rest| rest.strip_suffix('/')) == Some(&group.name)
        };
        let mut wanted = vec![false; self.experiments.len()];
        let mut touched = vec![false; self.groups.len()];
        for name in names {
            let mut is_known = false;
            for (group, touched) in self.groups.iter().zip(&mut touched) {
                for (_, experiment) in group.methods.iter().filter(|(method, _)| names_it(name, group, method)) {
                    (is_known, *touched, wanted[*experiment]) = (true, true, true);
                }
            }
            if !is_known {
                let ablations = is_group(ABLATIONS).then_some(ABLATIONS);
                let all: Vec<&str> = groups.iter().copied().chain(ablations).collect();
                let methods = self.groups.iter().flat_map(|group| &group.methods).map(|(method, _)| method.as_str());
                // Several groups may have a method of the same name.
                let candidates: BTreeSet<&str> = all.iter().copied().chain(methods).collect();
                let nearest = suggest(name, candidates);
                let rule = format!("one of {}, the name of a method, or GROUP/METHOD{nearest}", all.join(", "));
                return Err(ExperimentError::rule("only", format!("{name:?}"), rule));
            }
        }
        let mut touched = touched.into_iter();
        self.groups.retain(|_| touched.next() == Some(true));
        // In the order in which they come.
        let mut used: Vec<usize> = Vec::new();
        for (_, experiment) in self.groups.iter_mut().flat_map(|group| &mut group.methods) {
            let place = used.iter().position(|known| known == experiment);
            *experiment = place.unwrap_or_else(|| {
                used.push(*experiment);
                used.len() - 1
            });
        }
        self.requested = used.iter().map(|i| wanted[*i]).collect();
        self.experiments = used.into_iter().map(|i| self.experiments[i].clone()).collect();
        Ok(self)
    }
}

impl Study {
    /// Reads a text.
    ///
    /// # Errors
    /// [`ExperimentError::Syntax`] for a text that is not TOML; [`ExperimentError::UnknownKey`], [`ExperimentError::Missing`],
    /// [`ExperimentError::Value`] and their siblings, naming the key.
    pub fn from_toml(text: &str) -> Result<Self, ExperimentError> {
        let table: Table = text.parse().map_err(ExperimentError::Syntax)?;
        read(table, "")
    }

    /// Reads a file; a study without a name is called after it. Paths of experiments in it are relative to its folder, and absolute from here on.
    ///
    /// # Errors
    /// [`ExperimentError::Io`]; [`ExperimentError::InStudy`], naming the file, for what [`from_toml`](Self::from_toml) gives.
    pub fn from_file(path: &Path) -> Result<Self, ExperimentError> {
        let text = fs::read_to_string(path).map_err(|source| ExperimentError::Io { path: path.to_owned(), source })?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let mut study = Self::named(&text, &stem, &path.display().to_string())?;
        let own = study.experiment.iter_mut();
        let methods = study.methods.iter_mut().chain(study.ablations.iter_mut().flat_map(|of| &mut of.methods));
        for experiment in own.chain(methods.filter_map(|method| method.experiment.as_mut())) {
            if experiment.ends_with(".toml") {
                let place = atomic_file::parent(path).join(&*experiment);
                // Fails only without a current directory, and then the path as typed is as good.
                let place = std::path::absolute(&place).unwrap_or(place);
                *experiment = place.to_string_lossy().into_owned();
            }
        }
        Ok(study)
    }

    pub(super) fn named(text: &str, name: &str, origin: &str) -> Result<Self, ExperimentError> {
        let mut study = Self::from_toml(text).map_err(in_study(origin.to_owned()))?;
        if study.name.is_empty() {
            name.clone_into(&mut study.name);
        }
        Ok(study)
    }

    /// With every value written out.
    ///
    /// # Errors
    /// [`ExperimentError::Unwritable`] for a number that TOML cannot hold.
    pub fn to_toml(&self) -> Result<String, ExperimentError> {
        toml::to_string(self).map_err(ExperimentError::Unwritable)
    }

    /// The name of a folder for it: its own name in letters, digits, dots and dashes.
    #[must_use]
    pub fn folder_name(&self) -> String {
        slug(&self.name)
    }

    /// Loads every experiment.
    ///
    /// # Errors
    /// [`ExperimentError::InStudy`], naming the method, for what [`Registry::load`] gives; [`ExperimentError::Value`] for names that
    /// mean two things, for a study without methods, and for methods on different tasks.
    pub fn plan(&self, registry: &Registry) -> Result<StudyPlan, ExperimentError> {
        let in_this = |error| in_study(self.name.clone())(error);
        if self.methods.is_empty() && self.ablations.is_empty() {
            let missing = "[[method]] or [[ablation]], with the experiments that are run".to_owned();
            return Err(in_this(ExperimentError::Missing { what: missing }));
        }
        // One that was read from a file has a name.
        if !self.name.is_empty() && !is_short(&self.folder_name()) {
            return Err(in_this(ExperimentError::rule("name", format!("{:?}", self.name), NAME_RULE)));
        }
        if !(1..=MOST_SEEDS).contains(&self.seeds) {
            return Err(in_this(ExperimentError::rule("seeds", self.seeds, format!("1 to {MOST_SEEDS}"))));
        }
        let mut plan = StudyPlan { experiments: Vec::new(), requested: Vec::new(), groups: Vec::new() };
        if !self.methods.is_empty() {
            self.add(&mut plan, [COMPARISON, "methods"], &[], &self.methods, registry)?;
        }
        for ablation in &self.ablations {
            let refuse = |rule| ExperimentError::rule("ablation.name", format!("{:?}", ablation.name), rule);
            let file = slug(&ablation.name);
            if [COMPARISON, ABLATIONS, "report"].contains(&file.as_str()) {
                return Err(in_this(refuse(format!(
                    "a name that is not {COMPARISON}, {ABLATIONS} or report, which are files of a study"
                ))));
            }
            if plan.groups.iter().any(|group| group.file == file) {
                return Err(in_this(refuse("a name of its own".to_owned())));
            }
            if !is_short(&file) {
                return Err(in_this(refuse(NAME_RULE.to_owned())));
            }
            let title = if ablation.title.is_empty() { &ablation.name } else { &ablation.title };
            self.add(&mut plan, [&ablation.name, title], &ablation.set, &ablation.methods, registry)?;
        }
        plan.requested = vec![true; plan.experiments.len()];
        Ok(plan)
    }

    /// Adds a group with those of its experiments that are not there yet.
    fn add(
        &self,
        plan: &mut StudyPlan,
        [name, title]: [&str; 2],
        set: &[String],
        methods: &[StudyMethod],
        registry: &Registry,
    ) -> Result<(), ExperimentError> {
        let mut group =
            StudyGroup { name: name.to_owned(), file: slug(name), title: title.to_owned(), methods: Vec::new() };
        for method in methods {
            let whose = match name {
                COMPARISON => method.name.clone(),
                _ => format!("{name}: {}", method.name),
            };
            let in_method = in_study(format!("{}, method {whose}", self.name));
            let slug = if name == COMPARISON { slug(&method.name) } else { slug(&format!("{name} {}", method.name)) };
            if slug.is_empty() || group.methods.iter().any(|(known, _)| *known == method.name) {
                let rule = "a name of its own, with a letter or a digit";
                return Err(in_method(ExperimentError::rule("method.name", format!("{:?}", method.name), rule)));
            }
            if !is_short(&slug) {
                return Err(in_method(ExperimentError::rule("method.name", format!("{:?}", method.name), NAME_RULE)));
            }
            let experiment = match self.load(method, set, &slug, registry) {
                Ok(experiment) => experiment,
                Err(error) => return Err(in_method(error)),
            };
            if let Some(other) = plan.experiments.first().filter(|other| !same_task(other, &experiment)) {
                let rule = format!("{}, with the options and wrappers of the other methods", other.task);
                return Err(in_method(ExperimentError::rule("task", &experiment.task, rule)));
            }
            let settings = experiment.settings()?;
            let known = plan.experiments.iter().map(Experiment::settings).collect::<Result<Vec<_>, _>>()?;
            let place = known.iter().position(|other| *other == settings);
            if place.is_none() && plan.experiments.iter().any(|other| other.name == slug) {
                let rule = "a name whose folder is not that of another method";
                return Err(in_method(ExperimentError::rule("method.name", format!("{:?}", method.name), rule)));
            }
            let place = place.unwrap_or_else(|| {
                plan.experiments.push(experiment);
                plan.experiments.len() - 1
            });
            group.methods.push((method.name.clone(), place));
        }
        if group.methods.is_empty() {
            let missing = format!("methods of the ablation {name}");
            return Err(in_study(self.name.clone())(ExperimentError::Missing { what: missing }));
        }
        plan.groups.push(group);
        Ok(())
    }

    fn load(
        &self,
        method: &StudyMethod,
        of_group: &[String],
        slug: &str,
        registry: &Registry,
    ) -> Result<Experiment, ExperimentError> {
        let name = method.experiment.as_ref().or(self.experiment.as_ref());
        let name = name.ok_or_else(|| ExperimentError::Missing {
            what: "key `experiment`, of the method or of the study".to_owned(),
        })?;
        let base: &[String] = if method.experiment.is_none() { &self.base_set } else { &[] };
        // They would be overwritten, and every method would be run as if they had not been given.
        for assignment in self.set.iter().chain(base).chain(of_group).chain(&method.set) {
            if let Some(key) = ["seed", "steps", "name"].into_iter().find(|known| *known == key_of(assignment)) {
                let value = assignment.split_once('=').map_or("", |(_, value)| value.trim());
                let rule = "no such key in `set`: the study itself has `steps` and `seeds`, and a method its `name`";
                return Err(ExperimentError::rule(key, value, rule));
            }
        }
        // In two rounds: a method with another planner has no use for the study's settings of its own planner.
        let all: Vec<&str> = self.set.iter().chain(base).chain(of_group).map(String::as_str).collect();
        let own: Vec<&str> = method.set.iter().map(String::as_str).collect();
        let mut experiment = registry.load(name, &all)?.overridden(&own)?;
        (experiment.name, experiment.seed, experiment.steps) = (slug.to_owned(), 0, self.steps);
        Ok(experiment)
    }
}

/// Whether returns on the tasks of two experiments can be compared.
fn same_task(one: &Experiment, other: &Experiment) -> bool {
    one.task == other.task && one.task_options == other.task_options && one.wrappers == other.wrappers
}

fn in_study(origin: String) -> impl FnOnce(ExperimentError) -> ExperimentError {
    move |error| ExperimentError::InStudy { origin, source: Box::new(error) }
}

/// The rule for names that become parts of paths.
const NAME_RULE: &str = "a name with a letter or a digit, of at most 100 bytes in lower case";

/// Whether something is left of a name, and not more than file systems take.
fn is_short(slug: &str) -> bool {
    (1..=100).contains(&slug.len())
}

/// A name that a folder can have: lower case, letters, digits and dots; everything else becomes a dash.
fn slug(name: &str) -> String {
    let mut slug = String::new();
    for c in name.chars().flat_map(char::to_lowercase) {
        if c.is_alphanumeric() || (c == '.' && !slug.is_empty()) {
            slug.push(c);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.trim_end_matches(['-', '.']).to_owned()
}

#[cfg(test)]
mod tests {
    use mbrl_env::tasks;

    use super::*;

    const BASE: &str = "task = \"pendulum\"\nsteps = 400\n[model]\n[planner]\nkind = \"cem\"\nhorizon = 8\n[propagation]\n\
                        rule = \"ts-inf\"\nnoise = true\nparticles = 5\n";

    fn registry() -> Registry {
        let other = BASE.replace("pendulum", "cartpole");
        Registry::new().tasks(tasks::entries()).experiments(&[("base", BASE), ("other", &other)])
    }

    fn study(rest: &str) -> Study {
        let head = "name = \"s\"\nexperiment = \"base\"\nsteps = 600\nset = [\"train.eval_every=200\"]\n";
        Study::from_toml(&format!("{head}{rest}")).unwrap()
    }

    const WHOLE: &str = r#"
        [[method]]
        name = "Base"
        [[method]]
        name = "two members"
        set = ["model.members=2"]
        [[ablation]]
        name = "horizon"
        title = "steps looked ahead"
        method = [{ name = "4", set = ["planner.horizon=4"] }, { name = "8" }]
        [[ablation]]
        name = "members"
        method = [{ name = "2", set = ["model.members=2"] }, { name = "8", set = ["planner.horizon=8", "model.members=8"] }]
    "#;

    fn told(error: &ExperimentError) -> String {
        use std::error::Error as _;
        error.source().map_or(error.to_string(), |source| format!("{error}: {source}"))
    }

    #[test]
    fn equal_experiments_are_run_once() {
        let study = study(WHOLE);
        let plan = study.plan(&registry()).unwrap();
        let names: Vec<&str> = plan.experiments.iter().map(|experiment| experiment.name.as_str()).collect();
        assert_eq!(names, ["base", "two-members", "horizon-4", "members-8"]);
        assert!(plan.experiments.iter().all(|one| one.steps == 600 && one.train.eval_every == 200));
        let groups: Vec<(&str, &str, Vec<usize>)> = plan
            .groups
            .iter()
            .map(|group| (&*group.name, &*group.title, group.methods.iter().map(|(_, i)| *i).collect()))
            .collect();
        let expected = [
            (COMPARISON, "methods", vec![0, 1]),
            ("horizon", "steps looked ahead", vec![2, 0]),
            ("members", "members", vec![1, 3]),
        ];
        assert_eq!(groups, expected);
        assert_eq!(Study::from_toml(&study.to_toml().unwrap()).unwrap(), study);
    }

    #[test]
    fn groups_by_themselves_have_the_folders_of_the_whole_study() {
        let whole = study(WHOLE);
        let plan = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            whole.plan(&registry()).unwrap().only(&names).unwrap()
        };
        let names = |plan: &StudyPlan| plan.experiments.iter().map(|one| one.name.clone()).collect::<Vec<_>>();
        let members = plan(&["members"]);
        assert_eq!(names(&members), ["two-members", "members-8"]);
        assert_eq!(members.groups[0].methods, [("2".to_owned(), 0), ("8".to_owned(), 1)]);
        assert_eq!(names(&plan(&["ablations"])), ["horizon-4", "base", "two-members", "members-8"]);
        assert_eq!(plan(&[COMPARISON]).groups.len(), 1);
        assert!(members.requested.iter().all(|requested| *requested));
        let error = whole.plan(&registry()).unwrap().only(&["member".to_owned()]).unwrap_err().to_string();
        assert_eq!(
            error,
            "only = \"member\": expected one of comparison, horizon, members, ablations, the name of a method, or GROUP/METHOD; \
             did you mean `members`?"
        );
    }

    #[test]
    fn methods_by_themselves_are_requested_among_those_of_their_groups() {
        let whole = study(WHOLE).plan(&registry()).unwrap();
        let requested = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let plan = whole.clone().only(&names).unwrap();
            let groups: Vec<String> = plan.groups.iter().map(|group| group.name.clone()).collect();
            let all = plan.experiments.iter().zip(&plan.requested);
            let names: Vec<String> =
                all.filter(|(_, requested)| **requested).map(|(one, _)| one.name.clone()).collect();
            (groups, names, plan.experiments.len())
        };
        let expected = |groups: &[&str], names: &[&str], of: usize| {
            let owned = |all: &[&str]| all.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
            (owned(groups), owned(names), of)
        };
        assert_eq!(requested(&["Base"]), expected(&[COMPARISON], &["base"], 2));
        // In both ablations there is an "8", and that of the horizon is the method Base.
        assert_eq!(requested(&["8"]), expected(&["horizon", "members"], &["base", "members-8"], 4));
        assert_eq!(requested(&["members/8"]), expected(&["members"], &["members-8"], 2));
        assert_eq!(
            requested(&["members/8", COMPARISON]),
            expected(&[COMPARISON, "members"], &["base", "two-members", "members-8"], 3)
        );
        // The name of a group is that of a group, whatever methods are called.
        let twice = "[[method]]\nname = \"horizon\"\n[[ablation]]\nname = \"horizon\"\nmethod = [{ name = \"3\", set = [\"planner.horizon=3\"] }]\n";
        let plan = study(twice).plan(&registry()).unwrap().only(&["horizon".to_owned()]).unwrap();
        assert_eq!(plan.groups.len(), 1);
        assert!(whole.clone().only(&["members/4".to_owned()]).is_err());
        let error = whole.only(&["/8".to_owned()]).unwrap_err().to_string();
        assert_eq!(error.matches("`8`").count(), 1, "suggested once, though two groups have it: {error}");
    }

    #[test]
    fn settings_of_the_base_and_of_an_ablation_come_before_those_of_its_methods() {
        let rest = "base_set = [\"model.members=2\", \"planner.kind=pddm\", \"planner.kappa=5\", \"planner.horizon=3\"]\n\
                    [[method]]\nname = \"a\"\n[[method]]\nname = \"b\"\nset = [\"planner.kind=cem\", \"planner.horizon=4\"]\n[[method]]\nname = \"c\"\nexperiment = \"base\"\n\
                    [[ablation]]\nname = \"d\"\nset = [\"model.members=3\"]\nmethod = [{ name = \"e\", experiment = \"base\" }, \
                    { name = \"f\", experiment = \"base\", set = [\"model.members=4\"] }]\n";
        let study = study(rest);
        let plan = study.plan(&registry()).unwrap();
        let of = |i: usize| {
            let sections = plan.experiments[i].agent.model_based().unwrap();
            (sections.model.members, sections.planner.horizon())
        };
        let default = registry().load("base", &[]).unwrap().agent.model_based().unwrap().model.members;
        assert_eq!([of(0), of(1), of(2)], [(2, 3), (2, 4), (default, 8)]);
        // Those of an ablation are those of its variants, which may have their own.
        assert_eq!([of(3), of(4)], [(3, 8), (4, 8)]);
    }

    #[test]
    fn paths_of_experiments_are_relative_to_the_study() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("studies")).unwrap();
        fs::write(folder.path().join("own.toml"), BASE.replace("horizon = 8", "horizon = 5")).unwrap();
        fs::write(folder.path().join("studies/other.toml"), BASE.replace("horizon = 8", "horizon = 3")).unwrap();
        let text = "experiment = \"../own.toml\"\nsteps = 600\n[[method]]\nname = \"a\"\n[[method]]\nname = \"b\"\n\
                    experiment = \"base\"\n[[ablation]]\nname = \"c\"\nmethod = [{ name = \"d\", experiment = \"other.toml\" }]\n";
        let path = folder.path().join("studies/mine.toml");
        fs::write(&path, text).unwrap();
        let study = registry().load_study(path.to_str().unwrap()).unwrap();
        let plan = study.plan(&registry()).unwrap();
        let horizons = plan.experiments.iter().map(|one| one.agent.model_based().unwrap().planner.horizon());
        assert_eq!(horizons.collect::<Vec<_>>(), [5, 8, 3]);
        // Its copy in the study's own folder finds them as well.
        let again = Study::from_toml(&study.to_toml().unwrap()).unwrap();
        assert_eq!(again.plan(&registry()).unwrap(), plan);
    }

    #[test]
    fn what_is_wrong_names_the_method() {
        let refused = |rest: &str| {
            let study = study(rest);
            told(&study.plan(&registry()).unwrap_err())
        };
        let method = |name: &str, rest: &str| format!("[[method]]\nname = \"{name}\"\n{rest}\n");
        for (text, said) in [
            (String::new(), "study s: missing [[method]] or [[ablation]]"),
            (method("PETS", "set = [\"planner.horizn=3\"]"), "study s, method PETS: unknown key `planner.horizn`"),
            (method("PETS", "experiment = \"bas\""), "study s, method PETS: unknown experiment `bas`"),
            (method("a", "") + &method("b", "experiment = \"other\""), "method b: task = cartpole: expected pendulum"),
            (
                method("a", "") + &method("a", "set = [\"model.members=2\"]"),
                "method a: method.name = \"a\": expected a name",
            ),
            (method("A!", "") + &method("a?", "set = [\"model.members=2\"]"), "expected a name whose folder"),
            (method("!", ""), "with a letter or a digit"),
            (
                "[[ablation]]\nname = \"comparison\"\nmethod = [{ name = \"a\" }]\n".to_owned() + &method("a", ""),
                "ablation.name",
            ),
            ("[[ablation]]\nname = \"x\"\nmethod = []\n".to_owned(), "missing methods of the ablation x"),
        ] {
            let told = refused(&text);
            assert!(told.contains(said), "{told}: expected {said}");
        }
        let none = Study::from_toml("steps = 3\n[[method]]\nname = \"a\"\n").unwrap();
        assert!(told(&none.plan(&registry()).unwrap_err()).contains("missing key `experiment`"));
        let error = Study::from_toml("steps = 3\nmethods = 2\n").unwrap_err().to_string();
        assert!(error.contains("unknown key `methods`; did you mean `method`?"), "{error}");
    }

    #[test]
    fn names_become_folders() {
        for (name, folder) in
            [("PDDM", "pddm"), ("kappa 0.5", "kappa-0.5"), ("2 × 64", "2-64"), ("..", ""), ("a/b.", "a-b")]
        {
            assert_eq!(slug(name), folder);
        }
    }
}

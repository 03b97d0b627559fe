//! One run of the simulator as data, and as the command line that plays it.

use elver::id::IdWork;
use elver::sim::scenario::Scenario;
use elver::sim::stage::Options;

/// A scenario with its options.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// The name of the scenario.
    pub(crate) scenario: &'static str,
    /// The options of the run.
    pub(crate) options: Options,
}

impl Case {
    pub(crate) fn new(scenario: &Scenario, options: Options) -> Case {
        Case { scenario: scenario.name, options }
    }

    /// The virtual minutes of the run.
    pub(crate) fn minutes(&self) -> f64 {
        self.options.duration.as_secs_f64() / 60.0
    }

    /// The arguments of the tool that play this run.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let options = &self.options;
        let mut arguments: Vec<String> = Vec::new();
        let mut add = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
        add("scenario", self.scenario.to_owned());
        add("nodes", options.nodes.to_string());
        add("minutes", self.minutes().to_string());
        add("seed", options.seed.to_string());
        if options.loss > 0.0 {
            add("loss", options.loss.to_string());
        }
        if !options.faults.is_empty() {
            let names: Vec<&str> = options.faults.iter().map(|fault| fault.name()).collect();
            add("faults", names.join(","));
        }
        if !options.attacks.is_empty() {
            let names: Vec<&str> = options.attacks.iter().map(|attack| attack.name()).collect();
            add("adversary", names.join(","));
        }
        if options.id_work > IdWork::NONE {
            add("id-work", options.id_work.bits().to_string());
        }
        arguments.extend(options.real_signatures.then(|| "--real".to_owned()));
        arguments.extend((!options.warm).then(|| "--join".to_owned()));
        arguments
    }

    /// The command that plays this run.
    pub(crate) fn command(&self) -> String {
        format!("cargo run --release -p elver-tools -- sim {}", self.arguments().join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use elver::sim::attack::Attack;
    use elver::sim::faults::Fault;
    use elver::sim::scenario::SCENARIOS;

    #[test]
    fn the_command_names_every_option_that_is_not_the_default() {
        let mut case = Case::new(&SCENARIOS[0], Options::small(24, 10, 7));
        let plain =
            "cargo run --release -p elver-tools -- sim --scenario steady --nodes 24 --minutes 10 --seed 7";
        assert_eq!(case.command(), plain);
        case.options.loss = 0.05;
        case.options.faults = vec![Fault::OneWay, Fault::Disk];
        case.options.attacks = vec![Attack::Erase, Attack::Sybil];
        case.options.id_work = IdWork::new(8).unwrap_or_default();
        (case.options.real_signatures, case.options.warm) = (true, false);
        let more = "--loss 0.05 --faults one-way,disk --adversary erase,sybil --id-work 8 --real --join";
        assert_eq!(case.command(), format!("{plain} {more}"));
    }
}

//! How this command is started once more, as the bundled worker.
//!
//! *Who calls it*: `demo` and `doctor`. *Invariants*: the worker is the same code as its host: the executable, or the
//! Python interpreter with the package.

use std::ffi::OsString;

use frameport::{Worker, WorkerBuilder};

/// The hidden subcommand.
pub(crate) const BUNDLED_WORKER: &str = "bundled-worker";

/// The words that start this command, without its arguments.
#[derive(Debug)]
pub(crate) struct Program(Vec<OsString>);

impl Program {
    /// Takes a command line apart: the program, and the arguments with a name in front.
    pub(crate) fn split(args: Vec<OsString>) -> (Self, Vec<OsString>) {
        let name = OsString::from("frameport");
        if let [python, dash_m, package, rest @ ..] = args.as_slice()
            && dash_m == "-m"
            && *package == name
        {
            let program = vec![python.clone(), dash_m.clone(), package.clone()];
            return (Self(program), std::iter::once(name).chain(rest.iter().cloned()).collect());
        }
        let own =
            std::env::current_exe().map_or_else(|_| args.first().cloned().unwrap_or(name.clone()), OsString::from);
        (Self(vec![own]), std::iter::once(name).chain(args.into_iter().skip(1)).collect())
    }

    /// The Python interpreter it runs in, if it does.
    pub(crate) fn python(&self) -> Option<&OsString> {
        if self.0.len() > 1 { self.0.first() } else { None }
    }

    /// The bundled worker, to be given channels.
    pub(crate) fn bundled_worker(&self) -> WorkerBuilder {
        let mut words = self.0.iter();
        let program = words.next().cloned().unwrap_or_default();
        Worker::command(program).args(words).arg(BUNDLED_WORKER).name("demo")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(words: &[&str]) -> (Vec<OsString>, Vec<OsString>) {
        let (program, args) = Program::split(words.iter().map(OsString::from).collect());
        (program.0, args)
    }

    #[test]
    fn python_starts_its_worker_as_it_was_started_itself() {
        let (program, args) = split(&["/venv/bin/python", "-m", "frameport", "demo"]);
        assert_eq!(program, ["/venv/bin/python", "-m", "frameport"]);
        assert_eq!(args, ["frameport", "demo"]);
    }

    #[test]
    fn the_executable_starts_itself_whatever_it_is_called() {
        let (program, args) = split(&["elsewhere", "run", "-m", "frameport"]);
        assert_eq!(program, [std::env::current_exe().unwrap()]);
        assert_eq!(args, ["frameport", "run", "-m", "frameport"]);
        assert_eq!(split(&[]).1, ["frameport"]);
    }
}

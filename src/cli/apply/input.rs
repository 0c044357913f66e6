//! The files that were named: read, judged as a whole, and what is to be said of them told.

use std::path::{Path, PathBuf};

use super::super::{CliError, output};
use crate::settings;
use crate::wishes::{self, FILE_BYTES_MAX, Level, Options, Reading, Source};

/// Arguments that name files.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct FileArgs {
    /// A file of services or a compose file, a folder of them, or - for stdin; may be repeated
    #[arg(short, long = "file", value_name = "FILE", required = true)]
    pub(super) file: Vec<PathBuf>,
    /// Name of the project.
    #[arg(short, long, value_name = "NAME", help = PROJECT_HELP)]
    pub(super) project: Option<String>,
    /// Namespace of services that name none [default: default]
    #[arg(long, value_name = "NAME")]
    pub(super) namespace: Option<String>,
    /// A profile of the compose file to turn on, * for all; may be repeated
    #[arg(long, value_name = "NAME")]
    profile: Vec<String>,
    /// A file of variables in place of .env beside the compose file; may be repeated
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
}

impl FileArgs {
    /// With every service of the files, whatever profile it is of.
    pub(super) fn with_all_profiles(&self) -> FileArgs {
        FileArgs {
            profile: vec!["*".to_owned()],
            ..self.clone()
        }
    }
}

const PROJECT_HELP: &str =
    "Name of the project [default: COMPOSE_PROJECT_NAME, the compose file's name, its folder]";
/// Files of a folder that are read.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];
/// What stands for stdin.
const STDIN: &str = "-";

/// What the files say. All notes are told; from `stop` on they end the command.
pub(super) fn read(args: &FileArgs, stop: Level) -> Result<Reading, CliError> {
    let sources = sources(args)?;
    let options = Options {
        project: args.project.clone(),
        namespace: args.namespace.clone(),
        profiles: args.profile.clone(),
        env_files: args.env_file.clone(),
        environment: settings::environment(),
    };
    let reading = wishes::read(&sources, &options, &|path: &Path| std::fs::read(path));
    let mut problems = 0;
    for note in &reading.notes {
        if note.level >= stop {
            problems += 1;
            output::complain(&note.to_string());
        } else if stop == Level::Refused {
            output::complain(&format!("warning: {note}"));
        }
    }
    if problems > 0 {
        let problems = if problems == 1 {
            "1 problem".to_owned()
        } else {
            format!("{problems} problems")
        };
        return Err(CliError::Wrong(format!("{problems}: nothing is done")));
    }
    if reading.wishes.is_empty() && reading.off.is_empty() && reading.project.is_none() {
        return Err(CliError::Wrong("the files name no services".to_owned()));
    }
    Ok(reading)
}

/// All files; everything that cannot be read is told at once.
fn sources(args: &FileArgs) -> Result<Vec<Source>, CliError> {
    let mut sources = Vec::new();
    let mut failed = 0;
    for path in &args.file {
        for (path, text) in texts(path) {
            match text {
                Ok(text) => sources.push(text),
                Err(problem) => {
                    failed += 1;
                    output::complain(&format!("{}: {problem}", path.display()));
                }
            }
        }
    }
    match failed {
        0 => Ok(sources),
        _ => Err(CliError::Wrong(
            "not all files can be read: nothing is done".to_owned(),
        )),
    }
}

/// The file, or those of the folder in the order of their names.
fn texts(path: &Path) -> Vec<(PathBuf, Result<Source, String>)> {
    if !path.is_dir() {
        return vec![(path.to_owned(), source(path))];
    }
    let is_read = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let extension = path.extension().unwrap_or_default().to_string_lossy();
        !name.starts_with('.') && EXTENSIONS.contains(&extension.as_ref()) && path.is_file()
    };
    let entries = match std::fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
        Ok(entries) => entries,
        Err(error) => return vec![(path.to_owned(), Err(error.to_string()))],
    };
    let paths = entries.into_iter().map(|entry| entry.path());
    let mut paths: Vec<PathBuf> = paths.filter(is_read).collect();
    paths.sort();
    if paths.is_empty() {
        let problem = "the folder has no files named *.yaml, *.yml or *.json".to_owned();
        return vec![(path.to_owned(), Err(problem))];
    }
    paths
        .into_iter()
        .map(|path| (path.clone(), source(&path)))
        .collect()
}

fn source(path: &Path) -> Result<Source, String> {
    let stdin = path == Path::new(STDIN);
    let bytes = if stdin {
        std::io::read_to_string(std::io::stdin().lock()).map(String::into_bytes)
    } else {
        std::fs::read(path)
    };
    let bytes = bytes.map_err(|error| error.to_string())?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(format!("it has more than {FILE_BYTES_MAX} bytes"));
    }
    let text = String::from_utf8(bytes).map_err(|_| "it is no text in UTF-8".to_owned())?;
    let parent = path
        .parent()
        .filter(|parent| !stdin && !parent.as_os_str().is_empty());
    let here = parent.unwrap_or_else(|| Path::new("."));
    // The folder's own name makes the project's, so `..` and links are followed.
    let folder = std::fs::canonicalize(here).map_err(|error| error.to_string())?;
    let name = if stdin {
        "stdin".to_owned()
    } else {
        path.display().to_string()
    };
    Ok(Source { name, folder, text })
}

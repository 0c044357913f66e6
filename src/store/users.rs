//! The users of Redis, from the one template `redis/users.acl`. Pure but for the randomness given.
//!
//! A file of users holds SHA-256 sums of passwords alone. A user may have two: who rotates gives all
//! processes the new one while the old one still lets them in.
//!
//! Invariant: an agent's user has the keys of its own node alone, where the template has all nodes'.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::model::name::is_node_name;

const TEMPLATE: &str = include_str!("../../redis/users.acl");
/// Key patterns of all nodes in the template, and those of one node in their place.
const NODE_KEYS: [(&str, &str); 7] = [
    ("~pq:*", "~pq:NODE"),
    ("~rq:*", "~rq:NODE"),
    ("~cs:*", "~cs:NODE ~cs:NODE:held"),
    ("~node:*", "~node:NODE"),
    ("~nq:*", "~nq:NODE"),
    ("~session:*", "~session:NODE:*"),
    ("~sessions:*", "~sessions:NODE"),
];
/// The user in the template from which those of agents are made.
const AGENT: &str = "agent";
/// Bytes of randomness in a password.
const PASSWORD_BYTES: usize = 24;
/// Passwords that a user has at once.
const PASSWORDS_MAX: usize = 2;

/// What is to be made.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Nodes whose agents get a user each.
    pub nodes: Vec<String>,
    /// The cluster's key prefix.
    pub prefix: String,
    /// Give a new password to all who have one already, beside that.
    pub rotate: bool,
}

/// Users, and the passwords that were made for them.
#[derive(Debug, Clone, Default)]
pub struct Users {
    /// By name, in the order of the template: what follows the name in a file of users.
    lines: Vec<(String, String)>,
    /// New passwords by user; nobody else has them.
    pub passwords: BTreeMap<String, String>,
}

/// Why no users are made.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// A node's name is none.
    #[error("{0:?} is no node's name: letters, digits, `-`, `_` and `.`, at most 63")]
    NodeName(String),
    /// A line of the file that is there already is not understood.
    #[error("line {line} of the users that are there begins with no user: {text:?}")]
    Line {
        /// Which.
        line: usize,
        /// Its begin.
        text: String,
    },
}

impl Users {
    /// The users of the template and of each agent. Those of `existing`, a file made so before, keep
    /// their passwords, and its agents stay; rights are the template's again.
    ///
    /// # Errors
    /// A node's name or the file is not understood.
    pub fn make(
        wanted: &Wanted,
        existing: &str,
        random: impl FnMut(&mut [u8]),
    ) -> Result<Users, UsersError> {
        let known = passwords_of(existing)?;
        let mut maker = Maker {
            rotate: wanted.rotate,
            known,
            random,
            made: Users::default(),
        };
        let prefix = &wanted.prefix;
        let mut nodes = wanted.nodes.clone();
        for name in maker.known.keys() {
            nodes.extend(name.strip_prefix("agent-").map(str::to_owned));
        }
        nodes.sort();
        nodes.dedup();
        if let Some(wrong) = nodes.iter().find(|node| !is_node_name(node)) {
            return Err(UsersError::NodeName(wrong.clone()));
        }
        for line in TEMPLATE.lines() {
            let mut words = line.split(' ').skip(1);
            let Some(name) = words.next() else { continue };
            let rights: Vec<&str> = words.collect();
            if name == AGENT {
                for node in &nodes {
                    let rights = rights.iter().map(|word| of_node(word, node));
                    maker.add(&format!("agent-{node}"), rights, prefix);
                }
            } else {
                maker.add(name, rights.iter().map(|word| (*word).to_owned()), prefix);
            }
        }
        Ok(maker.made)
    }

    /// As the file that `aclfile` names.
    pub fn file(&self) -> String {
        let mut text = String::new();
        for (name, rights) in &self.lines {
            // Writing into a String cannot fail.
            let _ = writeln!(text, "user {name} {rights}");
        }
        text
    }

    /// As commands for a server that runs; each makes its user anew.
    pub fn commands(&self) -> String {
        let mut text = String::new();
        for (name, rights) in &self.lines {
            let _ = writeln!(text, "ACL SETUSER {name} reset {rights}");
        }
        text
    }
}

/// Makes one user after another.
struct Maker<R> {
    rotate: bool,
    known: BTreeMap<String, Vec<String>>,
    random: R,
    made: Users,
}

impl<R: FnMut(&mut [u8])> Maker<R> {
    fn add(&mut self, name: &str, rights: impl Iterator<Item = String>, prefix: &str) {
        let mut words = Vec::new();
        for word in rights {
            if word.starts_with('>') {
                words.extend(self.passwords(name));
            } else {
                words.push(with_prefix(&word, prefix));
            }
        }
        self.made.lines.push((name.to_owned(), words.join(" ")));
    }

    /// The sums of a user's passwords, a new one last.
    fn passwords(&mut self, name: &str) -> Vec<String> {
        let mut sums = self.known.get(name).cloned().unwrap_or_default();
        if sums.is_empty() || self.rotate {
            let mut bytes = [0; PASSWORD_BYTES];
            (self.random)(&mut bytes);
            let password = hex(&bytes);
            sums.push(sum(&password));
            self.made.passwords.insert(name.to_owned(), password);
        }
        sums.drain(..sums.len().saturating_sub(PASSWORDS_MAX));
        sums
    }
}

/// A right of the template's agent, for the agent of one node.
fn of_node(word: &str, node: &str) -> String {
    let own = NODE_KEYS.iter().find(|(all, _)| *all == word);
    own.map_or_else(|| word.to_owned(), |(_, own)| own.replace("NODE", node))
}

/// A key pattern with the prefix put before; all else as it is. One right may be several patterns.
fn with_prefix(words: &str, prefix: &str) -> String {
    let pattern = |word: &str| match word.split_once('~') {
        Some((kind, keys)) => format!("{kind}~{prefix}{keys}"),
        None => word.to_owned(),
    };
    let words: Vec<String> = words.split(' ').map(pattern).collect();
    words.join(" ")
}

/// Sums of the passwords in a file of users, by user.
fn passwords_of(file: &str) -> Result<BTreeMap<String, Vec<String>>, UsersError> {
    let mut known = BTreeMap::new();
    for (at, line) in file.lines().enumerate() {
        let mut words = line.split_whitespace();
        let (first, name) = (words.next(), words.next());
        match (first, name) {
            (None, _) => {}
            (Some("user"), Some(name)) => {
                let sums = words.filter(|word| word.starts_with('#'));
                known.insert(name.to_owned(), sums.map(str::to_owned).collect());
            }
            _ => {
                return Err(UsersError::Line {
                    line: at + 1,
                    text: line.chars().take(20).collect(),
                });
            }
        }
    }
    Ok(known)
}

fn sum(password: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, password.as_bytes());
    format!("#{}", hex(digest.as_ref()))
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(wanted: &Wanted, existing: &str, seed: u8) -> Users {
        let mut next = seed;
        let random = |bytes: &mut [u8]| {
            next += 1;
            bytes.fill(next);
        };
        Users::make(wanted, existing, random).unwrap()
    }

    fn wanted(nodes: &[&str]) -> Wanted {
        Wanted {
            nodes: nodes.iter().map(|node| (*node).to_owned()).collect(),
            ..Wanted::default()
        }
    }

    fn line<'a>(file: &'a str, name: &str) -> Vec<&'a str> {
        let begin = format!("user {name} ");
        let line = file.lines().find(|line| line.starts_with(&begin));
        line.unwrap_or_default().split(' ').collect()
    }

    #[test]
    fn the_sum_is_that_of_redis() {
        let known = "#2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
        assert_eq!(sum("secret"), known);
    }

    #[test]
    fn every_placeholder_of_a_node_is_in_the_template() {
        let agent = line(TEMPLATE, AGENT);
        for (all, _) in NODE_KEYS {
            assert!(agent.contains(&all), "{all}");
        }
    }

    #[test]
    fn an_agent_has_the_keys_of_its_node_and_nobody_keeps_the_templates_password() {
        let users = make(&wanted(&["n2", "n1", "n1"]), "", 0);
        let file = users.file();
        assert!(
            !file.contains("change-me") && !file.contains("user agent "),
            "{file}"
        );
        assert!(file.starts_with("user default off\n"), "{file}");
        let n1 = line(&file, "agent-n1");
        for key in [
            "~pq:n1",
            "~rq:n1",
            "~cs:n1",
            "~cs:n1:held",
            "~node:n1",
            "~session:n1:*",
        ] {
            assert!(n1.contains(&key), "{key}: {n1:?}");
        }
        for foreign in ["~pq:*", "~session:*", "~node:*", "~sq:*", "~*"] {
            assert!(!n1.contains(&foreign), "{foreign}: {n1:?}");
        }
        let names: Vec<&str> = users.passwords.keys().map(String::as_str).collect();
        let all = [
            "agent-n1",
            "agent-n2",
            "api",
            "operator",
            "readonly",
            "replica",
            "scheduler",
            "sentinel",
        ];
        assert_eq!(names, all);
        for (name, password) in &users.passwords {
            assert!(
                line(&file, name).contains(&sum(password).as_str()),
                "{name}"
            );
            assert!(!file.contains(password.as_str()));
        }
    }

    #[test]
    fn a_prefix_goes_before_every_key_and_nothing_else() {
        let prefixed = Wanted {
            prefix: "{a}:".to_owned(),
            ..wanted(&["n1"])
        };
        let file = make(&prefixed, "", 0).file();
        let n1 = line(&file, "agent-n1");
        for key in ["~{a}:pq:n1", "~{a}:cs:n1:held", "%W~{a}:sq", "~{a}:cluster"] {
            assert!(n1.contains(&key), "{key}: {n1:?}");
        }
        assert!(line(&file, "readonly").contains(&"%R~{a}:*"));
        let bare = |word: &str| word.starts_with(['~', '%']) && !word.contains("~{a}:");
        assert!(!file.split([' ', '\n']).any(bare), "{file}");
    }

    #[test]
    fn who_is_there_keeps_the_password_until_it_was_rotated_twice() {
        let first = make(&wanted(&["n1"]), "", 0);
        let again = make(&wanted(&["n2"]), &first.file(), 100);
        assert_eq!(again.passwords.keys().collect::<Vec<_>>(), ["agent-n2"]);
        assert_eq!(
            line(&again.file(), "agent-n1"),
            line(&first.file(), "agent-n1")
        );

        let rotate = Wanted {
            rotate: true,
            ..Wanted::default()
        };
        let rotated = make(&rotate, &first.file(), 50);
        let twice = make(&rotate, &rotated.file(), 150);
        let sums = |users: &Users| -> Vec<String> {
            let file = users.file();
            let api = line(&file, "api").into_iter();
            api.filter(|word| word.starts_with('#'))
                .map(str::to_owned)
                .collect()
        };
        let of = |users: &Users| sum(&users.passwords["api"]);
        assert_eq!(sums(&rotated), [of(&first), of(&rotated)]);
        assert_eq!(sums(&twice), [of(&rotated), of(&twice)]);
    }

    #[test]
    fn what_is_no_name_and_no_users_file_is_refused() {
        for name in ["", "a b", "a*", "a:b", "../x"] {
            let error = Users::make(&wanted(&[name]), "", |_| {});
            assert!(matches!(error, Err(UsersError::NodeName(_))), "{name}");
        }
        let error = Users::make(&wanted(&[]), "user api on\nnonsense", |_| {});
        assert!(matches!(error, Err(UsersError::Line { line: 2, .. })));
    }

    #[test]
    fn a_running_server_is_told_by_commands() {
        let commands = make(&wanted(&["n1"]), "", 0).commands();
        assert!(
            commands.starts_with("ACL SETUSER default reset off\n"),
            "{commands}"
        );
        assert!(
            commands.contains("ACL SETUSER agent-n1 reset on #"),
            "{commands}"
        );
    }
}

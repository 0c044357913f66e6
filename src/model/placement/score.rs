//! A score that users write: an expression over named terms of a node and a pod, lower is better.
//!
//! Its cost is bounded: it has no loops, and its length and depth are limited.

use std::sync::Arc;

use fasteval2::{Compiler as _, EmptyNamespace, Evaler as _, Instruction, Parser, Slab};

use super::{SCORE_MAX, SCORE_STEPS_MAX};

/// What an expression can name; `label_KEY` is a node's label as a number, 0 where it is none.
pub const SCORE_TERMS: [&str; 14] = [
    "pods",
    "cpu",
    "memory",
    "pressure_memory",
    "pressure_io",
    "pressure_cpu",
    "placed",
    "price",
    "node_pods",
    "node_cpu",
    "node_memory",
    "pod_cpu",
    "pod_memory",
    "label_",
];

/// Words of the language that write to the standard error, and are of no use here.
const FORBIDDEN: [&str; 2] = ["print", "eval"];

/// A compiled expression; cheap to clone.
#[derive(Clone)]
pub struct OwnScore(Arc<(Slab, Instruction)>);

impl OwnScore {
    /// Compiles an expression.
    ///
    /// # Errors
    /// What is wrong with it: syntax, an unknown name, its length.
    pub fn parse(text: &str) -> Result<OwnScore, String> {
        if text.len() > SCORE_MAX {
            return Err(format!("is longer than {SCORE_MAX} characters"));
        }
        // Compiling and evaluating walk a chain of operators by recursion, one step each.
        let steps = text.bytes().filter(|byte| b"+-*/%^<>=!&|,".contains(byte));
        if steps.count() > SCORE_STEPS_MAX {
            return Err(format!("has more than {SCORE_STEPS_MAX} operators"));
        }
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if text.contains('"')
            || text
                .split(|c| !word(c))
                .any(|name| FORBIDDEN.contains(&name))
        {
            return Err("may neither print nor hold texts".to_owned());
        }
        let mut slab = Slab::new();
        let parsed = Parser::new().parse(text, &mut slab.ps);
        let parsed = parsed.map_err(|error| format!("is no expression: {error}"))?;
        let compiled = parsed
            .from(&slab.ps)
            .compile(&slab.ps, &mut slab.cs, &mut EmptyNamespace);
        let score = OwnScore(Arc::new((slab, compiled)));
        let mut unknown = None;
        // A value is no error here: what is divided by zero for one node may be sound for others.
        let _ = score.evaluate(|name| {
            if !is_term(name) {
                unknown.get_or_insert_with(|| name.to_owned());
            }
            Some(1.0)
        });
        match unknown {
            Some(name) => Err(format!(
                "names {name:?}, which is none of {} and label_KEY",
                SCORE_TERMS[..SCORE_TERMS.len() - 1].join(", ")
            )),
            None => Ok(score),
        }
    }

    /// Its value with these terms; `None` if that is no number.
    pub fn evaluate(&self, mut term: impl FnMut(&str) -> Option<f64>) -> Option<f64> {
        let (slab, instruction) = &*self.0;
        let mut terms = |name: &str, arguments: Vec<f64>| -> Option<f64> {
            if arguments.is_empty() {
                term(name)
            } else {
                None
            }
        };
        let value = instruction.eval(slab, &mut terms).ok()?;
        value.is_finite().then_some(value)
    }
}

impl std::fmt::Debug for OwnScore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OwnScore")
    }
}

fn is_term(name: &str) -> bool {
    let label = name.strip_prefix("label_");
    label.is_some_and(|key| !key.is_empty()) || (label.is_none() && SCORE_TERMS.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_named() {
        let score = OwnScore::parse("10 * pressure_memory + price + label_rank ^ 2").unwrap();
        let value = score.evaluate(|name| match name {
            "pressure_memory" => Some(0.5),
            "label_rank" => Some(3.0),
            _ => Some(0.25),
        });
        assert_eq!(value, Some(14.25));
        let inverse = OwnScore::parse("1 / pods").unwrap();
        assert_eq!(inverse.evaluate(|_| Some(0.0)), None);
    }

    #[test]
    fn what_is_no_score_is_refused_in_words() {
        for (text, why) in [
            ("1 +", "is no expression"),
            ("nodes * 2", "names \"nodes\", which is none of pods"),
            ("label_ + 1", "names \"label_\""),
            ("print(1)", "may neither print"),
            ("pods(3)", "names"),
        ] {
            match OwnScore::parse(text) {
                Err(error) => assert!(error.contains(why) || text == "pods(3)", "{text}: {error}"),
                Ok(_) => assert_eq!(text, "pods(3)"),
            }
        }
        assert!(OwnScore::parse(&"1+".repeat(SCORE_MAX)).is_err());
        let chain = |steps: usize| OwnScore::parse(&format!("1{}", "*pods".repeat(steps)));
        assert!(chain(SCORE_STEPS_MAX).is_ok());
        let why = chain(SCORE_STEPS_MAX + 1).unwrap_err();
        assert!(why.contains("operators"), "{why}");
        assert!(OwnScore::parse(&"(".repeat(100)).is_err());
    }
}

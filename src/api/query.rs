//! Query and path parameters: read strictly, with every broken rule told at once.

use axum::extract::Query;
use axum::http::Uri;

use super::problem::{Kind, Problem};
use crate::model::name::{NAME_RULE, NODE_NAME_RULE, is_name, is_node_name};
use crate::model::{ServiceKey, Violation};
use crate::store::PAGE_MAX;

/// Items on a page where no limit is said.
const PAGE_DEFAULT: usize = 100;
/// Longest cursor: two names, a number and a pod's id.
const CURSOR_MAX: usize = 300;
/// What is allowed as a cursor.
const CURSOR_RULE: &str = "the cursor of an earlier page, unchanged";

/// The parameters of one request.
pub(super) struct Parameters {
    pairs: Vec<(String, String)>,
    violations: Vec<Violation>,
}

impl Parameters {
    /// Those of `uri`; what is not `known`, or given twice, is a violation.
    pub(super) fn read(uri: &Uri, known: &[&str]) -> Parameters {
        let mut violations = Vec::new();
        let pairs = match Query::<Vec<(String, String)>>::try_from_uri(uri) {
            Ok(Query(pairs)) => pairs,
            Err(_) => {
                let given = uri.query().unwrap_or_default();
                violations.push(Violation::new("?", given, "name=value&name=value"));
                Vec::new()
            }
        };
        for (position, (name, _)) in pairs.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                let allowed = crate::model::explain::of_known(name, known);
                violations.push(Violation::new(name, name, allowed));
            } else if pairs[..position].iter().any(|(earlier, _)| earlier == name) {
                violations.push(Violation::new(name, "several times", "once"));
            }
        }
        Parameters { pairs, violations }
    }

    /// A parameter through `parse`; what that refuses is a violation.
    pub(super) fn get<T>(
        &mut self,
        name: &str,
        rule: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let (_, given) = self.pairs.iter().find(|(known, _)| known == name)?;
        let parsed = parse(given);
        if parsed.is_none() {
            self.violations.push(Violation::new(name, given, rule));
        }
        parsed
    }

    /// The namespace, if one is given.
    pub(super) fn namespace(&mut self) -> Option<String> {
        self.get("namespace", NAME_RULE, |name| {
            is_name(name).then(|| name.to_owned())
        })
    }

    /// The service, if one is given: by its name, of `namespace` or the default one, or by both.
    pub(super) fn service(&mut self, namespace: Option<&str>) -> Option<ServiceKey> {
        let service = self.get("service", NAME_RULE, |text| {
            if text.contains('/') {
                return ServiceKey::parse(text);
            }
            is_name(text).then(|| ServiceKey {
                namespace: namespace
                    .unwrap_or(ServiceKey::DEFAULT_NAMESPACE)
                    .to_owned(),
                name: text.to_owned(),
            })
        });
        if let (Some(service), Some(namespace)) = (&service, namespace)
            && service.namespace != *namespace
        {
            let allowed = format!("{}, as service says", service.namespace);
            self.refuse(Violation::new("namespace", namespace, allowed));
        }
        service
    }

    /// The node, if one is given.
    pub(super) fn node(&mut self) -> Option<String> {
        self.get("node", NODE_NAME_RULE, |name| {
            is_node_name(name).then(|| name.to_owned())
        })
    }

    /// A parameter that is `true` or `false`; not given is false.
    pub(super) fn flag(&mut self, name: &str) -> bool {
        let given = self.get(name, "true or false", |text| text.parse().ok());
        given.unwrap_or(false)
    }

    /// Items wanted on the page.
    pub(super) fn limit(&mut self) -> usize {
        self.count("limit", 1).unwrap_or(PAGE_DEFAULT)
    }

    /// A number of items, at least `least`.
    pub(super) fn count(&mut self, name: &str, least: usize) -> Option<usize> {
        let rule = format!("a whole number from {least} to {PAGE_MAX}");
        self.get(name, &rule, |text| {
            text.parse()
                .ok()
                .filter(|count| (least..=PAGE_MAX).contains(count))
        })
    }

    /// Where the page begins; `parse` tells a cursor from what is none.
    pub(super) fn cursor<T>(&mut self, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        self.get("cursor", CURSOR_RULE, |text| {
            if text.len() > CURSOR_MAX {
                return None;
            }
            parse(text)
        })
    }

    /// Adds a violation that only the handler can see.
    pub(super) fn refuse(&mut self, violation: Violation) {
        self.violations.push(violation);
    }

    /// The problem of all violations, if there are any.
    pub(super) fn check(self) -> Result<(), Problem> {
        if self.violations.is_empty() {
            return Ok(());
        }
        Err(Problem::of_violations(
            Kind::InvalidRequest,
            self.violations,
        ))
    }
}

/// Checks the name of a path.
pub(super) fn check_name(parameters: &mut Parameters, name: &str) {
    if !is_name(name) {
        parameters.refuse(Violation::new("name", name, NAME_RULE));
    }
}

/// The service of a path, with the namespace of `?namespace=` or the default one.
pub(super) fn service_key(name: &str, uri: &Uri) -> Result<ServiceKey, Problem> {
    let mut parameters = Parameters::read(uri, &["namespace"]);
    let namespace = parameters.namespace();
    check_name(&mut parameters, name);
    parameters.check()?;
    Ok(ServiceKey {
        namespace: namespace.unwrap_or_else(|| ServiceKey::DEFAULT_NAMESPACE.to_owned()),
        name: name.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let uri: Uri = "/v1/pods?limit=0&nmespace=a&cursor=x&cursor=y&namespace=A"
            .parse()
            .unwrap();
        let mut parameters = Parameters::read(&uri, &["limit", "namespace", "cursor"]);
        assert_eq!(parameters.limit(), PAGE_DEFAULT);
        assert_eq!(parameters.namespace(), None);
        let problem = serde_json::to_value(parameters.check().unwrap_err()).unwrap();
        let violations = problem["violations"].as_array().unwrap();
        let fields: Vec<_> = violations.iter().map(|broken| &broken["field"]).collect();
        assert_eq!(fields, ["nmespace", "cursor", "limit", "namespace"]);
        let allowed = violations[0]["allowed"].as_str().unwrap();
        assert!(allowed.starts_with("namespace?"), "{allowed}");
    }
}

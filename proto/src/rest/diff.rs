//! The difference of two JSON values as a JSON patch (RFC 6902).

use serde::Serialize;
use serde_json::Value as Json;

/// One operation of a patch.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum PatchOperation {
    Add { path: String, value: Json },
    Remove { path: String },
    Replace { path: String, value: Json },
}

/// What turns `from` into `to`; none stands for an entry that does not exist. Empty when they are equal.
pub fn patch(from: Option<&Json>, to: Option<&Json>) -> Vec<PatchOperation> {
    let mut operations = Vec::new();
    match (from, to) {
        (None, None) => {}
        (None, Some(value)) => {
            operations.push(PatchOperation::Add { path: String::new(), value: value.clone() })
        }
        (Some(_), None) => operations.push(PatchOperation::Remove { path: String::new() }),
        (Some(from), Some(to)) => compare(&mut String::new(), from, to, &mut operations),
    }
    operations
}

/// Depth is bounded by that of the values.
fn compare(path: &mut String, from: &Json, to: &Json, operations: &mut Vec<PatchOperation>) {
    match (from, to) {
        _ if from == to => {}
        (Json::Object(from), Json::Object(to)) => {
            for name in from.keys().filter(|name| !to.contains_key(*name)) {
                below(path, name, |path| operations.push(PatchOperation::Remove { path: path.clone() }));
            }
            for (name, value) in to {
                below(path, name, |path| match from.get(name) {
                    Some(before) => compare(path, before, value, operations),
                    None => {
                        operations.push(PatchOperation::Add { path: path.clone(), value: value.clone() });
                    }
                });
            }
        }
        (Json::Array(from), Json::Array(to)) => compare_arrays(path, from, to, operations),
        _ => operations.push(PatchOperation::Replace { path: path.clone(), value: to.clone() }),
    }
}

/// Equal ends are left alone; what lies between is compared place by place, then lengthened or shortened.
fn compare_arrays(path: &mut String, from: &[Json], to: &[Json], operations: &mut Vec<PatchOperation>) {
    let start = from.iter().zip(to).take_while(|(a, b)| a == b).count();
    let (from, to) = (&from[start..], &to[start..]);
    let end = from.iter().rev().zip(to.iter().rev()).take_while(|(a, b)| a == b).count();
    let (from, to) = (&from[..from.len() - end], &to[..to.len() - end]);
    for (n, (before, after)) in from.iter().zip(to).enumerate() {
        below(path, &(start + n).to_string(), |path| compare(path, before, after, operations));
    }
    for n in (to.len()..from.len()).rev() {
        below(path, &(start + n).to_string(), |path| {
            operations.push(PatchOperation::Remove { path: path.clone() });
        });
    }
    for (n, value) in to.iter().enumerate().skip(from.len()) {
        below(path, &(start + n).to_string(), |path| {
            operations.push(PatchOperation::Add { path: path.clone(), value: value.clone() });
        });
    }
}

/// One step down a JSON pointer (RFC 6901), and back.
fn below(path: &mut String, name: &str, then: impl FnOnce(&mut String)) {
    let length = path.len();
    path.push('/');
    path.push_str(&name.replace('~', "~0").replace('/', "~1"));
    then(path);
    path.truncate(length);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn apply(value: &mut Json, operation: PatchOperation) {
        let (path, new, replace) = match operation {
            PatchOperation::Add { path, value } => (path, Some(value), false),
            PatchOperation::Replace { path, value } => (path, Some(value), true),
            PatchOperation::Remove { path } => (path, None, false),
        };
        let Some((parent, name)) = path.rsplit_once('/') else {
            *value = new.unwrap();
            return;
        };
        let name = name.replace("~1", "/").replace("~0", "~");
        match value.pointer_mut(parent).unwrap() {
            Json::Object(object) => match new {
                Some(new) => drop(object.insert(name, new)),
                None => drop(object.remove(&name).unwrap()),
            },
            Json::Array(array) => {
                let at: usize = name.parse().unwrap();
                match new {
                    Some(new) if replace => array[at] = new,
                    Some(new) => array.insert(at, new),
                    None => drop(array.remove(at)),
                }
            }
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {
                panic!("{parent} has no members")
            }
        }
    }

    #[test]
    fn a_patch_turns_one_value_into_the_other() {
        let values = [
            json!(null),
            json!({"a": 1, "b/c": {"d~e": [1, 2, 3]}, "gone": true}),
            json!({"a": 1.0, "b/c": {"d~e": [0, 1, 2, 3]}, "new": null}),
            json!({"b/c": {"d~e": [1, 3]}}),
            json!([{"x": 1}, {"x": 2}, 3]),
            json!([{"x": 2}, 3]),
            json!([]),
        ];
        for from in &values {
            for to in &values {
                let operations = patch(Some(from), Some(to));
                assert_eq!(operations.is_empty(), from == to);
                let mut value = from.clone();
                operations.into_iter().for_each(|operation| apply(&mut value, operation));
                assert_eq!(&value, to);
            }
        }
    }

    #[test]
    fn operations_look_as_the_rfc_says() {
        let operations = patch(Some(&json!({"a": 1})), Some(&json!({"a": 2, "b": 3})));
        let expected =
            json!([{"op": "replace", "path": "/a", "value": 2}, {"op": "add", "path": "/b", "value": 3}]);
        assert_eq!(serde_json::to_value(operations).unwrap(), expected);
        assert_eq!(
            serde_json::to_value(patch(Some(&json!(1)), None)).unwrap(),
            json!([{"op": "remove", "path": ""}])
        );
    }
}

//! Where a view and the model differ, in words.

use crate::claim::{Claims, checksum};

/// How a view compares with the model.
#[derive(Debug)]
pub struct Comparison {
    /// The view's name.
    pub view: String,
    /// Claims in the view.
    pub claims: usize,
    /// The view's checksum.
    pub checksum: String,
    /// The first few differences; empty when they agree.
    pub differences: Vec<String>,
}

impl Comparison {
    /// Whether the view is exactly what the model says.
    pub fn agrees(&self) -> bool {
        self.differences.is_empty()
    }
}

/// Compares a view with the model, claim by claim and field by field; tells at most `most` differences.
pub fn compare(view: &str, found: &Claims, model: &Claims, most: usize) -> Comparison {
    let mut differences = Vec::new();
    for (key, wanted) in model {
        if differences.len() >= most {
            break;
        }
        let place = format!("{}:{}", key.0, key.1);
        match found.get(key) {
            None => differences.push(format!("{place} is missing")),
            Some(claim) if claim == wanted => {}
            Some(claim) => {
                for ((name, is), (_, should)) in claim.fields().into_iter().zip(wanted.fields()) {
                    if is != should {
                        differences.push(format!("{place}: {name} is {is}, should be {should}"));
                    }
                }
            }
        }
    }
    for key in found.keys().filter(|key| !model.contains_key(*key)) {
        if differences.len() >= most {
            break;
        }
        differences.push(format!("{}:{} should not be there", key.0, key.1));
    }
    let checksum = checksum(found);
    if differences.is_empty() && checksum != crate::claim::checksum(model) {
        differences.push("the checksums differ".to_owned());
    }
    Comparison { view: view.to_owned(), claims: found.len(), checksum, differences }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claim::Claim;

    #[test]
    fn each_kind_of_difference_is_told() {
        let key = |c: &str| ("t".to_owned(), c.to_owned());
        let model: Claims = [(key("a"), Claim::default()), (key("b"), Claim::default())].into();
        assert!(compare("v", &model, &model, 10).agrees());
        let found: Claims =
            [(key("b"), Claim { note_count: 2, ..Claim::default() }), (key("x"), Claim::default())].into();
        let mut differences = compare("v", &found, &model, 10).differences;
        differences.sort();
        assert_eq!(
            differences,
            ["t:a is missing", "t:b: note_count is 2, should be 0", "t:x should not be there"]
        );
    }
}

//! Some of a topic's partitions, as one writes them: `0,3-5`.

use std::{collections::BTreeSet, str::FromStr};

/// The highest partition number that can be named.
const MAX_PARTITION: i32 = 99_999;

/// Numbers of partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionSet(BTreeSet<i32>);

impl PartitionSet {
    /// Those of `known` that are in the set; an error names what isn't known.
    pub fn of(&self, known: &[i32]) -> Result<Vec<i32>, String> {
        match self.0.iter().find(|partition| !known.contains(partition)) {
            Some(stranger) => Err(format!("there is no partition {stranger}; the topic has {}", known.len())),
            None => Ok(self.0.iter().copied().collect()),
        }
    }
}

impl FromStr for PartitionSet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| match text.trim().parse::<i32>() {
            Ok(number @ 0..=MAX_PARTITION) => Ok(number),
            _ => Err(format!("{text:?} is no partition; write them as 0,3-5")),
        };
        let mut partitions = BTreeSet::new();
        for part in text.split(',') {
            match part.split_once('-') {
                None => {
                    partitions.insert(number(part)?);
                }
                Some((first, last)) => {
                    let (first, last) = (number(first)?, number(last)?);
                    if first > last {
                        return Err(format!("{part:?} goes backwards; write the smaller number first"));
                    }
                    partitions.extend(first..=last);
                }
            }
        }
        Ok(Self(partitions))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_ranges() {
        let set: PartitionSet = "5, 0,3-4".parse().unwrap();
        assert_eq!(set.of(&[0, 1, 2, 3, 4, 5]), Ok(vec![0, 3, 4, 5]));
        assert!(set.of(&[0, 1, 2]).unwrap_err().contains("no partition 3"));
        for bad in ["", "a", "1,", "-1", "3-", "5-3", "1-2-3", "100000"] {
            assert!(bad.parse::<PartitionSet>().is_err(), "{bad}");
        }
    }
}

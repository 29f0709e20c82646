//! A delivery in parts that fit into one request each.

use uuid::Uuid;

/// Splits records into runs of at most `records_max`, and of at most `bytes_max` as `size` counts them; one that is bigger
/// than that stands alone.
pub fn parts<T>(records: &[T], records_max: usize, bytes_max: usize, size: impl Fn(&T) -> usize) -> Vec<&[T]> {
    let mut parts = Vec::new();
    let mut rest = records;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take(records_max).take_while(|record| {
            bytes += size(record);
            bytes <= bytes_max
        });
        let (part, behind) = rest.split_at(fits.count().max(1));
        parts.push(part);
        rest = behind;
    }
    parts
}

/// The id of a part: that of the delivery for the first, and for the others one that follows from it.
pub fn id_of_part(delivery: Uuid, number: usize) -> Uuid {
    match number {
        0 => delivery,
        _ => Uuid::new_v5(&delivery, number.to_string().as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_hold_everything_in_order_and_no_more_than_they_may() {
        let records = [3, 3, 3, 10, 1, 1, 1];
        let sizes = |records_max, bytes_max| -> Vec<Vec<usize>> {
            parts(&records, records_max, bytes_max, |size| *size)
                .into_iter()
                .map(<[usize]>::to_vec)
                .collect()
        };
        assert_eq!(sizes(10, 6), [vec![3, 3], vec![3], vec![10], vec![1, 1, 1]]);
        assert_eq!(sizes(2, 100), [vec![3, 3], vec![3, 10], vec![1, 1], vec![1]]);
        assert!(parts(&[0_usize; 0], 1, 1, |size| *size).is_empty());
    }

    #[test]
    fn a_part_has_the_same_id_whenever_it_is_sent() {
        let delivery = Uuid::from_u128(7);
        assert_eq!(id_of_part(delivery, 0), delivery);
        assert_eq!(id_of_part(delivery, 1), id_of_part(delivery, 1));
        assert_ne!(id_of_part(delivery, 1), id_of_part(delivery, 2));
    }
}

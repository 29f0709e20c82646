//! Names of Rust items from names of the models.

/// Names that would hide something the generated code uses.
const TAKEN: &[&str] = &[
    "Option",
    "Vec",
    "String",
    "Box",
    "Result",
    "BTreeMap",
    "Bytes",
    "Timestamp",
    "Value",
    "Schema",
];

const KEYWORDS: &[&str] = &[
    "type", "match", "ref", "move", "use", "in", "for", "loop", "where", "mod", "fn", "impl", "as", "async", "box",
    "const", "enum", "final", "if", "else", "self", "static", "struct", "super", "trait", "true", "false", "yield",
];

/// A structure's or enumeration's type.
pub fn type_name(name: &str) -> String {
    let mut letters = name.chars();
    let first = letters.next().map(|c| c.to_ascii_uppercase());
    let upper: String = first.into_iter().chain(letters).collect();
    if TAKEN.contains(&upper.as_str()) {
        return format!("{upper}Shape");
    }
    upper
}

/// A field, from a member such as `KMSKeyId` (`kms_key_id`) or `_HLS_msn` (`hls_msn`).
pub fn field_name(member: &str) -> String {
    let member = member.trim_start_matches('_');
    let letters: Vec<char> = member.replace("ARNs", "Arns").replace("URIs", "Uris").chars().collect();
    let mut name = String::new();
    for (i, letter) in letters.iter().enumerate() {
        let before = i.checked_sub(1).and_then(|i| letters.get(i));
        let after = letters.get(i + 1);
        let starts_word = letter.is_ascii_uppercase()
            && before.is_some_and(|b| !b.is_ascii_uppercase() || after.is_some_and(|a| a.is_ascii_lowercase()));
        if starts_word && !name.ends_with('_') {
            name.push('_');
        }
        name.push(if letter.is_ascii_alphanumeric() {
            letter.to_ascii_lowercase()
        } else {
            '_'
        });
    }
    if KEYWORDS.contains(&name.as_str()) {
        return format!("r#{name}");
    }
    name
}

/// A variant, from a value such as `AT_SEQUENCE_NUMBER` (`AtSequenceNumber`) or `H.264`.
pub fn variant_name(value: &str) -> String {
    let mut name = String::new();
    for word in value
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|w| !w.is_empty())
    {
        let shouted = !word.chars().any(|c| c.is_ascii_lowercase());
        for (i, letter) in word.chars().enumerate() {
            let cased = if i == 0 {
                letter.to_ascii_uppercase()
            } else if shouted {
                letter.to_ascii_lowercase()
            } else {
                letter
            };
            name.push(cased);
        }
    }
    match name.chars().next() {
        None => "Empty".to_owned(),
        Some(first) if first.is_ascii_digit() => format!("V{name}"),
        Some(_) if name == "Self" => "SelfValue".to_owned(),
        Some(_) => name,
    }
}

/// The constant of a schema's pattern or the like: the shape's name as it is.
pub fn quoted(text: &str) -> String {
    let hashes = "#".repeat(if text.contains("\"#") { 2 } else { 1 });
    if text.contains(['"', '\\']) {
        return format!("r{hashes}\"{text}\"{hashes}");
    }
    format!("\"{text}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_abbreviations_together() {
        for (member, field) in [
            ("StreamARN", "stream_arn"),
            ("HLSFragmentSelector", "hls_fragment_selector"),
            ("S3Object", "s3_object"),
            ("APIName", "api_name"),
            ("StreamARNs", "stream_arns"),
            ("channelArn", "channel_arn"),
            ("Type", "r#type"),
        ] {
            assert_eq!(field_name(member), field);
        }
        assert_eq!(variant_name("AT_SEQUENCE_NUMBER"), "AtSequenceNumber");
        assert_eq!(variant_name("eyeLeft"), "EyeLeft");
        assert_eq!(variant_name("FLINK-1_20"), "Flink120");
        assert_eq!(variant_name("1080p"), "V1080p");
    }
}

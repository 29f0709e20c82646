//! Patterns of the models that need look-ahead or Unicode classes, written by hand. `xtask` names each of them beside
//! the expression that it stands for.

/// `\p{L}\p{Z}\p{N}` and the given punctuation.
fn letters_digits_spaces(text: &str, others: &str) -> bool {
    text.chars()
        .all(|c| c.is_alphanumeric() || c.is_whitespace() && !c.is_control() || others.contains(c))
}

/// `[\p{L}\p{Z}\p{N}_.:/=+\-@]*`
pub fn tag(text: &str) -> bool {
    letters_digits_spaces(text, "_.:/=+-@")
}

/// `[\p{L}\p{Z}\p{N}_.:/=+\-@]+`
pub fn tag_not_empty(text: &str) -> bool {
    !text.is_empty() && tag(text)
}

/// `^(?!aws:)[\p{L}\p{Z}\p{N}_.:/=+\-@]*$`
pub fn tag_not_aws(text: &str) -> bool {
    !text.starts_with("aws:") && tag(text)
}

/// `^[\p{L}\p{Z}\p{N}_.:\/=+\-@%]*$`
pub fn tag_percent(text: &str) -> bool {
    letters_digits_spaces(text, "_.:/=+-@%")
}

/// `^(?!aws:)[\p{L}\p{Z}\p{N}_.:\/=+\-@%]*$`
pub fn tag_percent_not_aws(text: &str) -> bool {
    !text.starts_with("aws:") && tag_percent(text)
}

/// `^(?!\s*$).+`: one line that is not blank.
pub fn not_blank(text: &str) -> bool {
    !text.is_empty() && !text.contains('\n') && !text.trim().is_empty()
}

/// Every character but control characters other than tab, line feed and carriage return.
pub fn printable_or_break(text: &str) -> bool {
    text.chars().all(|c| !c.is_control() || matches!(c, '\t' | '\n' | '\r'))
}

/// `\p{Print}+`: printable ASCII.
pub fn printable_ascii(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| (0x20..0x7f).contains(&b))
}

/// `[\p{L}\p{M}\p{N}\p{P}\p{S}\p{Zs}]+`: anything but controls.
pub fn no_control(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(char::is_control)
}

/// `^(?=^\$)(?=^\S+$).*$`: starts with a dollar sign and has no space.
pub fn dollar_word(text: &str) -> bool {
    text.starts_with('$') && !text.contains(char::is_whitespace)
}

/// A JDBC URL of a Redshift cluster, the only kind that Firehose takes.
pub fn redshift_jdbc(text: &str) -> bool {
    let rest = text
        .strip_prefix("jdbc:redshift://")
        .or_else(|| text.strip_prefix("jdbc:postgresql://"));
    let Some((host, database)) = rest.and_then(|rest| rest.split_once('/')) else {
        return false;
    };
    let port = host
        .rsplit_once(':')
        .is_some_and(|(_, port)| (1..=5).contains(&port.len()) && port.bytes().all(|b| b.is_ascii_digit()));
    port && host.contains(".redshift")
        && !database.is_empty()
        && database.chars().all(|c| c.is_ascii_alphanumeric() || "_$-".contains(c))
}

/// The ARN of a Kinesis Analytics application.
pub fn analytics_application(text: &str) -> bool {
    let mut parts = text.splitn(6, ':');
    let head = [parts.next(), parts.next(), parts.next()] == [Some("arn"), Some("aws"), Some("kinesisanalytics")];
    let region = parts.next().is_some_and(|r| !r.is_empty());
    let account = parts
        .next()
        .is_some_and(|a| a.len() == 12 && a.bytes().all(|b| b.is_ascii_digit()));
    let name = parts.next().and_then(|rest| rest.strip_prefix("application/"));
    let legal =
        |n: &str| (1..=128).contains(&n.len()) && n.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
    head && region && account && name.is_some_and(legal)
}

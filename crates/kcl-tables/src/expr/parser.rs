//! From the text of an expression to its tree, with DynamoDB's words for what is wrong.

use std::collections::{BTreeMap, BTreeSet};

use base::ApiError;

use super::condition::{Comparator, Condition, Operand};
use super::lexer::{Token, tokens};
use super::path::{Path, Step};
use super::update::{SetValue, Update};
use crate::error::validation;
use crate::limits::{
    EXPRESSION_BYTES_MAX, EXPRESSION_DEPTH_MAX, EXPRESSION_OPERATORS_MAX, EXPRESSION_VALUES_BYTES_MAX, IN_OPERANDS_MAX,
};
use crate::value::{Attr, Item, WireItem, item_from_wire};

/// `ExpressionAttributeNames` and `ExpressionAttributeValues` of a request, and which of them its expressions used.
#[derive(Debug, Default)]
pub struct Placeholders {
    names: BTreeMap<String, String>,
    values: Item,
    used: BTreeSet<String>,
}

impl Placeholders {
    /// Those of a request. `any` tells whether the request has an expression at all.
    pub fn new(names: Option<BTreeMap<String, String>>, values: Option<WireItem>, any: bool) -> Result<Self, ApiError> {
        for (given, what) in [(names.is_some(), "Names"), (values.is_some(), "Values")] {
            if given && !any {
                return Err(validation(format!(
                    "ExpressionAttribute{what} can only be specified when using expressions"
                )));
            }
        }
        if names.as_ref().is_some_and(BTreeMap::is_empty) {
            return Err(validation("ExpressionAttributeNames must not be empty"));
        }
        if values.as_ref().is_some_and(BTreeMap::is_empty) {
            return Err(validation("ExpressionAttributeValues must not be empty"));
        }
        let names = names.unwrap_or_default();
        if let Some(bad) = names.keys().find(|name| !is_placeholder(name, '#')) {
            return Err(validation(format!(
                "ExpressionAttributeNames contains invalid key: Syntax error; key: \"{bad}\""
            )));
        }
        let values = values.unwrap_or_default();
        if let Some(bad) = values.keys().find(|name| !is_placeholder(name, ':')) {
            return Err(validation(format!(
                "ExpressionAttributeValues contains invalid key: Syntax error; key: \"{bad}\""
            )));
        }
        let values = item_from_wire(values).map_err(|mut error| {
            error.message = format!("ExpressionAttributeValues contains invalid value: {}", error.message);
            error
        })?;
        if crate::value::item_size(&values) > EXPRESSION_VALUES_BYTES_MAX {
            return Err(validation(
                "ExpressionAttributeValues exceeds max size: the values may have 2 MB together",
            ));
        }
        Ok(Placeholders {
            names,
            values,
            used: BTreeSet::new(),
        })
    }

    /// Refuses what no expression used. Called when all expressions are parsed.
    pub fn finish(&self) -> Result<(), ApiError> {
        let unused = |keys: &mut dyn Iterator<Item = &String>| {
            let unused: Vec<&str> = keys
                .filter(|key| !self.used.contains(*key))
                .map(String::as_str)
                .collect();
            (!unused.is_empty()).then(|| unused.join(", "))
        };
        if let Some(keys) = unused(&mut self.names.keys()) {
            return Err(validation(format!(
                "Value provided in ExpressionAttributeNames unused in expressions: keys: {{{keys}}}"
            )));
        }
        if let Some(keys) = unused(&mut self.values.keys()) {
            return Err(validation(format!(
                "Value provided in ExpressionAttributeValues unused in expressions: keys: {{{keys}}}"
            )));
        }
        Ok(())
    }
}

fn is_placeholder(key: &str, sign: char) -> bool {
    let word = key.strip_prefix(sign).unwrap_or_default();
    !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Parses a condition. `kind` is the parameter's name, for messages.
pub fn parse_condition(kind: &'static str, text: &str, placeholders: &mut Placeholders) -> Result<Condition, ApiError> {
    let mut parser = Parser::new(kind, text, placeholders)?;
    let condition = parser.any(0)?;
    parser.end()?;
    Ok(condition)
}

/// Parses a projection.
pub fn parse_projection(text: &str, placeholders: &mut Placeholders) -> Result<Vec<Path>, ApiError> {
    let mut parser = Parser::new("ProjectionExpression", text, placeholders)?;
    let mut paths = vec![parser.path()?];
    while parser.take_symbol(",") {
        paths.push(parser.path()?);
    }
    parser.end()?;
    parser.refuse_overlap(&paths)?;
    Ok(paths)
}

/// Parses an update.
pub fn parse_update(text: &str, placeholders: &mut Placeholders) -> Result<Update, ApiError> {
    let mut parser = Parser::new("UpdateExpression", text, placeholders)?;
    let mut update = Update::default();
    let mut sections = BTreeSet::new();
    while let Some(token) = parser.peek() {
        let section = ["SET", "REMOVE", "ADD", "DELETE"]
            .into_iter()
            .find(|word| token.is_keyword(word));
        let Some(section) = section else {
            return Err(parser.syntax());
        };
        if !sections.insert(section) {
            return Err(parser.wrong(&format!(
                "The \"{section}\" section can only be used once in an update expression;"
            )));
        }
        parser.at += 1;
        loop {
            let path = parser.path()?;
            match section {
                "SET" => {
                    parser.expect("=")?;
                    let value = parser.set_value(0)?;
                    update.set.push((path, value));
                }
                "REMOVE" => update.remove.push(path),
                _ => {
                    let value = parser.value()?;
                    let numbers = section == "ADD";
                    let fits = matches!(value, Attr::Ss(_) | Attr::Ns(_) | Attr::Bs(_))
                        || numbers && matches!(value, Attr::N(_));
                    if !fits {
                        return Err(parser.wrong(&format!(
                            "Incorrect operand type for operator or function; operator: {section}, operand type: {}, typeSet: \
                             ALLOWED_FOR_{section}_OPERAND",
                            long_kind(&value)
                        )));
                    }
                    match numbers {
                        true => update.add.push((path, value)),
                        false => update.delete.push((path, value)),
                    }
                }
            }
            if !parser.take_symbol(",") {
                break;
            }
        }
    }
    let targets: Vec<Path> = update.targets().cloned().collect();
    parser.refuse_overlap(&targets)?;
    Ok(update)
}

fn long_kind(value: &Attr) -> &'static str {
    match value {
        Attr::S(_) => "STRING",
        Attr::N(_) => "NUMBER",
        Attr::B(_) => "BINARY",
        Attr::Bool(_) => "BOOLEAN",
        Attr::Null => "NULL",
        Attr::L(_) => "LIST",
        Attr::M(_) => "MAP",
        Attr::Ss(_) => "STRING_SET",
        Attr::Ns(_) => "NUMBER_SET",
        Attr::Bs(_) => "BINARY_SET",
    }
}

struct Parser<'a> {
    kind: &'static str,
    tokens: Vec<Token>,
    at: usize,
    operators: usize,
    placeholders: &'a mut Placeholders,
}

const KEYWORDS: [&str; 5] = ["AND", "OR", "NOT", "BETWEEN", "IN"];

impl<'a> Parser<'a> {
    fn new(kind: &'static str, text: &str, placeholders: &'a mut Placeholders) -> Result<Self, ApiError> {
        let wrong = |why: String| validation(format!("Invalid {kind}: {why}"));
        if text.trim().is_empty() {
            return Err(wrong("The expression can not be empty;".to_owned()));
        }
        if text.len() > EXPRESSION_BYTES_MAX {
            return Err(wrong(format!(
                "Expression size has exceeded the maximum allowed size; expression size: {}",
                text.len()
            )));
        }
        let tokens = tokens(text).map_err(|c| wrong(format!("Syntax error; token: \"{c}\", near: \"{c}\"")))?;
        Ok(Parser {
            kind,
            tokens,
            at: 0,
            operators: 0,
            placeholders,
        })
    }

    fn wrong(&self, why: &str) -> ApiError {
        validation(format!("Invalid {}: {why}", self.kind))
    }

    /// The word that comes next does not belong there.
    fn syntax(&self) -> ApiError {
        let token = self.peek().map_or("<EOF>", Token::text);
        let from = self.at.saturating_sub(1);
        let near: Vec<&str> = self.tokens.iter().skip(from).take(3).map(Token::text).collect();
        self.wrong(&format!(
            "Syntax error; token: \"{token}\", near: \"{}\"",
            near.join(" ")
        ))
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn end(&self) -> Result<(), ApiError> {
        self.peek().map_or(Ok(()), |_| Err(self.syntax()))
    }

    fn take_symbol(&mut self, symbol: &'static str) -> bool {
        let found = self.peek() == Some(&Token::Symbol(symbol));
        self.at += usize::from(found);
        found
    }

    fn take_keyword(&mut self, keyword: &str) -> bool {
        let found = self.peek().is_some_and(|token| token.is_keyword(keyword));
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, symbol: &'static str) -> Result<(), ApiError> {
        match self.take_symbol(symbol) {
            true => Ok(()),
            false => Err(self.syntax()),
        }
    }

    fn count(&mut self) -> Result<(), ApiError> {
        self.operators += 1;
        match self.operators > EXPRESSION_OPERATORS_MAX {
            true => Err(self.wrong(&format!(
                "The expression contains more operators than are allowed; maximum: {EXPRESSION_OPERATORS_MAX}"
            ))),
            false => Ok(()),
        }
    }

    fn deeper(&self, depth: usize) -> Result<usize, ApiError> {
        match depth < EXPRESSION_DEPTH_MAX {
            true => Ok(depth + 1),
            false => Err(self.wrong("The expression is nested too deep")),
        }
    }

    fn any(&mut self, depth: usize) -> Result<Condition, ApiError> {
        let first = self.all(depth)?;
        let mut list = vec![first];
        while self.take_keyword("OR") {
            self.count()?;
            list.push(self.all(depth)?);
        }
        Ok(one_or(list, Condition::Any))
    }

    fn all(&mut self, depth: usize) -> Result<Condition, ApiError> {
        let mut list = vec![self.not(depth)?];
        while self.take_keyword("AND") {
            self.count()?;
            list.push(self.not(depth)?);
        }
        Ok(one_or(list, Condition::All))
    }

    fn not(&mut self, depth: usize) -> Result<Condition, ApiError> {
        if !self.take_keyword("NOT") {
            return self.one(depth);
        }
        self.count()?;
        let depth = self.deeper(depth)?;
        Ok(Condition::Not(Box::new(self.not(depth)?)))
    }

    fn one(&mut self, depth: usize) -> Result<Condition, ApiError> {
        if self.take_symbol("(") {
            let depth = self.deeper(depth)?;
            let inner = self.any(depth)?;
            self.expect(")")?;
            return Ok(inner);
        }
        self.count()?;
        if let Some(name) = self.function()
            && name != "size"
        {
            return self.function_condition(&name);
        }
        let value = self.operand()?;
        if self.take_keyword("BETWEEN") {
            let low = self.operand()?;
            if !self.take_keyword("AND") {
                return Err(self.syntax());
            }
            let high = self.operand()?;
            self.check_between(&low, &high)?;
            return Ok(Condition::Between(value, low, high));
        }
        if self.take_keyword("IN") {
            self.expect("(")?;
            let mut list = vec![self.operand()?];
            while self.take_symbol(",") {
                list.push(self.operand()?);
            }
            self.expect(")")?;
            if list.len() > IN_OPERANDS_MAX {
                return Err(self.wrong(&format!(
                    "The IN operator has too many operands; number of operands: {}",
                    list.len()
                )));
            }
            return Ok(Condition::In(value, list));
        }
        let comparator = match self.peek() {
            Some(Token::Symbol("=")) => Comparator::Eq,
            Some(Token::Symbol("<>")) => Comparator::Ne,
            Some(Token::Symbol("<")) => Comparator::Lt,
            Some(Token::Symbol("<=")) => Comparator::Le,
            Some(Token::Symbol(">")) => Comparator::Gt,
            Some(Token::Symbol(">=")) => Comparator::Ge,
            _ => return Err(self.syntax()),
        };
        let sign = self.peek().map_or("", Token::text).to_owned();
        self.at += 1;
        let other = self.operand()?;
        if !matches!(comparator, Comparator::Eq | Comparator::Ne) {
            for operand in [&value, &other] {
                self.check_scalar("operator", &sign, operand)?;
            }
        }
        Ok(Condition::Compare(comparator, value, other))
    }

    fn check_scalar(&self, what: &str, name: &str, operand: &Operand) -> Result<(), ApiError> {
        match operand {
            Operand::Value(value) if !value.is_scalar() => Err(self.wrong(&format!(
                "Incorrect operand type for operator or function; {what}: {name}, operand type: {}",
                value.kind()
            ))),
            _ => Ok(()),
        }
    }

    fn check_between(&self, low: &Operand, high: &Operand) -> Result<(), ApiError> {
        self.check_scalar("operator", "BETWEEN", low)?;
        self.check_scalar("operator", "BETWEEN", high)?;
        let (Operand::Value(a), Operand::Value(b)) = (low, high) else {
            return Ok(());
        };
        if a.kind() != b.kind() {
            return Err(self.wrong("The BETWEEN operator requires same data type for lower and upper bounds"));
        }
        let ordered = Condition::Compare(Comparator::Le, low.clone(), high.clone());
        match ordered.holds(&Item::new()) {
            true => Ok(()),
            false => {
                Err(self.wrong("The BETWEEN operator requires upper bound to be greater than or equal to lower bound"))
            }
        }
    }

    /// The name of the function that comes next.
    fn function(&self) -> Option<String> {
        match (self.peek(), self.tokens.get(self.at + 1)) {
            (Some(Token::Word(word)), Some(Token::Symbol("(")))
                if !KEYWORDS.iter().any(|k| word.eq_ignore_ascii_case(k)) =>
            {
                Some(word.clone())
            }
            _ => None,
        }
    }

    fn function_condition(&mut self, name: &str) -> Result<Condition, ApiError> {
        let count = match name {
            "attribute_exists" | "attribute_not_exists" => 1,
            "attribute_type" | "begins_with" | "contains" => 2,
            "if_not_exists" | "list_append" => {
                return Err(self.wrong(&format!(
                    "The function is not allowed in a condition expression; function: {name}"
                )));
            }
            _ => return Err(self.wrong(&format!("Invalid function name; function: {name}"))),
        };
        self.at += 2;
        let mut operands = vec![self.operand()?];
        while self.take_symbol(",") {
            operands.push(self.operand()?);
        }
        self.expect(")")?;
        if operands.len() != count {
            return Err(self.wrong(&format!(
                "Incorrect number of operands for operator or function; operator or function: {name}, number of operands: {}",
                operands.len()
            )));
        }
        let mut operands = operands.into_iter();
        let (Some(first), second) = (operands.next(), operands.next()) else {
            return Err(self.syntax());
        };
        let path = match (&first, name) {
            (Operand::Path(path), _) => path.clone(),
            (_, "begins_with" | "contains") => Path::top(""),
            _ => {
                return Err(self.wrong(&format!(
                    "Operator or function requires a document path; operator or function: {name}"
                )));
            }
        };
        Ok(match (name, second) {
            ("attribute_exists", _) => Condition::Exists(path),
            ("attribute_not_exists", _) => Condition::Not(Box::new(Condition::Exists(path))),
            ("attribute_type", Some(Operand::Value(Attr::S(kind)))) => {
                const KINDS: [&str; 10] = ["B", "NULL", "SS", "BOOL", "L", "BS", "N", "NS", "S", "M"];
                if !KINDS.contains(&kind.as_str()) {
                    let kinds = KINDS.join(",");
                    return Err(self.wrong(&format!(
                        "Invalid attribute type name found; type: {kind}, valid types: {{{kinds}}}"
                    )));
                }
                Condition::HasType(path, kind)
            }
            ("begins_with", Some(start)) => {
                if let Operand::Value(value) = &start
                    && !matches!(value, Attr::S(_) | Attr::B(_))
                {
                    return Err(self.wrong(&format!(
                        "Incorrect operand type for operator or function; operator or function: begins_with, operand type: {}",
                        value.kind()
                    )));
                }
                Condition::BeginsWith(first, start)
            }
            ("contains", Some(part)) => Condition::Contains(first, part),
            _ => {
                return Err(self.wrong(&format!(
                    "Incorrect operand type for operator or function; operator or function: {name}"
                )));
            }
        })
    }

    fn operand(&mut self) -> Result<Operand, ApiError> {
        if let Some(Token::ValueRef(_)) = self.peek() {
            return self.value().map(Operand::Value);
        }
        if self.function().as_deref() == Some("size") {
            self.count()?;
            self.at += 2;
            let path = self.path()?;
            self.expect(")")?;
            return Ok(Operand::Size(path));
        }
        if self.take_symbol("(") {
            let inner = self.operand()?;
            self.expect(")")?;
            return Ok(inner);
        }
        self.path().map(Operand::Path)
    }

    fn value(&mut self) -> Result<Attr, ApiError> {
        let Some(Token::ValueRef(name)) = self.peek().cloned() else {
            return Err(self.syntax());
        };
        let value = self.placeholders.values.get(&name).cloned().ok_or_else(|| {
            self.wrong(&format!(
                "An expression attribute value used in expression is not defined; attribute value: {name}"
            ))
        })?;
        self.placeholders.used.insert(name);
        self.at += 1;
        Ok(value)
    }

    fn name(&mut self) -> Result<String, ApiError> {
        match self.peek().cloned() {
            Some(Token::Word(word)) if !KEYWORDS.iter().any(|k| word.eq_ignore_ascii_case(k)) => {
                self.at += 1;
                Ok(word)
            }
            Some(Token::NameRef(name)) => {
                let meant = self.placeholders.names.get(&name).cloned().ok_or_else(|| {
                    self.wrong(&format!(
                        "An expression attribute name used in the document path is not defined; attribute name: {name}"
                    ))
                })?;
                self.placeholders.used.insert(name);
                self.at += 1;
                Ok(meant)
            }
            _ => Err(self.syntax()),
        }
    }

    fn path(&mut self) -> Result<Path, ApiError> {
        let mut path = Path {
            root: self.name()?,
            steps: Vec::new(),
        };
        loop {
            if self.take_symbol(".") {
                let name = self.name()?;
                path.steps.push(Step::Name(name));
            } else if self.take_symbol("[") {
                let Some(Token::Index(digits)) = self.peek() else {
                    return Err(self.syntax());
                };
                let index = digits
                    .parse::<u32>()
                    .map_err(|_| self.wrong("List index is not within the allowable range;"))?;
                self.at += 1;
                self.expect("]")?;
                path.steps.push(Step::Index(index as usize));
            } else {
                return Ok(path);
            }
            if path.steps.len() > crate::limits::NESTING_MAX {
                return Err(self.wrong("The document path has too many nesting elements;"));
            }
        }
    }

    fn set_value(&mut self, depth: usize) -> Result<SetValue, ApiError> {
        let first = self.set_operand(depth)?;
        let sum: fn(Box<SetValue>, Box<SetValue>) -> SetValue = if self.take_symbol("+") {
            SetValue::Plus
        } else if self.take_symbol("-") {
            SetValue::Minus
        } else {
            return Ok(first);
        };
        self.count()?;
        let second = self.set_operand(depth)?;
        for operand in [&first, &second] {
            if let SetValue::Value(value) = operand
                && !matches!(value, Attr::N(_))
            {
                return Err(self.wrong(&format!(
                    "Incorrect operand type for operator or function; operator or function: +, operand type: {}",
                    value.kind()
                )));
            }
        }
        Ok(sum(Box::new(first), Box::new(second)))
    }

    fn set_operand(&mut self, depth: usize) -> Result<SetValue, ApiError> {
        let depth = self.deeper(depth)?;
        if let Some(Token::ValueRef(_)) = self.peek() {
            return self.value().map(SetValue::Value);
        }
        if self.take_symbol("(") {
            let inner = self.set_value(depth)?;
            self.expect(")")?;
            return Ok(inner);
        }
        let Some(function) = self.function() else {
            return self.path().map(SetValue::Path);
        };
        self.count()?;
        self.at += 2;
        let value = match function.as_str() {
            "if_not_exists" => {
                let path = self.path()?;
                self.expect(",")?;
                SetValue::IfNotExists(path, Box::new(self.set_operand(depth)?))
            }
            "list_append" => {
                let first = self.set_operand(depth)?;
                self.expect(",")?;
                SetValue::ListAppend(Box::new(first), Box::new(self.set_operand(depth)?))
            }
            other => return Err(self.wrong(&format!("Invalid function name; function: {other}"))),
        };
        self.expect(")")?;
        Ok(value)
    }

    fn refuse_overlap(&self, paths: &[Path]) -> Result<(), ApiError> {
        // Neighbours in order are enough: what lies between two paths of which one leads through the other overlaps with the first too.
        let mut sorted: Vec<&Path> = paths.iter().collect();
        sorted.sort();
        for pair in sorted.windows(2) {
            let [a, b] = pair else { continue };
            if a.overlaps(b) {
                return Err(self.wrong(&format!(
                    "Two document paths overlap with each other; must remove or rewrite one of these paths; path one: {a}, path two: {b}"
                )));
            }
            if a.conflicts(b) {
                return Err(self.wrong(&format!(
                    "Two document paths conflict with each other; must remove or rewrite one of these paths; path one: {a}, path two: {b}"
                )));
            }
        }
        Ok(())
    }
}

fn one_or(mut list: Vec<Condition>, many: fn(Vec<Condition>) -> Condition) -> Condition {
    match (list.pop(), list.is_empty()) {
        (Some(only), true) => only,
        (Some(last), false) => {
            list.push(last);
            many(list)
        }
        (None, _) => Condition::always(),
    }
}

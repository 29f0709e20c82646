//! From the text of a script to its statements. Queries are read by DataFusion's parser; statements around them that it
//! has not, or not as Flink writes them, are read here with the parser's own methods.

use datafusion_sql::sqlparser::ast::{Ident, Query, Value};
use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::parser::{Parser, ParserError};
use datafusion_sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer, Word};

use super::ddl;
use super::dialect::Flink;
use super::error::{PlanError, of_parser, significant};
use crate::limits;
use crate::table::Table;

/// A statement and its place.
#[derive(Debug)]
pub(crate) struct Statement {
    /// What it is.
    pub what: What,
    /// Its tokens, to find places for messages.
    pub tokens: Vec<TokenWithSpan>,
}

impl Statement {
    /// Where it begins.
    pub fn place(&self) -> Location {
        let first = self.tokens.iter().find(|token| significant(&token.token));
        first.map_or_else(Location::empty, |token| token.span.start)
    }
}

/// What a script says.
#[derive(Debug)]
pub(crate) enum What {
    /// `CREATE TABLE`
    Table(Table),
    /// `CREATE VIEW`
    View {
        name: Ident,
        columns: Vec<Ident>,
        query: Box<Query>,
    },
    /// `INSERT INTO`
    Insert {
        table: Ident,
        columns: Vec<Ident>,
        query: Box<Query>,
    },
    /// A query whose rows are shown.
    Select(Box<Query>),
    /// `SET 'key' = 'value'`
    Set { key: String, value: String },
}

/// Reads a script.
pub(crate) fn parse(script: &str) -> Result<Vec<Statement>, PlanError> {
    if script.len() > limits::SCRIPT_BYTES_MAX {
        let message = format!("The script is longer than {} bytes", limits::SCRIPT_BYTES_MAX);
        return Err(PlanError::at(Location::empty(), message));
    }
    let tokens = Tokenizer::new(&Flink, script).tokenize_with_location();
    let tokens = tokens.map_err(|error| PlanError::at(error.location, error.message))?;
    let tokens = prepare(split_shifts(tokens));
    let parser = Parser::new(&Flink).with_recursion_limit(limits::NESTING_MAX);
    let mut reader = Reader {
        parser: parser.with_tokens_with_locations(tokens.clone()),
        set_open: false,
        statements: Vec::new(),
    };
    reader.read(&tokens)?;
    Ok(reader.statements)
}

/// An expression by itself, e.g. of a computed column.
pub(crate) fn parse_expression(text: &str) -> Result<datafusion_sql::sqlparser::ast::Expr, PlanError> {
    let tokens = Tokenizer::new(&Flink, text).tokenize_with_location();
    let tokens = prepare(tokens.map_err(|error| PlanError::at(error.location, error.message))?);
    let parser = Parser::new(&Flink).with_recursion_limit(limits::NESTING_MAX);
    let mut parser = parser.with_tokens_with_locations(tokens.clone());
    let parsed = parser.parse_expr().and_then(|expr| {
        let end = parser.next_token();
        match end.token {
            Token::EOF => Ok(expr),
            _ => parser.expected("the end of the expression", end),
        }
    });
    parsed.map_err(|error| of_parser(&error, &tokens))
}

struct Reader {
    parser: Parser<'static>,
    /// Within `STATEMENT SET BEGIN ... END`.
    set_open: bool,
    statements: Vec<Statement>,
}

impl Reader {
    fn read(&mut self, tokens: &[TokenWithSpan]) -> Result<(), PlanError> {
        loop {
            while self.parser.consume_token(&Token::SemiColon) {}
            let begin = self.begin();
            if self.parser.peek_token_ref().token == Token::EOF {
                break;
            }
            let from_here = tokens.get(begin..).unwrap_or_default();
            let read = self.statement();
            let what = read.map_err(|error| of_parser(&error, up_to_semicolon(from_here)))?;
            let tokens = tokens.get(begin..self.parser.index()).unwrap_or_default().to_vec();
            if let Some(what) = what {
                self.statements.push(Statement { what, tokens });
            }
            if self.statements.len() > limits::STATEMENTS_MAX {
                let message = format!("There are more than {} statements", limits::STATEMENTS_MAX);
                return Err(PlanError::at(Location::empty(), message));
            }
        }
        match self.set_open {
            true => Err(of_parser(
                &ParserError::ParserError("Expected: END of the statement set".to_owned()),
                tokens,
            )),
            false => Ok(()),
        }
    }

    /// The index of the next token that says something.
    fn begin(&mut self) -> usize {
        self.parser.next_token();
        let begin = self.parser.index().saturating_sub(1);
        self.parser.prev_token();
        begin
    }

    fn statement(&mut self) -> Result<Option<What>, ParserError> {
        let first = self.parser.peek_token();
        let Token::Word(word) = &first.token else {
            return self.parser.expected("a statement", first);
        };
        let what = match word.value.to_ascii_uppercase().as_str() {
            "CREATE" => ddl::create(&mut self.parser)?,
            "INSERT" => self.insert()?,
            "EXECUTE" | "BEGIN" => return self.begin_set(),
            "END" if self.set_open => {
                self.parser.next_token();
                self.set_open = false;
                self.end_of_statement()?;
                return Ok(None);
            }
            "SELECT" | "WITH" => What::Select(self.parser.parse_query()?),
            "SET" => set(&mut self.parser)?,
            _ => {
                let known = "CREATE TABLE, CREATE VIEW, INSERT INTO, EXECUTE STATEMENT SET, SELECT or SET";
                return self.parser.expected(known, first);
            }
        };
        self.end_of_statement()?;
        Ok(Some(what))
    }

    fn begin_set(&mut self) -> Result<Option<What>, ParserError> {
        let execute = word(&mut self.parser, "EXECUTE");
        if execute && self.parser.peek_keyword(Keyword::INSERT) {
            let what = self.insert()?;
            self.end_of_statement()?;
            return Ok(Some(what));
        }
        if !execute {
            self.parser.expect_keyword(Keyword::BEGIN)?;
        }
        for part in ["STATEMENT", "SET"] {
            if !word(&mut self.parser, part) {
                let found = self.parser.peek_token();
                return self.parser.expected("STATEMENT SET", found);
            }
        }
        if execute {
            self.parser.expect_keyword(Keyword::BEGIN)?;
        }
        self.set_open = true;
        Ok(None)
    }

    fn insert(&mut self) -> Result<What, ParserError> {
        self.parser.expect_keyword(Keyword::INSERT)?;
        self.parser.expect_keyword(Keyword::INTO)?;
        let table = table_name(&mut self.parser)?;
        let opened = self.parser.peek_nth_token(0).token == Token::LParen;
        let query = matches!(
            self.parser.peek_nth_token(1).token,
            Token::Word(Word {
                keyword: Keyword::SELECT | Keyword::WITH | Keyword::VALUES,
                ..
            }) | Token::LParen
        );
        let columns = match opened && !query {
            true => self
                .parser
                .parse_parenthesized(|parser| parser.parse_comma_separated(Parser::parse_identifier))?,
            false => Vec::new(),
        };
        let query = self.parser.parse_query()?;
        Ok(What::Insert { table, columns, query })
    }

    fn end_of_statement(&mut self) -> Result<(), ParserError> {
        let next = self.parser.peek_token();
        match next.token {
            Token::SemiColon | Token::EOF => Ok(()),
            _ => self.parser.expected("the end of the statement", next),
        }
    }
}

fn up_to_semicolon(tokens: &[TokenWithSpan]) -> &[TokenWithSpan] {
    let end = tokens.iter().position(|token| token.token == Token::SemiColon);
    tokens.get(..end.unwrap_or(tokens.len())).unwrap_or(tokens)
}

/// `SET 'key' = 'value'`, or without quotes around the key.
fn set(parser: &mut Parser<'_>) -> Result<What, ParserError> {
    parser.expect_keyword(Keyword::SET)?;
    let mut key = String::new();
    loop {
        let token = parser.next_token();
        match &token.token {
            Token::SingleQuotedString(text) => key.push_str(text),
            Token::Word(word) => key.push_str(&word.value),
            Token::Period => key.push('.'),
            Token::Minus => key.push('-'),
            Token::Eq if !key.is_empty() => break,
            _ => return parser.expected("'key' = 'value'", token),
        }
    }
    let token = parser.next_token();
    let value = match &token.token {
        Token::SingleQuotedString(text) | Token::Number(text, _) => text.clone(),
        Token::Word(word) => word.value.clone(),
        _ => return parser.expected("a value in quotes", token),
    };
    Ok(What::Set { key, value })
}

/// Takes the next word if it is this one.
pub(crate) fn word(parser: &mut Parser<'_>, wanted: &str) -> bool {
    let is = matches!(&parser.peek_token_ref().token, Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(wanted));
    if is {
        parser.next_token();
    }
    is
}

/// The name of a table: catalogs and databases are not known here.
pub(crate) fn table_name(parser: &mut Parser<'_>) -> Result<Ident, ParserError> {
    let name = parser.parse_identifier()?;
    if parser.peek_token_ref().token == Token::Period {
        let found = parser.peek_token();
        return parser.expected("a name without catalog and database", found);
    }
    Ok(name)
}

/// The text in quotes that stands next.
pub(crate) fn quoted(parser: &mut Parser<'_>) -> Result<String, ParserError> {
    let value = parser.parse_value()?;
    match value.value {
        Value::SingleQuotedString(text) => Ok(text),
        other => Err(ParserError::ParserError(format!(
            "Expected: text in quotes, found: {other} at Line: {}, Column: {}",
            value.span.start.line, value.span.start.column
        ))),
    }
}

/// `>>` is the end of two types; Flink has no shifts.
pub(crate) fn split_shifts(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut split = Vec::with_capacity(tokens.len());
    for token in tokens {
        if token.token == Token::ShiftRight {
            split.push(TokenWithSpan::new(Token::Gt, token.span));
            split.push(TokenWithSpan::new(Token::Gt, token.span));
        } else {
            split.push(token);
        }
    }
    split
}

/// The name that stands for a table with `PARTITION BY` in a window function.
pub(crate) const PARTITIONED: &str = "$partitioned";
/// The name that stands for `WITHIN` among the definitions of a pattern.
pub(crate) const WITHIN: &str = "$within";

/// Brings what the parser does not know into a form that it does, without moving a place:
/// `TABLE t` as an argument becomes `t`, or `$partitioned(t, k)` with `PARTITION BY k`; `WITHIN i DEFINE` becomes
/// `DEFINE $within AS i,`.
fn prepare(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut input = tokens
        .into_iter()
        .filter(|token| !matches!(token.token, Token::Whitespace(_)))
        .peekable();
    let mut made: Vec<TokenWithSpan> = Vec::new();
    while let Some(token) = input.next() {
        let argument = matches!(
            made.last().map(|last| &last.token),
            Some(Token::LParen | Token::Comma | Token::RArrow)
        );
        let name_follows = matches!(input.peek().map(|next| &next.token), Some(Token::Word(_)));
        if argument && name_follows && is(&token, "TABLE") {
            table_argument(&mut input, &mut made);
        } else if argument && name_follows_unit(&made) && unit(&token) {
            let Token::Word(word) = token.token else { continue };
            made.push(TokenWithSpan::new(Token::SingleQuotedString(word.value), token.span));
        } else if is(&token, "WITHIN") && matches!(made.last().map(|last| &last.token), Some(Token::RParen)) {
            within(&token, &mut input, &mut made);
        } else {
            made.push(token);
        }
    }
    made
}

/// Whether `TIMESTAMPDIFF(` or `TIMESTAMPADD(` was last: a unit of time follows, which is made text.
fn name_follows_unit(made: &[TokenWithSpan]) -> bool {
    match made {
        [.., function, open] if open.token == Token::LParen => {
            is(function, "TIMESTAMPDIFF") || is(function, "TIMESTAMPADD")
        }
        _ => false,
    }
}

fn unit(token: &TokenWithSpan) -> bool {
    matches!(&token.token, Token::Word(word) if word.quote_style.is_none())
}

fn is(token: &TokenWithSpan, wanted: &str) -> bool {
    matches!(&token.token, Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(wanted))
}

fn table_argument<I: Iterator<Item = TokenWithSpan>>(
    input: &mut std::iter::Peekable<I>,
    made: &mut Vec<TokenWithSpan>,
) {
    let Some(name) = input.next() else { return };
    if !input.peek().is_some_and(|next| is(next, "PARTITION")) {
        made.push(name);
        return;
    }
    let span = name.span;
    let new = |token: Token| TokenWithSpan::new(token, span);
    input.next();
    if input.peek().is_some_and(|next| is(next, "BY")) {
        input.next();
    }
    made.extend([
        new(Token::make_word(PARTITIONED, None)),
        new(Token::LParen),
        name,
        new(Token::Comma),
    ]);
    let listed = matches!(input.peek().map(|next| &next.token), Some(Token::LParen));
    if listed {
        input.next();
    }
    for token in input.by_ref() {
        let ends = match listed {
            true => token.token == Token::RParen,
            false => matches!(token.token, Token::Word(_)),
        };
        match (ends, listed) {
            (true, false) => {
                made.extend([token, new(Token::RParen)]);
                break;
            }
            (true, true) => {
                made.push(token);
                break;
            }
            _ => made.push(token),
        }
    }
}

fn within<I: Iterator<Item = TokenWithSpan>>(
    token: &TokenWithSpan,
    input: &mut std::iter::Peekable<I>,
    made: &mut Vec<TokenWithSpan>,
) {
    let mut interval = Vec::new();
    let span = token.span;
    let new = |token: Token| TokenWithSpan::new(token, span);
    for next in input.by_ref() {
        if is(&next, "DEFINE") {
            made.push(next);
            made.extend([new(Token::make_word(WITHIN, None)), new(Token::make_keyword("AS"))]);
            made.append(&mut interval);
            made.push(new(Token::Comma));
            return;
        }
        interval.push(next);
        if interval.len() > 16 {
            break;
        }
    }
    made.push(token.clone());
    made.append(&mut interval);
}

//! `CREATE TABLE` and `CREATE VIEW` as Flink writes them.

use std::collections::BTreeMap;

use datafusion_sql::sqlparser::ast::{BinaryOperator, Expr, Ident};
use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::parser::{Parser, ParserError};
use datafusion_sql::sqlparser::tokenizer::Token;

use super::interval;
use super::script::{What, quoted, table_name, word};
use super::types;
use crate::limits;
use crate::table::{Column, Rowtime, Table};

/// `CREATE ...`
pub(crate) fn create(parser: &mut Parser<'_>) -> Result<What, ParserError> {
    parser.expect_keyword(Keyword::CREATE)?;
    let _ = parser.parse_keywords(&[Keyword::OR, Keyword::REPLACE]);
    let _ = parser.parse_keyword(Keyword::TEMPORARY);
    let found = parser.next_token();
    let table = match &found.token {
        Token::Word(word) if word.keyword == Keyword::TABLE => true,
        Token::Word(word) if word.keyword == Keyword::VIEW => false,
        _ => return parser.expected("TABLE or VIEW", found),
    };
    let _ = parser.parse_keywords(&[Keyword::IF, Keyword::NOT, Keyword::EXISTS]);
    match table {
        true => create_table(parser).map(What::Table),
        false => create_view(parser),
    }
}

fn create_view(parser: &mut Parser<'_>) -> Result<What, ParserError> {
    let name = table_name(parser)?;
    let columns = match parser.peek_token_ref().token == Token::LParen {
        true => parser.parse_parenthesized(|parser| parser.parse_comma_separated(Parser::parse_identifier))?,
        false => Vec::new(),
    };
    comment(parser)?;
    parser.expect_keyword(Keyword::AS)?;
    let query = parser.parse_query()?;
    Ok(What::View { name, columns, query })
}

fn create_table(parser: &mut Parser<'_>) -> Result<Table, ParserError> {
    let mut table = Table {
        name: table_name(parser)?.value,
        ..Table::default()
    };
    if parser.consume_token(&Token::LParen) {
        loop {
            element(parser, &mut table)?;
            if !parser.consume_token(&Token::Comma) {
                break;
            }
        }
        parser.expect_token(&Token::RParen)?;
    }
    comment(parser)?;
    loop {
        if parser.parse_keywords(&[Keyword::PARTITIONED, Keyword::BY]) {
            table.partitioned_by = names(parser)?;
        } else if parser.parse_keyword(Keyword::WITH) {
            table.options = options(parser)?;
        } else {
            break;
        }
    }
    Ok(table)
}

fn comment(parser: &mut Parser<'_>) -> Result<(), ParserError> {
    if parser.parse_keyword(Keyword::COMMENT) {
        quoted(parser)?;
    }
    Ok(())
}

fn names(parser: &mut Parser<'_>) -> Result<Vec<String>, ParserError> {
    let names = parser.parse_parenthesized(|parser| parser.parse_comma_separated(Parser::parse_identifier))?;
    Ok(names.into_iter().map(|name: Ident| name.value).collect())
}

fn options(parser: &mut Parser<'_>) -> Result<BTreeMap<String, String>, ParserError> {
    let pairs = parser.parse_parenthesized(|parser| {
        parser.parse_comma_separated(|parser| {
            let key = quoted(parser)?;
            parser.expect_token(&Token::Eq)?;
            Ok((key, quoted(parser)?))
        })
    })?;
    Ok(pairs.into_iter().collect())
}

fn element(parser: &mut Parser<'_>, table: &mut Table) -> Result<(), ParserError> {
    let next_is = |parser: &Parser<'_>, wanted: &str| matches!(&parser.peek_nth_token(1).token, Token::Word(word) if word.value.eq_ignore_ascii_case(wanted));
    if next_is(parser, "FOR") && word(parser, "WATERMARK") {
        parser.expect_keyword(Keyword::FOR)?;
        return watermark(parser, table);
    }
    if parser.parse_keyword(Keyword::CONSTRAINT) {
        parser.parse_identifier()?;
        parser.expect_keywords(&[Keyword::PRIMARY, Keyword::KEY])?;
        return primary_key(parser, table);
    }
    if next_is(parser, "KEY") && parser.parse_keywords(&[Keyword::PRIMARY, Keyword::KEY]) {
        return primary_key(parser, table);
    }
    let made = column(parser, table)?;
    if table.columns.iter().any(|column| column.name == made.name) {
        return Err(ParserError::ParserError(format!(
            "Column '{}' is declared twice",
            made.name
        )));
    }
    if table.columns.len() >= limits::COLUMNS_MAX {
        let text = format!("A table has at most {} columns", limits::COLUMNS_MAX);
        return Err(ParserError::ParserError(text));
    }
    table.columns.push(made);
    Ok(())
}

fn primary_key(parser: &mut Parser<'_>, table: &mut Table) -> Result<(), ParserError> {
    table.primary_key = names(parser)?;
    not_enforced(parser)
}

fn not_enforced(parser: &mut Parser<'_>) -> Result<(), ParserError> {
    parser.expect_keyword(Keyword::NOT)?;
    match word(parser, "ENFORCED") {
        true => Ok(()),
        false => {
            let found = parser.peek_token();
            parser.expected("ENFORCED, which is all that Flink has", found)
        }
    }
}

fn column(parser: &mut Parser<'_>, table: &mut Table) -> Result<Column, ParserError> {
    let mut column = Column {
        name: parser.parse_identifier()?.value,
        nullable: true,
        ..Column::default()
    };
    if parser.parse_keyword(Keyword::AS) {
        column.computed = Some(parser.parse_expr()?.to_string());
        comment(parser)?;
        return Ok(column);
    }
    let begin = parser.index();
    types::read(parser, 0)?;
    column.sql_type = written(parser, begin);
    column.nullable = types::nullable(parser);
    if parser.parse_keywords(&[Keyword::PRIMARY, Keyword::KEY]) {
        not_enforced(parser)?;
        table.primary_key = vec![column.name.clone()];
        column.nullable = false;
    }
    if word(parser, "METADATA") {
        column.metadata = Some(match parser.parse_keyword(Keyword::FROM) {
            true => quoted(parser)?,
            false => column.name.clone(),
        });
        word(parser, "VIRTUAL");
    }
    comment(parser)?;
    Ok(column)
}

/// The text of the tokens from an index on.
fn written(parser: &mut Parser<'_>, begin: usize) -> String {
    let end = parser.index();
    let mut tokens = Vec::new();
    while parser.index() > begin {
        parser.prev_token();
    }
    while parser.index() < end {
        tokens.push(parser.next_token().token.to_string());
    }
    let text = tokens.join(" ");
    ["( ", "< "]
        .into_iter()
        .fold(text, |text, open| text.replace(open, open.trim_end()))
        .replace(" (", "(")
        .replace(" <", "<")
        .replace(" >", ">")
        .replace(" )", ")")
        .replace(" ,", ",")
}

/// `WATERMARK FOR column AS column [- INTERVAL ...]`
fn watermark(parser: &mut Parser<'_>, table: &mut Table) -> Result<(), ParserError> {
    let column = parser.parse_identifier()?;
    parser.expect_keyword(Keyword::AS)?;
    let place = parser.peek_token().span.start;
    let expr = parser.parse_expr()?;
    let is_column = |expr: &Expr| matches!(expr, Expr::Identifier(name) if name.value == column.value);
    let delay_ms = match &expr {
        expr if is_column(expr) => Some(0),
        Expr::BinaryOp {
            left,
            op: BinaryOperator::Minus,
            right,
        } if is_column(left) => interval::of_sql(right).filter(|delay| *delay >= 0),
        _ => None,
    };
    let Some(delay_ms) = delay_ms else {
        return Err(ParserError::ParserError(format!(
            "A watermark is '{0}' or '{0} - INTERVAL ...', not '{expr}' at Line: {1}, Column: {2}",
            column.value, place.line, place.column
        )));
    };
    if table.rowtime.is_some() {
        return Err(ParserError::ParserError("A table has one watermark".to_owned()));
    }
    table.rowtime = Some(Rowtime {
        column: column.value,
        delay_ms,
    });
    Ok(())
}

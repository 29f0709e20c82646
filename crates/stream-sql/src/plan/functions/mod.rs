//! The functions of statements: DataFusion's, and those of Flink that it has not or that do something else there. What
//! gives another value each time it is called is left out: a job that is restored must give the same rows.

mod lists;
mod rank;
mod text;
mod times;

use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::DataType;
use datafusion_common::{DFSchema, DataFusionError, Result, ScalarValue, exec_err};
use datafusion_expr::expr::ScalarFunction;
use datafusion_expr::planner::{ExprPlanner, PlannerResult, RawAggregateExpr, RawFieldAccessExpr};
use datafusion_expr::{
    AggregateUDF, ColumnarValue, Expr, ExprSchemable, GetFieldAccess, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility, WindowUDF, lit,
};

/// Functions of DataFusion that are not there: they ask a clock or chance, or the program that they run in.
const LEFT_OUT: &[&str] = &[
    "now",
    "current_timestamp",
    "current_date",
    "today",
    "current_time",
    "random",
    "uuid",
    "version",
    "arrow_cast",
    "arrow_typeof",
    "arrow_metadata",
    "arrow_try_cast",
    "input_file_name",
    "file_row_index",
    "with_metadata",
];

/// Aggregates by Flink's names.
const AGGREGATES: &[(&str, &str)] = &[
    ("count", "count"),
    ("sum", "sum"),
    ("avg", "avg"),
    ("min", "min"),
    ("max", "max"),
    ("first_value", "first_value"),
    ("last_value", "last_value"),
    ("listagg", "string_agg"),
    ("stddev", "stddev"),
    ("stddev_samp", "stddev"),
    ("stddev_pop", "stddev_pop"),
    ("var_pop", "var_pop"),
    ("var_samp", "var"),
    ("variance", "var"),
    ("array_agg", "array_agg"),
];

/// Functions by their names in small letters.
#[derive(Debug)]
pub(super) struct Functions {
    scalars: HashMap<String, Arc<ScalarUDF>>,
    aggregates: HashMap<String, Arc<AggregateUDF>>,
    row_number: Arc<WindowUDF>,
}

impl Functions {
    pub fn new() -> Functions {
        let mut scalars = HashMap::new();
        for function in datafusion_functions::all_default_functions() {
            let names = std::iter::once(function.name()).chain(function.aliases().iter().map(String::as_str));
            for name in names.filter(|name| !LEFT_OUT.contains(name)) {
                scalars.insert(name.to_owned(), Arc::clone(&function));
            }
        }
        for function in times::all().into_iter().chain(text::all()).chain(lists::all()) {
            let function = Arc::new(ScalarUDF::new_from_impl(function));
            scalars.insert(function.name().to_owned(), function);
        }
        for (flink, known) in [("regexp", "regexp_like"), ("truncate", "trunc"), ("ceiling", "ceil")] {
            if let Some(function) = scalars.get(known).cloned() {
                scalars.insert(flink.to_owned(), function);
            }
        }
        let all = datafusion_functions_aggregate::all_default_aggregate_functions();
        let mut aggregates = HashMap::new();
        for (flink, known) in AGGREGATES {
            let is =
                |one: &&Arc<AggregateUDF>| one.name() == *known || one.aliases().iter().any(|alias| alias == known);
            if let Some(function) = all.iter().find(is) {
                aggregates.insert((*flink).to_owned(), Arc::clone(function));
            }
        }
        Functions {
            scalars,
            aggregates,
            row_number: Arc::new(WindowUDF::new_from_impl(rank::RowNumber::new())),
        }
    }

    pub fn scalar(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.scalars.get(&name.to_ascii_lowercase()).cloned()
    }

    pub fn aggregate(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.aggregates.get(&name.to_ascii_lowercase()).cloned()
    }

    pub fn window(&self, name: &str) -> Option<Arc<WindowUDF>> {
        name.eq_ignore_ascii_case(rank::ROW_NUMBER)
            .then(|| Arc::clone(&self.row_number))
    }

    pub fn names(&self) -> Vec<String> {
        self.scalars.keys().cloned().collect()
    }

    pub fn aggregate_names(&self) -> Vec<String> {
        self.aggregates.keys().cloned().collect()
    }
}

pub(super) use rank::ROW_NUMBER;

type Returns = fn(&[DataType]) -> Result<DataType>;
type Run = fn(&[ArrayRef], usize) -> Result<ArrayRef>;

/// A function over whole columns.
#[derive(Clone)]
pub(super) struct Simple {
    name: &'static str,
    signature: Signature,
    returns: Returns,
    run: Run,
}

impl Simple {
    pub(super) fn new(name: &'static str, signature: Signature, returns: Returns, run: Run) -> Simple {
        Simple {
            name,
            signature,
            returns,
            run,
        }
    }
}

impl fmt::Debug for Simple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for Simple {
    fn eq(&self, other: &Simple) -> bool {
        self.name == other.name
    }
}

impl Eq for Simple {}

impl Hash for Simple {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Simple {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        (self.returns)(types)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let arrays = args.args.into_iter().map(|arg| arg.into_array(rows));
        let arrays = arrays.collect::<Result<Vec<ArrayRef>>>()?;
        let made = (self.run)(&arrays, rows)?;
        Ok(match constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&made, 0)?),
            false => ColumnarValue::Array(made),
        })
    }
}

pub(super) fn any(arguments: usize) -> Signature {
    Signature::any(arguments, Volatility::Immutable)
}

pub(super) fn exact(types: Vec<DataType>) -> Signature {
    Signature::exact(types, Volatility::Immutable)
}

/// The column as an array of a kind.
pub(super) fn typed<T: 'static>(arrays: &[ArrayRef], at: usize) -> Result<&T> {
    let array = arrays.get(at).and_then(|array| array.as_any().downcast_ref::<T>());
    match array {
        Some(array) => Ok(array),
        None => exec_err!("argument {} is missing or of another type", at + 1),
    }
}

pub(super) fn arrow(error: ::arrow::error::ArrowError) -> DataFusionError {
    error.into()
}

/// `list[1]`, `map['key']`, `row.field`, and `LISTAGG` without a separator.
#[derive(Debug)]
pub(super) struct Access;

impl ExprPlanner for Access {
    fn plan_field_access(
        &self,
        expr: RawFieldAccessExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawFieldAccessExpr>> {
        let get_field = datafusion_functions::core::get_field;
        let call = |function: Arc<ScalarUDF>, args: Vec<Expr>| {
            Ok(PlannerResult::Planned(Expr::ScalarFunction(ScalarFunction::new_udf(
                function, args,
            ))))
        };
        match expr.field_access {
            GetFieldAccess::NamedStructField { name } => call(get_field(), vec![expr.expr, Expr::Literal(name, None)]),
            GetFieldAccess::ListIndex { key } => match expr.expr.get_type(schema)? {
                DataType::Map(..) => call(get_field(), vec![expr.expr, *key]),
                _ => call(
                    Arc::new(ScalarUDF::new_from_impl(lists::element())),
                    vec![expr.expr, *key],
                ),
            },
            field_access @ GetFieldAccess::ListRange { .. } => Ok(PlannerResult::Original(RawFieldAccessExpr {
                field_access,
                expr: expr.expr,
            })),
        }
    }

    fn plan_aggregate(&self, mut expr: RawAggregateExpr) -> Result<PlannerResult<RawAggregateExpr>> {
        if expr.func.name() == "string_agg" && expr.args.len() == 1 {
            expr.args.push(lit(","));
        }
        Ok(PlannerResult::Original(expr))
    }
}

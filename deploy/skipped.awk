# Lists the Rust tests that were skipped and why, out of what `cargo test -- --show-output` printed: a test that cannot run
# here says "skipped: <reason>" and passes.
/^---- .* stdout ----$/ { test = $2 }
/^skipped: / { skipped[++count] = test ": " substr($0, 10) }
END {
    print count ? count " Rust tests were skipped:" : "No Rust test was skipped."
    for (at = 1; at <= count; at++) print "  " skipped[at]
}

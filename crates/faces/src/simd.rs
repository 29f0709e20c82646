//! The inner loops of a search, each written once and compiled for the vector units of several generations of
//! processors; the one that runs is chosen by what the processor has. The results do not depend on it: no step is
//! reordered or fused between them.

#![allow(
    unsafe_code,
    reason = "a function that is compiled for a vector unit may be called where the processor has that unit, which is \
              looked up right before each call"
)]

use crate::sketch::PLANES;

/// Sums kept apart in a dot product, so that the compiler can use the widest vector unit.
const LANES: usize = 16;

/// Defines a function that runs `$body`, compiled for the best vector unit there is.
macro_rules! for_the_widest_unit {
    ($(#[$doc:meta])* $name:ident = $body:ident($($argument:ident: $kind:ty),*)) => {
        $(#[$doc])*
        pub(crate) fn $name($($argument: $kind),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vpopcntdq")]
                fn with_avx512($($argument: $kind),*) {
                    $body($($argument),*);
                }
                #[target_feature(enable = "avx2,popcnt")]
                fn with_avx2($($argument: $kind),*) {
                    $body($($argument),*);
                }
                use std::arch::is_x86_feature_detected as has;
                if has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") && has!("avx512vpopcntdq") {
                    // SAFETY: the processor has every unit that the function is compiled for.
                    return unsafe { with_avx512($($argument),*) };
                }
                if has!("avx2") && has!("popcnt") {
                    // SAFETY: as above.
                    return unsafe { with_avx2($($argument),*) };
                }
            }
            $body($($argument),*);
        }
    };
}

for_the_widest_unit!(
    /// The dot products of `probe` with the vectors that lie side by side in `rows`, as many as `out` has room for.
    dots = dots_of(probe: &[f32], rows: &[f32], out: &mut [f32])
);

for_the_widest_unit!(
    /// What the sketches of one chunk score against the planes of a probe, for as many as `out` has room for. `sketches`
    /// has the first words of all sketches, then their second words, and so on; `capacity` words each.
    score = scores_of(planes: &[[u64; PLANES]], sketches: &[u64], capacity: usize, out: &mut [i16])
);

/// Has the processor fetch a vector that is compared soon, while it compares others.
pub(crate) fn fetch(row: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    for line in row.chunks(LANES) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: the address is one of a slice, every processor of this kind has the instruction, and it changes nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = row;
}

#[inline(always)]
fn dots_of(probe: &[f32], rows: &[f32], out: &mut [f32]) {
    for (product, row) in out.iter_mut().zip(rows.chunks_exact(probe.len().max(1))) {
        *product = dot(probe, row);
    }
}

/// The dot product of two vectors of one length.
#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = (a_chunks.remainder().iter().zip(b_chunks.remainder()))
        .map(|(x, y)| x * y)
        .sum();
    for (x, y) in a_chunks.zip(b_chunks) {
        for ((sum, x), y) in sums.iter_mut().zip(x).zip(y) {
            *sum += x * y;
        }
    }
    rest + sums.iter().sum::<f32>()
}

#[inline(always)]
fn scores_of(planes: &[[u64; PLANES]], sketches: &[u64], capacity: usize, out: &mut [i16]) {
    out.fill(0);
    for (planes, column) in planes.iter().zip(sketches.chunks_exact(capacity.max(1))) {
        let [ones, twos, fours, eights] = *planes;
        for (score, &bits) in out.iter_mut().zip(column) {
            let count = |plane: u64| (bits & plane).count_ones() as i16;
            *score += count(ones) + 2 * count(twos) + 4 * count(fours) - 8 * count(eights);
        }
    }
}

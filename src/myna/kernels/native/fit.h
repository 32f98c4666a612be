// The scale, and the base, with which groups of numbers are rounded at the least loss; kernels/quantize.py says when.
#pragma once
#include "simd.h"

namespace myna {

constexpr int REFINED = 2;  // times that the best scale and base round once more and are fitted to what comes out
constexpr float TIE = 1e-7f;

// `groups` times `columns` numbers x, one group after the other; columns are a multiple of 16, at most 128.
// x is near scale * q + base, where q is a whole number from low to high and base is at most `most`; with no `base`, 0.
struct Fit {
    const float* x;
    float *scale, *base;  // out: [groups]
    const float* tries;   // [count][2]: into how many steps to cut the range, and what to add before rounding
    int64_t groups, columns, count;
    float low, high, most;
};

// Sixteen groups, a lane each: number c of all of them is at y[16 c].
struct Sixteen {
    float y[16 * 128];
    f32x16 limit;              // of the base
    f32x16 loss, scale, base;  // the best so far
};

// Round as z = y * inverse + offset says, find the scale and base that fit the rounded numbers q best, keep them if they lose
// less. All is done on z - q, which is small, so that float32 can tell one try in 8 bits from another. Of two tries without
// loss the one with smaller steps wins: TIE steps squared are added.
template <bool BASED> inline void attempt(const Fit& f, Sixteen& s, f32x16 inverse, f32x16 offset) {
    f32x16 q1 = set1(0), q2 = q1, e1 = q1, e2 = q1, qe = q1, n = set1(float(f.columns)), two = set1(2);
    for (int64_t c = 0; c < f.columns; c++) {
        f32x16 z = fma(load(s.y + 16 * c), inverse, offset);
        f32x16 q = to_float(to_int(min(max(z, set1(f.low)), set1(f.high)))), e = sub(z, q);  // a NaN becomes low, its e stays one
        q2 = fma(q, q, q2), e2 = fma(e, e, e2), qe = fma(q, e, qe);
        if (BASED) q1 = add(q1, q), e1 = add(e1, e);
    }
    // e is near slope * q + shift.
    f32x16 shift = set1(0);
    if (BASED) {
        f32x16 slope = div(sub(mul(n, qe), mul(q1, e1)), sub(mul(n, q2), mul(q1, q1)));
        shift = min(div(sub(e1, mul(slope, q1)), n), fma(s.limit, inverse, offset));
    }
    f32x16 slope = div(sub(qe, mul(shift, q1)), q2);  // NaN where all q are 0, and so is the loss, which is never less
    f32x16 loss = fma(slope, sub(fma(slope, q2, mul(mul(two, shift), q1)), mul(two, qe)), e2);
    loss = fma(shift, sub(mul(shift, n), mul(two, e1)), loss);
    f32x16 step = div(set1(1), inverse);
    loss = mul(fma(n, set1(TIE), max(set1(0), loss)), mul(step, step));
    f32x16 scale = fma(slope, step, step), base = mul(sub(shift, offset), step);
    s.scale = if_greater(s.loss, loss, scale, s.scale), s.base = if_greater(s.loss, loss, base, s.base);
    s.loss = if_greater(s.loss, loss, loss, s.loss);
}

template <bool BASED> inline void fit_sixteen(const Fit& f, const float* x, float* scale, float* base) {
    Sixteen s;
    for (int64_t c = 0; c < f.columns; c += 16)
        transpose(reinterpret_cast<const uint8_t*>(x + c), 4 * f.columns, reinterpret_cast<uint32_t*>(s.y + 16 * c), 16);
    f32x16 least = load(s.y), most = least;
    for (int64_t c = 1; c < f.columns; c++) least = min(least, load(s.y + 16 * c)), most = max(most, load(s.y + 16 * c));
    f32x16 start = BASED ? min(least, set1(f.most)) : set1(0);
    f32x16 range = BASED ? sub(most, start) : if_greater(most, sub(set1(0), least), most, least);
    for (int64_t c = 0; BASED && c < f.columns; c++) store(s.y + 16 * c, sub(load(s.y + 16 * c), start));
    s.limit = sub(set1(f.most), start), s.loss = set1(INFINITY);
    s.scale = s.base = set1(0);  // where all are alike no try is a number
    for (int64_t i = 0; i < f.count; i++) attempt<BASED>(f, s, div(set1(f.tries[2 * i]), range), set1(f.tries[2 * i + 1]));
    for (int i = 0; i < REFINED; i++) {
        f32x16 inverse = div(set1(1), s.scale);
        attempt<BASED>(f, s, inverse, sub(set1(0), mul(s.base, inverse)));
    }
    store(scale, s.scale);
    if (BASED) store(base, add(s.base, start));
}

inline void fit(const Fit& f) {
    auto some = [&](const float* x, float* scale, float* base) {
        base ? fit_sixteen<true>(f, x, scale, base) : fit_sixteen<false>(f, x, scale, base);
    };
    int64_t whole = f.groups / 16 * 16, left = f.groups - whole;
    for (int64_t g = 0; g < whole; g += 16) some(f.x + g * f.columns, f.scale + g, f.base ? f.base + g : nullptr);
    if (!left) return;
    float x[16 * 128] = {}, scale[16], base[16];
    std::memcpy(x, f.x + whole * f.columns, left * f.columns * sizeof(float));
    some(x, scale, f.base ? base : nullptr);
    std::memcpy(f.scale + whole, scale, left * sizeof(float));
    if (f.base) std::memcpy(f.base + whole, base, left * sizeof(float));
}

}  // namespace myna

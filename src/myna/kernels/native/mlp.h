// The hidden layer of an MLP, from its quantized input to its quantized numbers, which are never written down between.
#pragma once
#include <vector>

#include "adapt.h"

namespace myna {

enum Activation { SILU = 0, GELU_TANH = 1, GELU = 2, RELU = 3 };

inline f32x16 sigmoid(f32x16 x) { return div(set1(1), add(set1(1), exp(sub(set1(0), x)))); }

inline f32x16 activate(int kind, f32x16 x) {
    if (kind == SILU) return mul(x, sigmoid(x));
    if (kind == RELU) return max(set1(0), x);  // a NaN stays one
    if (kind == GELU_TANH) {  // 0.5 x (1 + tanh(y)) = x sigmoid(2 y)
        f32x16 y = mul(x, fma(mul(x, x), set1(0.044715f), set1(1)));
        return mul(x, sigmoid(mul(y, set1(2 * 0.7978845608028654f))));
    }
    float v[16];
    store(v, x);
    for (float& y : v) y = 0.5f * y * (1 + std::erf(y * 0.70710678118654752f));
    return load(v);
}

// act(gate) * up, or act(gate) alone. A unit of the gate and the same unit of `up` make one group.
struct Hidden {
    int64_t n, k;
    int activation;
    Packed weights[2];     // gate and up; up's units may be null
    const float* bias[2];  // each may be null
    void* out;
    const Adapters* adapters;  // may be null
};

// The 32 numbers of one unit of a weight with its bias, of every row of a stretch.
template <class Store> void unit_of(const Hidden& h, int which, int64_t unit, const Stretch& x, Store store) {
    auto biased = [&](int64_t row, const f32x16(&sums)[2]) {
        int64_t at = unit * UNIT, left = h.bias[which] ? h.n - at : 0;
        f32x16 y[2];
        for (int j = 0; j < 2; j++, left -= 16)
            y[j] = left > 0 ? add(sums[j], load_some(h.bias[which] + at + 16 * j, left < 16 ? int(left) : 16)) : sums[j];
        if (h.adapters) expand_unit(*h.adapters, row, which * h.n, unit, y);
        store(row, y);
    };
    const Packed& w = h.weights[which];
    const uint8_t* at = w.units + unit * unit_bytes(w.format, w.span, x.groups);
    switch (w.format) {
        case Q8: return each_tile<Q8>(at, w.span, x, biased);
        case Q4S: return each_tile<Q4S>(at, w.span, x, biased);
        case Q4A: return each_tile<Q4A>(at, w.span, x, biased);
        case Q4K: return each_tile<Q4K>(at, w.span, x, biased);
        case Q6K: return each_tile<Q6K>(at, w.span, x, biased);
    }
}

inline void hidden_unit(const Hidden& h, int64_t unit, const Stretch& x) {
    static thread_local std::vector<float> gates;
    if (int64_t(gates.size()) < (x.last - x.first) * UNIT) gates.resize((x.last - x.first) * UNIT);
    auto quantized = [&](int64_t row, f32x16 a, f32x16 b) { quantize_group(a, b, row_at(h.out, row, groups_of(h.n))[unit]); };
    unit_of(h, 0, unit, x, [&](int64_t row, const f32x16(&y)[2]) {
        f32x16 a = activate(h.activation, y[0]), b = activate(h.activation, y[1]);
        if (!h.weights[1].units) return quantized(row, a, b);
        float* gate = &gates[(row - x.first) * UNIT];
        store(gate, a), store(gate + 16, b);
    });
    if (!h.weights[1].units) return;
    unit_of(h, 1, unit, x, [&](int64_t row, const f32x16(&y)[2]) {
        const float* gate = &gates[(row - x.first) * UNIT];
        quantized(row, mul(load(gate), y[0]), mul(load(gate + 16), y[1]));
    });
}

inline void hidden(const Hidden& h, void* in, int64_t m) {
    int64_t bytes = 0;
    for (const Packed& w : h.weights)
        if (w.units) bytes += unit_bytes(w.format, w.span, groups_of(h.k));
    each_unit(h.n, h.k, bytes, in, m, [&](int64_t unit, const Stretch& x) { hidden_unit(h, unit, x); });
}

}  // namespace myna

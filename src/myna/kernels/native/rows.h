// What happens to a row of activations between two products: norms and rotation.
#pragma once
#include "linear.h"

namespace myna {

// 1 / rms(x), Zhang and Sennrich 2019.
inline float inverse_rms(const float* x, int64_t k, float eps) {
    f32x16 squares = set1(0);
    for (int64_t i = 0; i < k; i += 16) {
        f32x16 v = load_some(x + i, k - i < 16 ? int(k - i) : 16);
        squares = fma(v, v, squares);
    }
    return 1 / std::sqrt(sum(squares) / float(k) + eps);
}

// out = x / rms(x) * weight, or out += that.
inline void rms_norm(const float* x, const float* weight, int64_t k, float eps, float* out, bool adds) {
    f32x16 factor = set1(inverse_rms(x, k, eps));
    for (int64_t i = 0; i < k; i += 16) {
        int n = k - i < 16 ? int(k - i) : 16;
        f32x16 y = mul(mul(load_some(x + i, n), factor), load_some(weight + i, n));
        store_some(out + i, adds ? add(y, load_some(out + i, n)) : y, n);
    }
}

// Quantize a row, normalised where there is a weight.
inline void quantize(const float* x, const float* weight, int64_t k, float eps, Row row) {
    if (!weight) return quantize_row(k, row, [&](int64_t i, int n) { return load_some(x + i, n); });
    f32x16 factor = set1(inverse_rms(x, k, eps));
    quantize_row(k, row, [&](int64_t i, int n) { return mul(mul(load_some(x + i, n), factor), load_some(weight + i, n)); });
}

// Turn channel i with channel i + half; channels from 2 half on stay (the layout of transformers).
inline void rotate(float* head, const float* cos, const float* sin, int64_t half) {
    for (int64_t i = 0; i < half; i += 16) {
        int n = half - i < 16 ? int(half - i) : 16;
        f32x16 a = load_some(head + i, n), b = load_some(head + half + i, n);
        f32x16 c = load_some(cos + i, n), s = load_some(sin + i, n);
        store_some(head + i, sub(mul(a, c), mul(b, s)), n);
        store_some(head + half + i, add(mul(b, c), mul(a, s)), n);
    }
}

struct Heads {
    int64_t ld, queries, keys, dim, half;
    const float *cos, *sin, *q_norm, *k_norm;  // each may be null
    float eps;
    uint16_t *key_pages, *value_pages;  // bfloat16 [block][keys][BLOCK][dim]
};

// Normalise and rotate the queries and keys of a row in place; store its keys and values in their slot.
inline void place_row(const Heads& h, float* row, int64_t position, int64_t slot) {
    for (int64_t head = 0; head < h.queries + h.keys; head++) {
        float* x = row + head * h.dim;
        const float* norm = head < h.queries ? h.q_norm : h.k_norm;
        if (norm) rms_norm(x, norm, h.dim, h.eps, x, false);
        if (h.cos) rotate(x, h.cos + position * h.half, h.sin + position * h.half, h.half);
    }
    const float *k = row + h.queries * h.dim, *v = k + h.keys * h.dim;
    for (int64_t head = 0; head < h.keys; head++) {
        int64_t to = ((slot / BLOCK * h.keys + head) * BLOCK + slot % BLOCK) * h.dim;
        for (int64_t i = 0; i < h.dim; i += 16) {
            store_bf16(h.key_pages + to + i, load(k + head * h.dim + i));
            store_bf16(h.value_pages + to + i, load(v + head * h.dim + i));
        }
    }
}

}  // namespace myna

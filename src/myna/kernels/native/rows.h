// What happens to a row of activations between two products: rotation, heads, places.
#pragma once
#include "norms.h"

namespace myna {

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

inline void add_row(const float* x, int64_t k, float* out) {
    for (int64_t i = 0; i < k; i += 16) store_some(out + i, add(load_some(out + i, some(k - i)), load_some(x + i, some(k - i))), some(k - i));
}

struct Heads {
    int64_t ld, queries, keys, dim, half;
    const float *cos, *sin, *q_norm, *k_norm;  // each may be null
    float eps;
};

// Normalise and rotate the queries and keys of a row in place.
inline void turn(const Heads& h, float* row, int64_t position) {
    for (int64_t head = 0; head < h.queries + h.keys; head++) {
        float* x = row + head * h.dim;
        const float* norm = head < h.queries ? h.q_norm : h.k_norm;
        if (norm) normalise({norm, nullptr, h.eps}, x, h.dim, x, false);
        if (h.cos) rotate(x, h.cos + position * h.half, h.sin + position * h.half, h.half);
    }
}

}  // namespace myna

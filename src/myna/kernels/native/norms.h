// A row of activations normalised: rms norm (Zhang and Sennrich 2019) and layer norm (Ba et al. 2016).
#pragma once
#include "linear.h"

namespace myna {

struct Norm {
    const float *weight, *bias;  // a bias makes it a layer norm
    float eps;
};

struct Moments {
    float mean, factor;  // factor: 1 / rms of x - mean
};

inline int some(int64_t left) { return left < 16 ? int(left) : 16; }

// The mean is zero for an rms norm. Two passes: the squares of what is left when the mean is gone, so a large mean costs
// no precision.
inline Moments moments(const Norm& norm, const float* x, int64_t k) {
    float mean = 0;
    if (norm.bias) {
        f32x16 total = set1(0);
        for (int64_t i = 0; i < k; i += 16) total = add(total, load_some(x + i, some(k - i)));
        mean = sum(total) / float(k);
    }
    f32x16 squares = set1(0);
    for (int64_t i = 0; i < k; i += 16) {
        f32x16 v = load_some(x + i, some(k - i));
        if (norm.bias) v = sub(v, set1(mean));
        if (k - i < 16) v = keep(v, 0, some(k - i), 0);
        squares = fma(v, v, squares);
    }
    return {mean, 1 / std::sqrt(sum(squares) / float(k) + norm.eps)};
}

// n normalised numbers from column i.
inline f32x16 normalised(const Norm& norm, Moments m, const float* x, int64_t i, int n) {
    f32x16 y = load_some(x + i, n), weight = load_some(norm.weight + i, n);
    if (!norm.bias) return mul(mul(y, set1(m.factor)), weight);
    return add(mul(mul(sub(y, set1(m.mean)), set1(m.factor)), weight), load_some(norm.bias + i, n));
}

// out = the norm of x, or out += that; out may be x.
inline void normalise(const Norm& norm, const float* x, int64_t k, float* out, bool adds) {
    Moments m = moments(norm, x, k);
    for (int64_t i = 0; i < k; i += 16) {
        int n = some(k - i);
        f32x16 y = normalised(norm, m, x, i, n);
        store_some(out + i, adds ? add(y, load_some(out + i, n)) : y, n);
    }
}

// Quantize a row, normalised where there is a weight.
inline void quantize(const Norm& norm, const float* x, int64_t k, Row row) {
    if (!norm.weight) return quantize_row(k, row, [&](int64_t i, int n) { return load_some(x + i, n); });
    Moments m = moments(norm, x, k);
    quantize_row(k, row, [&](int64_t i, int n) { return normalised(norm, m, x, i, n); });
}

}  // namespace myna

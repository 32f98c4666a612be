// A mixture of experts (Shazeer et al. 2017): each row is routed to the few experts its router likes best, the rows are
// dealt to the experts, and what those give back is summed in order of expert. A pair is a row at one of its experts;
// pairs are numbered expert by expert, so that an expert's pairs are neighbours and one product covers them. Nothing a row
// goes through depends on its batch mates but the number of its pair.
#pragma once
#include <vector>

#include "norms.h"

namespace myna {

// Mirrored by Routes in kernels/routes.py.
struct Routes {
    int32_t pairs, reserved;
    int32_t* counts;   // [expert] its pairs
    int32_t* starts;   // [expert] its first pair
    int32_t* owners;   // [pair] its row
    int32_t* chosen;   // [row][top_k] experts, ascending
    int32_t* numbers;  // [row][top_k] of its pairs
    float* weights;    // [row][top_k]
    float* gates;      // [row] of the shared expert
};

struct Router {
    int64_t ld, k, experts, top_k;
    bool normalised;       // the chosen weights are made to sum to 1
    const float *x, *router, *gate;  // [row][ld], [expert][k], the shared expert's [k] or null
    Routes* routes;
};

// out[r][e] = x_r . w_e. Each is summed in the same order whatever R and E are.
template <int R, int E> void dots(const float* x, int64_t ld, const float* w, int64_t k, float* out, int64_t out_ld) {
    f32x16 sums[R][E];
    for (int r = 0; r < R; r++)
        for (int e = 0; e < E; e++) sums[r][e] = set1(0);
    for (int64_t i = 0; i < k; i += 16) {
        f32x16 v[E];
        for (int e = 0; e < E; e++) v[e] = load_some(w + e * k + i, some(k - i));
        for (int r = 0; r < R; r++) {
            f32x16 u = load_some(x + r * ld + i, some(k - i));
            for (int e = 0; e < E; e++) sums[r][e] = fma(u, v[e], sums[r][e]);
        }
    }
    for (int r = 0; r < R; r++)
        for (int e = 0; e < E; e++) out[r * out_ld + e] = sum(sums[r][e]);
}

// p = exp(p - the largest), and the sum of that.
inline float exponentials(float* p, int64_t n) {
    float most = p[0], total = 0;
    for (int64_t i = 1; i < n; i++) most = p[i] > most ? p[i] : most;
    for (int64_t i = 0; i < n; i += 16) {
        f32x16 e = exp(sub(load_some(p + i, some(n - i)), set1(most)));
        store_some(p + i, e, some(n - i));
        total += sum(keep(e, 0, some(n - i), 0));
    }
    return total;
}

// The most probable experts, the lower one where two are alike; in a row that is not finite the lowest, with weights NaN.
inline void choose(const Router& r, float* p, int64_t row) {
    float total = exponentials(p, r.experts), kept = 0;
    int32_t* chosen = r.routes->chosen + row * r.top_k;
    float* weights = r.routes->weights + row * r.top_k;
    static thread_local std::vector<char> taken;
    taken.assign(r.experts, 0);
    for (int64_t n = 0; n < r.top_k; n++) {
        int64_t best = -1;
        for (int64_t e = 0; e < r.experts; e++)
            if (!taken[e] && (best < 0 || p[e] > p[best])) best = e;
        taken[best] = 1, kept += p[best];
    }
    float all = r.normalised ? kept : total;
    for (int64_t e = 0, n = 0; e < r.experts; e++)
        if (taken[e]) chosen[n] = int32_t(e), weights[n++] = p[e] / all;
}

template <int R> void route_rows(const Router& r, int64_t row) {
    static thread_local std::vector<float> scores;
    scores.resize(R * r.experts);
    const float* x = r.x + row * r.ld;
    int64_t e = 0;
    for (; e + 4 <= r.experts; e += 4) dots<R, 4>(x, r.ld, r.router + e * r.k, r.k, &scores[e], r.experts);
    for (; e < r.experts; e++) dots<R, 1>(x, r.ld, r.router + e * r.k, r.k, &scores[e], r.experts);
    for (int i = 0; i < R; i++) choose(r, &scores[i * r.experts], row + i);
    if (!r.gate) return;
    float* gates = r.routes->gates + row;
    dots<R, 1>(x, r.ld, r.gate, r.k, gates, 1);
    for (int i = 0; i < R; i++) gates[i] = 1 / (1 + std::exp(-gates[i]));
}

// Four rows at a time share the reading of the router.
inline void route(const Router& r, int64_t begin, int64_t end) {
    for (; end - begin >= 4; begin += 4) route_rows<4>(r, begin);
    for (; begin < end; begin++) route_rows<1>(r, begin);
}

// Number the pairs: expert by expert, and at an expert in order of row.
inline void deal(Routes& r, int64_t rows, int64_t experts, int64_t top_k) {
    r.pairs = int32_t(rows * top_k);
    std::memset(r.counts, 0, experts * sizeof(int32_t));
    for (int64_t i = 0; i < r.pairs; i++) r.counts[r.chosen[i]]++;
    int32_t next = 0;
    for (int64_t e = 0; e < experts; e++) r.starts[e] = next, next += r.counts[e];
    std::memset(r.counts, 0, experts * sizeof(int32_t));
    for (int32_t i = 0; i < r.pairs; i++) {
        int32_t expert = r.chosen[i];
        r.numbers[i] = r.starts[expert] + r.counts[expert]++;
        r.owners[r.numbers[i]] = int32_t(i / top_k);
    }
}

// out = the weighted sum of a row's pairs in order of expert, then of the shared expert; or out += that.
inline void combine(const Routes& r, int64_t row, int64_t top_k, const float* pairs, const float* shared, int64_t k, float* out, bool adds) {
    const int32_t* numbers = r.numbers + row * top_k;
    const float* weights = r.weights + row * top_k;
    for (int64_t i = 0; i < k; i += 16) {
        int n = some(k - i);
        f32x16 y = set1(0);
        for (int64_t j = 0; j < top_k; j++) y = fma(load_some(pairs + numbers[j] * k + i, n), set1(weights[j]), y);
        if (shared) y = fma(load_some(shared + row * k + i, n), set1(r.gates[row]), y);
        store_some(out + i, adds ? add(load_some(out + i, n), y) : y, n);
    }
}

}  // namespace myna

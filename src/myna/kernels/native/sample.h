// Choosing a token from a row of logits: what records/sampling.py describes, in its order; engine/sample.py says the same
// in torch. A row is the work of one thread, so that nothing but the row decides.
#pragma once
#include <algorithm>
#include <cfloat>
#include <vector>

#include "pool.h"
#include "simd.h"

namespace myna {

// A row, and what was chosen. kernels/draw.py mirrors this field by field. The penalties change logits in place; they are
// put back.
struct Draw {
    float* logits;
    const int32_t* tokens;  // the prompt and the answer so far
    const int32_t* bias_ids;
    const float* biases;
    int32_t* top_ids;  // out: the `tops` likeliest, of which `found` are possible
    float* top_logprobs;
    const uint32_t* mask;  // bit t % 32 of word t / 32: token t may be chosen; null allows all
    int64_t count, prompt, biased, top_k, tops, found;
    double temperature, top_p, min_p, uniform;
    float repetition, presence, frequency, logprob;
    int32_t token, wants_logprob;  // token is -1 where the row is no distribution
};

struct Entry {
    float value;
    int32_t id;
};

inline bool likelier(Entry a, Entry b) { return a.value > b.value || (a.value == b.value && a.id < b.id); }

constexpr int64_t CHUNK = 1024;

struct Best {
    float value;
    int64_t id;  // the lowest that has it
    bool sound;  // no NaN, no infinity, and something is possible
};

inline Best best_of(const float* x, int64_t n) {
    Best best{-INFINITY, 0, true};
    f32x16 broken = set1(0);
    int64_t chunk = 0;
    for (int64_t begin = 0; begin < n; begin += CHUNK) {
        int64_t end = std::min(begin + CHUNK, n), i = begin;
        f32x16 most = set1(-INFINITY);
        for (; i + 16 <= end; i += 16) {
            f32x16 v = load(x + i);
            most = max(v, most);
            broken = fma(max(set1(-FLT_MAX), v), set1(0), broken);  // NaN once v is NaN or +inf; -inf may be
        }
        float largest_here = largest(most);
        for (; i < end; i++) {
            largest_here = std::max(largest_here, x[i]);
            if (!(x[i] <= FLT_MAX)) best.sound = false;
        }
        if (largest_here > best.value) best.value = largest_here, chunk = begin;
    }
    best.sound = best.sound && sum(broken) == 0 && best.value >= -FLT_MAX;
    for (best.id = chunk; best.id < n - 1 && x[best.id] != best.value;) best.id++;
    return best;
}

// w = e^((x - most) * slope), and their sum. n is at most CHUNK, a multiple of which w holds.
inline double weigh(const float* x, int64_t n, float most, float slope, float* w) {
    f32x16 total = set1(0);
    for (int64_t i = 0; i < n; i += 16) {
        int some = n - i < 16 ? int(n - i) : 16;
        store(w + i, exp(mul(sub(load_some(x + i, some), set1(most)), set1(slope))));
        for (int j = some; j < 16; j++) w[i + j] = 0;
        total = add(total, load(w + i));
    }
    return sum(total);
}

inline double total_weight(const float* x, int64_t n, float most, float slope) {
    float w[CHUNK];
    double total = 0;
    for (int64_t i = 0; i < n; i += CHUNK) total += weigh(x + i, std::min(CHUNK, n - i), most, slope, w);
    return total;
}

// The k likeliest that are possible, likeliest first.
inline void top(const float* x, int64_t n, int64_t k, std::vector<Entry>& found) {
    found.clear();
    float least = -INFINITY;  // what is no larger is not among them: of equals the lower id was there first
    auto keep = [&] {
        std::nth_element(found.begin(), found.begin() + (k - 1), found.end(), likelier);
        found.resize(k);
        least = found.back().value;
    };
    for (int64_t i = 0; i < n; i += 64) {
        const float* p = x + i;
        if (i + 64 <= n && !(largest(max(max(load(p), load(p + 16)), max(load(p + 32), load(p + 48)))) > least)) continue;
        for (int64_t j = i; j < std::min(i + 64, n); j++)
            if (x[j] > least) found.push_back({x[j], int32_t(j)});
        if (int64_t(found.size()) >= 2 * k + 64) keep();
    }
    if (int64_t(found.size()) > k) keep();
    std::sort(found.begin(), found.end(), likelier);
}

// Draws from all n tokens: the first at which the weights, added up in order of id, pass the noise.
inline int64_t draw_from_all(const float* x, int64_t n, float most, float slope, double uniform) {
    float w[CHUNK];
    static thread_local std::vector<double> sums;
    sums.clear();
    double total = 0, reached = 0;
    for (int64_t i = 0; i < n; i += CHUNK) {
        sums.push_back(weigh(x + i, std::min(CHUNK, n - i), most, slope, w));
        total += sums.back();
    }
    size_t chunk = 0;
    while (chunk + 1 < sums.size() && reached + sums[chunk] <= uniform * total) reached += sums[chunk++];
    int64_t begin = int64_t(chunk) * CHUNK, size = std::min(CHUNK, n - begin), last = 0;
    weigh(x + begin, size, most, slope, w);
    for (int64_t i = 0; i < size; i++) {
        if (w[i] > 0) last = i;
        if ((reached += w[i]) > uniform * total) break;
    }
    return begin + last;
}

// The same among these; weights of at least min_p of the likeliest's count. Reorders them.
inline int64_t draw_among(std::vector<Entry>& entries, float most, double temperature, double min_p, double uniform) {
    std::sort(entries.begin(), entries.end(), [](Entry a, Entry b) { return a.id < b.id; });
    auto weight = [&](Entry e) {
        double w = std::exp((double(e.value) - most) / temperature);
        return w >= min_p ? w : 0.0;
    };
    double total = 0, reached = 0;
    int64_t last = 0;
    for (Entry e : entries) total += weight(e);
    for (Entry e : entries) {
        double w = weight(e);
        if (w > 0) last = e.id;
        if ((reached += w) > uniform * total) break;
    }
    return last;
}

// Cut entries, likeliest first, to the fewest whose weight reaches `enough`; false if all of them do not.
inline bool cut_to(std::vector<Entry>& entries, float most, double temperature, double enough) {
    double reached = 0;
    for (size_t i = 0; i < entries.size(); i++) {
        reached += std::exp((double(entries[i].value) - most) / temperature);
        if (reached >= enough) {
            entries.resize(i + 1);
            return true;
        }
    }
    return false;
}

// The fewest likeliest of all n whose probability reaches p. Sorting a large vocabulary takes 10 ms and p rarely reaches
// far: so ever longer heads.
inline void nucleus(const float* x, int64_t n, float most, double temperature, double p, std::vector<Entry>& entries) {
    double enough = p * total_weight(x, n, most, float(1 / temperature));
    for (int64_t head = 64;; head *= 8) {
        top(x, n, std::min(head, n), entries);
        if (cut_to(entries, most, temperature, enough) || head >= n) return;
    }
}

inline int64_t draw(const Draw& d, int64_t n, Best best) {
    static thread_local std::vector<Entry> entries;
    double temperature = std::max(d.temperature, 1e-30);  // as COLDEST in engine/sample.py
    if (d.temperature == 0 || !(best.value <= FLT_MAX)) return best.id;
    bool some = d.top_k > 0 && d.top_k < n;
    if (some) top(d.logits, n, d.top_k, entries);
    if (some && d.top_p < 1) {
        double total = 0;
        for (Entry e : entries) total += std::exp((double(e.value) - best.value) / temperature);
        cut_to(entries, best.value, temperature, d.top_p * total);
    } else if (d.top_p < 1) {
        nucleus(d.logits, n, best.value, temperature, d.top_p, entries);
    } else if (!some && d.min_p > 0) {
        entries.clear();
        float least = float(best.value + temperature * std::log(d.min_p) - 1e-3 * (temperature + std::fabs(best.value)));
        for (int64_t i = 0; i < n; i++)
            if (d.logits[i] >= least) entries.push_back({d.logits[i], int32_t(i)});
    } else if (!some) {
        return draw_from_all(d.logits, n, best.value, float(1 / temperature), d.uniform);
    }
    return draw_among(entries, best.value, temperature, d.min_p, d.uniform);
}

// change(logit, times) for each different one of these tokens; `before` remembers what was there.
template <class F> void change_each(float* logits, const int32_t* tokens, int64_t count, int64_t n, std::vector<Entry>& before, F change) {
    static thread_local std::vector<int32_t> times;
    if (int64_t(times.size()) < n) times.resize(n);
    for (int64_t i = 0; i < count; i++) times[tokens[i]]++;
    for (int64_t i = 0; i < count; i++) {
        int32_t id = tokens[i], seen = times[id];
        if (!seen) continue;
        times[id] = 0, before.push_back({logits[id], id});
        logits[id] = change(logits[id], seen);
    }
}

inline void edit(const Draw& d, int64_t n, std::vector<Entry>& before) {
    for (int64_t i = 0; i < d.biased; i++) {
        before.push_back({d.logits[d.bias_ids[i]], d.bias_ids[i]});
        d.logits[d.bias_ids[i]] += d.biases[i];
    }
    float penalty = d.repetition, once = d.presence, each = d.frequency;
    if (penalty != 1)
        change_each(d.logits, d.tokens, d.count, n, before, [=](float x, int) { return x > 0 ? x / penalty : x * penalty; });
    if (once != 0 || each != 0)
        change_each(d.logits, d.tokens + d.prompt, d.count - d.prompt, n, before,
                    [=](float x, int times) { return x - (once + each * float(times)); });
}

// The logits, -inf where the mask has no bit. A copy: so much may be forbidden that putting it back costs more.
inline float* allow(const Draw& d, int64_t n) {
    static thread_local std::vector<float> allowed;
    if (int64_t(allowed.size()) < n) allowed.resize(n);
    for (int64_t i = 0; i < n; i += 32) {
        int64_t end = std::min(i + 32, n);
        uint32_t bits = d.mask[i / 32];
        if (bits == 0xffffffffu) std::copy(d.logits + i, d.logits + end, &allowed[i]);
        else std::fill(&allowed[i], &allowed[i] + (end - i), -INFINITY);
        for (int64_t j = i; bits != 0 && bits != 0xffffffffu && j < end; j++)
            if (bits >> (j - i) & 1) allowed[j] = d.logits[j];
    }
    return allowed.data();
}

inline void choose(Draw& d, int64_t n) {
    static thread_local std::vector<Entry> before;
    before.clear();
    Best best = best_of(d.logits, n);
    d.token = -1;
    if (!best.sound) return;
    double total = d.wants_logprob ? best.value + std::log(total_weight(d.logits, n, best.value, 1)) : 0;
    if (d.tops > 0) {
        static thread_local std::vector<Entry> entries;
        top(d.logits, n, std::min(d.tops, n), entries);
        d.found = int64_t(entries.size());
        for (int64_t i = 0; i < d.found; i++)
            d.top_ids[i] = entries[i].id, d.top_logprobs[i] = float(entries[i].value - total);
    }
    float* own = d.logits;
    if (d.mask) {
        d.logits = allow(d, n);
        best = best_of(d.logits, n);
    }
    if (best.sound) {
        edit(d, n, before);
        d.token = int32_t(draw(d, n, before.empty() ? best : best_of(d.logits, n)));
        for (size_t i = before.size(); i-- > 0;) d.logits[before[i].id] = before[i].value;
    }
    d.logits = own;
    if (d.token >= 0) d.logprob = float(d.logits[d.token] - total);
}

}  // namespace myna

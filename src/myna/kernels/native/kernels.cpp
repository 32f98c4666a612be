// The plain C interface: a program is an array of operations, run in order, each on all threads.
//
// Python describes the operations once and changes only what `rows` and Step point at; see kernels/program.py, which
// mirrors Op field by field. Nothing here knows a model: a new architecture is another array.
#include "adapt.h"
#include "attention.h"
#include "experts.h"
#include "fit.h"
#include "mlp.h"
#include "rows.h"
#include "sample.h"

using namespace myna;

extern "C" {

struct Op {
    int32_t code, kind;
    const int32_t* rows;  // how many
    void* p[8];
    int64_t n[8];
    float f[4];
};

const char* myna_level() { return MYNA_LEVEL; }
void myna_threads(int threads) { Pool::get().resize(threads); }
}

namespace {

enum Code {
    QUANTIZE = 0, HIDDEN = 1, LINEAR = 2, NORM = 3, EMBED = 4, PLACE = 5, ATTEND = 6,
    ADD_PLACES = 7, ROUTE = 8, DEAL = 9, COMBINE = 10, SHRINK = 11, EXPAND = 12
};

float* floats(void* p) { return static_cast<float*>(p); }
const int32_t* ints(void* p) { return static_cast<const int32_t*>(p); }

// Rows of about 16 thousand numbers are one claim: some 5 microseconds.
int64_t few(int64_t k) { return 16384 / (k + 1) + 1; }

template <class F> void each_row(const Op& op, int64_t k, F work) {
    parallel(*op.rows, few(k), [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; row++) work(row);
    });
}

// p: x, out rows, norm weight, which rows, norm bias; n: ld, k; f: eps
void do_quantize(const Op& op) {
    int64_t ld = op.n[0], k = op.n[1];
    Norm norm{floats(op.p[2]), floats(op.p[4]), op.f[0]};
    each_row(op, k, [&](int64_t row) {
        int64_t from = op.p[3] ? ints(op.p[3])[row] : row;
        quantize(norm, floats(op.p[0]) + from * ld, k, row_at(op.p[1], row, groups_of(k)));
    });
}

// Quantized rows of k columns from the first on that an operation works on: the one whose number its pointer i leads to.
int64_t first_of(const Op& op, int i) { return op.p[i] ? *ints(op.p[i]) : 0; }
void* rows_of(void* p, int64_t first, int64_t k) { return static_cast<uint8_t*>(p) + first * row_bytes(k); }

const Adapters* adapters(const Op& op) { return static_cast<const Adapters*>(op.p[7]); }

// p: rows, out rows, gate, its bias, up, its bias, first row, adapters; n: rows of each weight, columns, span of the gate, format and
// span of up; kind: activation and 16 times the gate's format
void do_hidden(const Op& op) {
    auto packed = [&](int64_t format, int64_t span, int i) { return Packed{int(format), span, static_cast<const uint8_t*>(op.p[i])}; };
    int64_t n = op.n[0], k = op.n[1], first = first_of(op, 6);
    hidden({n, k, op.kind % 16, {packed(op.kind / 16, op.n[2], 2), packed(op.n[3], op.n[4], 4)},
            {floats(op.p[3]), floats(op.p[5])}, rows_of(op.p[1], first, n), adapters(op)}, rows_of(op.p[0], first, k), *op.rows);
}

// p: rows, out, packed, bias, first row; n: rows of the weight, columns, ld of out, adds, span; kind: format
void do_linear(const Op& op) {
    int64_t first = first_of(op, 4);
    float* out = floats(op.p[1]) + first * op.n[2];
    Linear l{{op.kind, op.n[4], static_cast<uint8_t*>(op.p[2])}, op.n[0], op.n[1], op.n[2], floats(op.p[3]), out, op.n[3] != 0};
    linear(l, rows_of(op.p[0], first, op.n[1]), *op.rows);
}

// p: rows, -, -, -, -, -, -, adapters; n: columns
void do_shrink(const Op& op) { shrink(*adapters(op), op.p[0], op.n[0], *op.rows); }

// p: out, -, -, -, -, -, -, adapters; n: columns of out, ld of out
void do_expand(const Op& op) { expand(*adapters(op), floats(op.p[0]), op.n[0], op.n[1], *op.rows); }

// p: x, out, weight, bias; n: ld, k, ld of out, adds; f: eps
void do_norm(const Op& op) {
    Norm norm{floats(op.p[2]), floats(op.p[3]), op.f[0]};
    each_row(op, op.n[1], [&](int64_t row) {
        normalise(norm, floats(op.p[0]) + row * op.n[0], op.n[1], floats(op.p[1]) + row * op.n[2], op.n[3] != 0);
    });
}

// p: ids, out, packed; n: k, span; f: factor; kind: format
void do_embed(const Op& op) {
    each_row(op, op.n[0], [&](int64_t row) {
        unpack(op.kind, op.n[1], static_cast<uint8_t*>(op.p[2]), ints(op.p[0])[row], op.n[0], op.f[0], floats(op.p[1]) + row * op.n[0]);
    });
}

Pages pages_of(const Op& op) {
    return {op.kind, op.n[2], op.n[3], op.n[5], static_cast<uint8_t*>(op.p[1]), static_cast<uint8_t*>(op.p[2])};
}

// p: qkv, keys, values, cos, sin, q norm, k norm, step; n: ld, heads, key heads, dim, half, between blocks; f: eps; kind: kept
void do_place(const Op& op) {
    const Step& step = *static_cast<const Step*>(op.p[7]);
    Pages pages = pages_of(op);
    Heads h{op.n[0], op.n[1], op.n[2], op.n[3], op.n[4], floats(op.p[3]), floats(op.p[4]), floats(op.p[5]), floats(op.p[6]), op.f[0]};
    each_row(op, h.ld, [&](int64_t row) {
        float *q = floats(op.p[0]) + row * h.ld, *k = q + h.queries * h.dim;
        turn(h, q, step.positions[row]);
        place(pages, k, k + h.keys * h.dim, step.slots[row]);
    });
}

// p: qkv, keys, values, out, -, -, -, step; n: ld, heads, key heads, dim, window, between blocks; f: scale, softcap; kind: kept
void do_attend(const Op& op) {
    attend({pages_of(op), op.n[0], op.n[1], op.n[4], {op.f[0], op.f[1]}, floats(op.p[0]), floats(op.p[3]),
            static_cast<const Step*>(op.p[7])});
}

// p: x, table, -, -, -, -, -, step; n: ld, k
void do_add_places(const Op& op) {
    const Step& step = *static_cast<const Step*>(op.p[7]);
    each_row(op, op.n[1], [&](int64_t row) {
        add_row(floats(op.p[1]) + step.positions[row] * op.n[1], op.n[1], floats(op.p[0]) + row * op.n[0]);
    });
}

Routes& routes(const Op& op) { return *static_cast<Routes*>(op.p[7]); }

// p: x, router, gate, -, -, -, -, routes; n: ld, k, experts, top_k, normalised
void do_route(const Op& op) {
    Router r{op.n[0], op.n[1], op.n[2], op.n[3], op.n[4] != 0, floats(op.p[0]), floats(op.p[1]), floats(op.p[2]), &routes(op)};
    parallel(*op.rows, 4, [&](int64_t begin, int64_t end) { route(r, begin, end); });
}

// p: -, -, -, -, -, -, -, routes; n: experts, top_k
void do_deal(const Op& op) {
    parallel(1, 1, [&](int64_t, int64_t) { deal(routes(op), *op.rows, op.n[0], op.n[1]); });
}

// p: pairs, shared, out, -, -, -, -, routes; n: k, ld of out, top_k, adds
void do_combine(const Op& op) {
    each_row(op, op.n[0] * op.n[2], [&](int64_t row) {
        combine(routes(op), row, op.n[2], floats(op.p[0]), floats(op.p[1]), op.n[0], floats(op.p[2]) + row * op.n[1], op.n[3] != 0);
    });
}

}  // namespace

extern "C" void myna_run(const Op* ops, int64_t count) {
    for (const Op* op = ops; op < ops + count; op++) switch (op->code) {
            case QUANTIZE: do_quantize(*op); break;
            case HIDDEN: do_hidden(*op); break;
            case LINEAR: do_linear(*op); break;
            case NORM: do_norm(*op); break;
            case EMBED: do_embed(*op); break;
            case PLACE: do_place(*op); break;
            case ATTEND: do_attend(*op); break;
            case ADD_PLACES: do_add_places(*op); break;
            case ROUTE: do_route(*op); break;
            case DEAL: do_deal(*op); break;
            case COMBINE: do_combine(*op); break;
            case SHRINK: do_shrink(*op); break;
            case EXPAND: do_expand(*op); break;
        }
}

// Choose the token of each row of `vocab` logits.
extern "C" void myna_choose(Draw* rows, int64_t count, int64_t vocab) {
    parallel(count, 1, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; row++) choose(rows[row], vocab);
    });
}

// Read memory as fast as all threads can: what a step's speed is compared with. The sum is there so that it is read.
extern "C" int64_t myna_read(const uint8_t* memory, int64_t bytes) {
    constexpr int64_t STRETCH = 1 << 17;
    std::atomic<int64_t> total{0};
    parallel(bytes / STRETCH, 1, [&](int64_t begin, int64_t end) {
        i32x16 sums[4] = {set1i(0), set1i(0), set1i(0), set1i(0)};
        for (const uint8_t* p = memory + begin * STRETCH; p < memory + end * STRETCH; p += 256)
            for (int i = 0; i < 4; i++) sums[i] = addi(sums[i], loadi(p + 64 * i));
        total += sumi(addi(addi(sums[0], sums[1]), addi(sums[2], sums[3])));
    });
    return total;
}

// Find scales and bases to round weights with; on the caller's thread alone.
extern "C" void myna_fit(const Fit* f) { fit(*f); }

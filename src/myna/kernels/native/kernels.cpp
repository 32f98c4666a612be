// The plain C interface: a program is an array of operations, run in order, each on all threads.
//
// Python describes the operations once and changes only what `rows` and Step point at; see kernels/program.py, which
// mirrors Op field by field. Nothing here knows a model: a new architecture is another array.
#include "attention.h"
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

enum Code { QUANTIZE = 0, HIDDEN = 1, LINEAR = 2, NORM = 3, EMBED = 4, PLACE = 5, ATTEND = 6 };

float* floats(void* p) { return static_cast<float*>(p); }
const int32_t* ints(void* p) { return static_cast<const int32_t*>(p); }

// Rows of about 16 thousand numbers are one claim: some 5 microseconds.
int64_t few(int64_t k) { return 16384 / (k + 1) + 1; }

template <class F> void each_row(const Op& op, int64_t k, F work) {
    parallel(*op.rows, few(k), [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; row++) work(row);
    });
}

// p: x, out rows, norm weight, which rows; n: ld, k; f: eps
void do_quantize(const Op& op) {
    int64_t ld = op.n[0], k = op.n[1];
    each_row(op, k, [&](int64_t row) {
        int64_t from = op.p[3] ? ints(op.p[3])[row] : row;
        quantize(floats(op.p[0]) + from * ld, floats(op.p[2]), k, op.f[0], Row(op.p[1], row, groups_of(k)));
    });
}

// p: rows, out rows, gate, its bias, up, its bias; n: rows of each weight, columns, span of the gate, format and span of up;
// kind: activation and 16 times the gate's format
void do_hidden(const Op& op) {
    auto packed = [&](int64_t format, int64_t span, int i) { return Packed{int(format), span, static_cast<const uint8_t*>(op.p[i])}; };
    hidden({op.n[0], op.n[1], op.kind % 16, {packed(op.kind / 16, op.n[2], 2), packed(op.n[3], op.n[4], 4)},
            {floats(op.p[3]), floats(op.p[5])}, op.p[1]}, op.p[0], *op.rows);
}

// p: rows, out, packed, bias; n: rows of the weight, columns, ld of out, adds, span; kind: format
void do_linear(const Op& op) {
    Linear l{{op.kind, op.n[4], static_cast<uint8_t*>(op.p[2])}, op.n[0], op.n[1], op.n[2], floats(op.p[3]), floats(op.p[1]), op.n[3] != 0};
    linear(l, op.p[0], *op.rows);
}

// p: x, out, weight; n: ld, k, ld of out, adds; f: eps
void do_norm(const Op& op) {
    each_row(op, op.n[1], [&](int64_t row) {
        rms_norm(floats(op.p[0]) + row * op.n[0], floats(op.p[2]), op.n[1], op.f[0], floats(op.p[1]) + row * op.n[2], op.n[3] != 0);
    });
}

// p: ids, out, packed; n: k, span; f: factor; kind: format
void do_embed(const Op& op) {
    each_row(op, op.n[0], [&](int64_t row) {
        unpack(op.kind, op.n[1], static_cast<uint8_t*>(op.p[2]), ints(op.p[0])[row], op.n[0], op.f[0], floats(op.p[1]) + row * op.n[0]);
    });
}

// p: qkv, keys, values, cos, sin, q norm, k norm, step; n: ld, heads, key heads, dim, half; f: eps
void do_place(const Op& op) {
    const Step& step = *static_cast<const Step*>(op.p[7]);
    Heads h{op.n[0], op.n[1], op.n[2], op.n[3], op.n[4], floats(op.p[3]), floats(op.p[4]), floats(op.p[5]), floats(op.p[6]),
            op.f[0], static_cast<uint16_t*>(op.p[1]), static_cast<uint16_t*>(op.p[2])};
    each_row(op, h.ld, [&](int64_t row) { place_row(h, floats(op.p[0]) + row * h.ld, step.positions[row], step.slots[row]); });
}

// p: qkv, keys, values, out, partials, -, -, step; n: ld, heads, key heads, dim, window; f: scale, softcap
void do_attend(const Op& op) {
    attend({op.n[0], op.n[1], op.n[2], op.n[3], op.n[4], op.f[0], op.f[1], floats(op.p[0]), static_cast<uint16_t*>(op.p[1]),
            static_cast<uint16_t*>(op.p[2]), floats(op.p[3]), floats(op.p[4]), static_cast<const Step*>(op.p[7])});
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
        }
}

// Choose the token of each row of `vocab` logits.
extern "C" void myna_choose(Draw* rows, int64_t count, int64_t vocab) {
    parallel(count, 1, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; row++) choose(rows[row], vocab);
    });
}

// Compiled once for each instruction set, with its flags and GRIFFIN_TABLE as the name of its
// table.
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include <cstdlib>
#include <new>

#include "sequence.h"

namespace griffin {
namespace {

#include "scratch.h"
#include "vector.h"

#include "blocks.h"
#if defined(__AMX_TILE__)
#include "tiles.h"

#include "tiled.h"
#endif
#include "elementwise.h"
#include "scan.h"

#include "attention.h"
#include "attention_gradient.h"
#include "convolution.h"
#include "linear.h"
#include "passes.h"
#include "unit.h"

#include "multiply.h"
#include "recurrence.h"
#include "recurrence_gradient.h"

template <class Job, void (*Float)(const Job&, int64_t, int64_t),
          void (*Half)(const Job&, int64_t, int64_t), void (*Double)(const Job&, int64_t, int64_t)>
void by_type(const Job& job, int64_t first, int64_t last) {
  switch (job.type) {
    case Type::f32: return Float(job, first, last);
    case Type::bf16: return Half(job, first, last);
    case Type::f64: return Double(job, first, last);
  }
}

template <class X>
void unit_or_gates(const Unit& u, int64_t first, int64_t last) {
  u.gate_i ? unit_of_gates<X>(u, first, last) : unit<X>(u, first, last);
}

int64_t recurrence_bytes(const Recurrence& u) {
  return u.type == Type::f64   ? recurrence_bytes_of<double>(u)
         : u.type == Type::f32 ? recurrence_bytes_of<float>(u)
                               : recurrence_bytes_of<Bf16>(u);
}

}  // namespace

const Sequences GRIFFIN_TABLE = {
    kLanes<float>,
    by_type<Scan, scan<float>, scan<Bf16>, scan<double>>,
    by_type<ScanGradient, scan_gradient<float>, scan_gradient<Bf16>, scan_gradient<double>>,
    by_type<Unit, unit_or_gates<float>, unit_or_gates<Bf16>, unit_or_gates<double>>,
    by_type<UnitGradient, unit_gradient<float>, unit_gradient<Bf16>, unit_gradient<double>>,
    by_type<Convolution, convolution<float>, convolution<Bf16>, convolution<double>>,
    recurrence_bytes,
    by_type<Recurrence, recurrence_weights<float>, recurrence_weights<Bf16>,
            recurrence_weights<double>>,
    by_type<Recurrence, recurrence<float>, recurrence<Bf16>, recurrence<double>>,
    by_type<RecurrenceGradient, recurrence_gradient<float>, recurrence_gradient<Bf16>,
            recurrence_gradient<double>>,
    attention_bytes,
    attention_scores,
    attention_values,
    attention_sums,
    attention_layout,
    attention_groups,
    attention_gradient,
    by_type<AttentionGradient, attention_gradient_sums<float>, attention_gradient_sums<float>,
            attention_gradient_sums<double>>,
    by_type<Norm, norm<float>, norm<Bf16>, norm<double>>,
    by_type<NormGradient, norm_gradient<float>, norm_gradient<Bf16>, norm_gradient<double>>,
    by_type<Gated, gated<float>, gated<Bf16>, gated<double>>,
    by_type<GatedGradient, gated_gradient<float>, gated_gradient<Bf16>, gated_gradient<double>>,
    softmax,
    by_type<Rope, rope<float>, rope<Bf16>, rope<double>>,
    soft_cap,
    kOutputs,
    linear_bytes,
    linear_prepare,
    by_type<Linear, linear<float>, linear_of_bf16, linear<double>>,
};

}  // namespace griffin

// The kernels along time, shared out among threads: what the module and the trunk call.
#pragma once

#include <cstdint>

#include "kernels.h"
#include "sequence.h"

namespace griffin {

void run(const Scan& scan, int threads);
void run(const ScanGradient& scan, int threads);
void run(const Unit& unit, int threads);  // from weights, or from gates where it has them
void run(const UnitGradient& unit, int threads);
void run(const Convolution& convolution, int threads);
void run(Recurrence recurrence, int threads);  // these two bring the memory
void run(RecurrenceGradient recurrence, int threads);
void run(const Norm& norm, int threads);
void run(const NormGradient& norm, int threads);
void run(const Gated& gated, int threads);
void run(const GatedGradient& gated, int threads);
void run(const Softmax& softmax, int threads);
void run(const Rope& rope, int threads);
void run(const SoftCap& cap, int threads);
void run(Linear linear, int threads);  // it brings the memory

inline int64_t size_of(Type type) { return type == Type::f64 ? 8 : type == Type::f32 ? 4 : 2; }

}  // namespace griffin

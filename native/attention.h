// Local attention of a call: what each document sees, and the phases one after the other.
#pragma once

#include <cstdint>

#include "kernels.h"
#include "sequence.h"

namespace griffin {

// float64 holds every whole number up to here, and angles are formed in it.
constexpr int64_t kMostPositions = int64_t{1} << 53;

// Throw std::invalid_argument unless `steps` tokens can begin at a position.
void check_position(int64_t position, int64_t steps);

// position: (B, T); negative is left padding, 0 starts a document; others follow from the one
// before, and go on with a ring only where there is one (std::invalid_argument). The fields of `n`
// after `y` are filled here.
void attend(Attention n, const int64_t* position, int threads);

// Of the same positions, with y and lse of that call; fields after `dring_v` are filled here.
void attend_back(AttentionGradient n, const int64_t* position, int threads);

}  // namespace griffin

// Local attention of a call: what each document sees, and the phases one after the other.
#pragma once

#include <cstdint>

#include "kernels.h"
#include "sequence.h"

namespace griffin {

// position: (B, T); negative is left padding, 0 starts a document. The fields of `n` after `y` are
// filled here.
void attend(Attention n, const int64_t* position, int threads);

}  // namespace griffin

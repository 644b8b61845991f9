// What the kernels make of random numbers.
#pragma once

#include <string>
#include <vector>

#include "check/numbers.h"

namespace griffin {

// What came out, and how far from another machine's it may be, of the largest value.
struct Output {
  std::string name;
  Tensor values;
  double allowed;
};
using Outputs = std::vector<Output>;

// Run every kernel of an instruction set, in shapes that end within a vector or a block too.
Outputs all_outputs(const char* set);

}  // namespace griffin

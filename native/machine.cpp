// Prints the best instruction set of the machine it runs on: CMake asks for GRIFFIN_KERNELS=native.
#include "machine.h"

#include <cstdio>

int main() {
#if defined(GRIFFIN_X86)
  __builtin_cpu_init();
#endif
  for (const auto& set : griffin::kInstructionSets) {
    if (set.here()) return std::puts(set.name) < 0;
  }
}

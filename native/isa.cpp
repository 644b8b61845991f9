// Which instruction set runs: the best that the machine has and was compiled for, or a weaker one
// that a test asked for.
#include <atomic>
#include <cstring>
#include <iterator>

#include "kernels.h"
#include "machine.h"

namespace griffin {
namespace {

// CMake has a SET(name) for each set that it compiles.
const Kernels* const kCompiled[] = {
#define SET(name) &name##_kernels,
    GRIFFIN_SETS
#undef SET
};

const Kernels* find(const char* name) {
  for (const Kernels* kernels : kCompiled) {
    if (std::strcmp(kernels->name, name) == 0) return kernels;
  }
  return nullptr;
}

struct Tables {
  const Kernels* list[std::size(kInstructionSets)];
  const char* machine[std::size(kInstructionSets)];
  int count = 0, machine_count = 0;

  Tables() {
#if defined(GRIFFIN_X86)
    __builtin_cpu_init();
#endif
    for (const auto& set : kInstructionSets) {
      if (!set.here()) continue;
      machine[machine_count++] = set.name;
      if (const Kernels* kernels = find(set.name)) list[count++] = kernels;
    }
  }
};

const Tables& tables() {
  static const Tables found;
  return found;
}

std::atomic<const Kernels*> chosen{nullptr};

}  // namespace

int available(const Kernels* const** out) {
  *out = tables().list;
  return tables().count;
}

int compiled(const Kernels* const** out) {
  *out = kCompiled;
  return static_cast<int>(std::size(kCompiled));
}

int of_machine(const char* const** names) {
  *names = tables().machine;
  return tables().machine_count;
}

const Kernels& active() {
  const Kernels* now = chosen.load(std::memory_order_relaxed);
  return now ? *now : *tables().list[0];
}

bool force(const char* name) {
  for (int k = 0; k < tables().count; ++k) {
    if (std::strcmp(tables().list[k]->name, name) == 0) {
      chosen.store(tables().list[k]);
      return true;
    }
  }
  return false;
}

}  // namespace griffin

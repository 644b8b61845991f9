// Which instruction set runs: the best that the machine has, or a weaker one that a test asked for.
#include <atomic>
#include <cstring>

#if defined(GRIFFIN_ARM) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include "kernels.h"

namespace griffin {
namespace {

#if defined(GRIFFIN_ARM)
bool has_dot_products() {
#if defined(__linux__)
  return getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
#else
  return true;  // every ARM machine that Apple sells with a 64-bit desktop system
#endif
}
#endif

struct Tables {
  const Kernels* list[5];
  int count = 0;

  Tables() {
#if defined(GRIFFIN_X86)
    __builtin_cpu_init();
    // __builtin_cpu_supports also asks whether the system saves the wide registers.
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("fma")) {
      if (__builtin_cpu_supports("avx512bf16")) list[count++] = &avx512_bf16_kernels;
      list[count++] = &avx512_kernels;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) list[count++] = &avx2_kernels;
#endif
#if defined(GRIFFIN_ARM)
    if (has_dot_products()) list[count++] = &neon_kernels;
#endif
    list[count++] = &portable_kernels;
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

// Which instruction set runs: the best that the machine has, or a weaker one that a test asked for.
#include <atomic>
#include <cstring>

#if defined(GRIFFIN_ARM) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#if defined(GRIFFIN_AMX) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "kernels.h"

namespace griffin {
namespace {

#if defined(GRIFFIN_AMX)
// Tiles are 8 KB of registers that the system keeps for a process only if it asks.
bool may_use_tiles() {
#if defined(__linux__)
  constexpr int kAskPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  unsigned eax, ebx, ecx, edx;
  if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return false;
  const bool bf16 = edx >> 22 & 1, tile = edx >> 24 & 1, int8 = edx >> 25 & 1;
  return bf16 && tile && int8 && syscall(SYS_arch_prctl, kAskPermission, kTileData) == 0;
#else
  return false;
#endif
}
#endif

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
  const Kernels* list[6];
  int count = 0;

  Tables() {
#if defined(GRIFFIN_X86)
    __builtin_cpu_init();
    // __builtin_cpu_supports also asks whether the system saves the wide registers.
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("fma")) {
      if (__builtin_cpu_supports("avx512bf16")) {
#if defined(GRIFFIN_AMX)
        if (may_use_tiles()) list[count++] = &amx_kernels;
#endif
        list[count++] = &avx512_bf16_kernels;
      }
      list[count++] = &avx512_kernels;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
      list[count++] = &avx2_kernels;
    }
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

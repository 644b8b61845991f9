// What this machine can run. Asked by isa.cpp when kernels run, and by machine.cpp when only those
// of the building machine are to be compiled.
#pragma once

#if defined(__x86_64__)
#define GRIFFIN_X86
#elif defined(__aarch64__)
#define GRIFFIN_ARM
#endif

#if defined(GRIFFIN_ARM) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#if defined(GRIFFIN_X86) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace griffin {

#if defined(GRIFFIN_X86)
// __builtin_cpu_supports also asks whether the system saves the wide registers.
inline bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

inline bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("fma");
}

inline bool has_avx512_bf16() { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }

// Tiles are 8 KB of registers that the system keeps for a process only if it asks.
inline bool has_amx() {
#if defined(__linux__)
  constexpr int kAskPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  unsigned eax, ebx, ecx, edx;
  if (!has_avx512_bf16() || !__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return false;
  const bool bf16 = edx >> 22 & 1, tile = edx >> 24 & 1, int8 = edx >> 25 & 1;
  return bf16 && tile && int8 && syscall(SYS_arch_prctl, kAskPermission, kTileData) == 0;
#else
  return false;
#endif
}
#endif

#if defined(GRIFFIN_ARM)
inline bool has_neon() {  // with dot products
#if defined(__linux__)
  return getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
#else
  return true;  // every ARM machine that Apple sells with a 64-bit desktop system
#endif
}
#endif

inline bool has_portable() { return true; }

// The instruction sets that there are kernels for on this kind of machine, the fastest first.
constexpr struct {
  const char* name;
  bool (*here)();
} kInstructionSets[] = {
#if defined(GRIFFIN_X86)
    {"amx", has_amx},
    {"avx512_bf16", has_avx512_bf16},
    {"avx512", has_avx512},
    {"avx2", has_avx2},
#endif
#if defined(GRIFFIN_ARM)
    {"neon", has_neon},
#endif
    {"portable", has_portable},
};

}  // namespace griffin

// Runs the kernels on random numbers, the same on every machine, and compares what comes out
// (`make test-arm`):
//   check bits          every instruction set of this machine beside portable, bit for bit; for
//                       ARM, where all add in the same order
//   check write FILE    keep what portable makes of them here
//   check against FILE  every set beside a file of another machine: what is exact (int8, whole
//                       numbers) bit for bit, the rest to rounding
#include <cmath>
#include <cstdio>
#include <cstring>

#include "check/outputs.h"

namespace griffin {
namespace {

bool same(const Tensor& a, const Tensor& b, int64_t k) {
  const size_t size = static_cast<size_t>(size_of(a.type)), at = static_cast<size_t>(k) * size;
  // NaN is no number, so its bits are none of a number either.
  return !std::memcmp(&a.bytes[at], &b.bytes[at], size) || (std::isnan(a[k]) && std::isnan(b[k]));
}

// Say where two differ; return how many did.
int compare(const char* set, const Outputs& found, const Outputs& wanted, bool bits) {
  int wrong = 0;
  for (size_t n = 0; n < found.size(); ++n) {
    const Tensor &a = found[n].values, &b = wanted[n].values;
    double largest = 0;
    for (int64_t k = 0; k < b.count(); ++k) {
      if (std::isfinite(b[k])) largest = std::fmax(largest, std::fabs(b[k]));
    }
    const double allowed = bits ? 0 : found[n].allowed * largest;
    for (int64_t k = 0; k < a.count(); ++k) {
      const bool near = allowed > 0 && std::fabs(a[k] - b[k]) <= allowed;
      if (near || same(a, b, k)) continue;
      std::printf("%s: %s: value %lld of %lld is %.9g, not %.9g\n", set, found[n].name.c_str(),
                  static_cast<long long>(k), static_cast<long long>(a.count()), a[k], b[k]);
      ++wrong;
      break;
    }
  }
  return wrong;
}

int check(const std::string& how, const char* path) {
  Outputs wanted = all_outputs("portable");
  if (how != "bits") {
    std::FILE* file = std::fopen(path, how == "write" ? "wb" : "rb");
    if (!file) return std::perror(path), 2;
    size_t moved = 0, bytes = 0;
    for (Output& output : wanted) {
      std::vector<uint8_t>& b = output.values.bytes;
      bytes += b.size();
      moved += how == "write" ? std::fwrite(b.data(), 1, b.size(), file)
                              : std::fread(b.data(), 1, b.size(), file);
    }
    if (std::fclose(file) || moved != bytes) return std::perror(path), 2;
    if (how == "write") return 0;
  }
  const Kernels* const* tables;
  const int count = available(&tables);
  int wrong = 0;
  if (how == "bits" && count == 1) return std::puts("this machine has portable alone"), 1;
  for (int k = 0; k < count; ++k) {
    const char* set = tables[k]->name;
    if (how == "bits" && std::string(set) == "portable") continue;
    const Outputs found = all_outputs(set);
    const int differ = compare(set, found, wanted, how == "bits");
    std::printf("%s: %zu outputs beside %s, %d differ\n", set, found.size(),
                how == "bits" ? "portable, bit for bit" : path, differ);
    wrong += differ;
  }
  return wrong ? 1 : 0;
}

}  // namespace
}  // namespace griffin

int main(int argc, char** argv) {
  const std::string how = argc > 1 ? argv[1] : "";
  if (how == "bits" ? argc == 2 : (how == "write" || how == "against") && argc == 3) {
    return griffin::check(how, argc == 3 ? argv[2] : "");
  }
  std::fputs("usage: check bits | check write FILE | check against FILE\n", stderr);
  return 2;
}

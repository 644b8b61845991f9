// The Python face of the kernels: what there is on this machine, and the functions of native/face/.
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <atomic>
#include <chrono>
#include <string>
#include <vector>

#include "face/face.h"
#include "pool.h"
#include "product.h"
#include "sequence.h"

namespace griffin {
namespace {

// Of the module's functions and what they take; INTERFACE in griffin/ops/native.py is the same
// number. Both go up by one where a function takes something else.
constexpr int kInterface = 5;

// Seconds to read `bytes` at `address` once, from first to last, each thread its own share.
double read_seconds(Address address, int64_t bytes, int threads) {
  nb::gil_scoped_release release;
  const uint64_t* words = address;
  const Kernels& kernels = active();
  constexpr int64_t kPiece = 1 << 17;  // words: 1 MiB
  const int64_t count = bytes / 8;
  std::atomic<uint64_t> total{0};
  const auto begin = std::chrono::steady_clock::now();
  parallel(threads, (count + kPiece - 1) / kPiece, 1, [&](int64_t first, int64_t last) {
    const int64_t end = last * kPiece < count ? last * kPiece : count;
    total += kernels.read(words + first * kPiece, end - first * kPiece);
  });
  const auto end = std::chrono::steady_clock::now();
  // The sum counts for the result, so that no compiler can leave the reading out.
  return std::chrono::duration<double>(end - begin).count() + (total.load() == 1 ? 1e-12 : 0);
}

std::vector<std::string> names(int (*of)(const Kernels* const**)) {
  const Kernels* const* tables;
  const int count = of(&tables);
  std::vector<std::string> out;
  for (int k = 0; k < count; ++k) out.emplace_back(tables[k]->name);
  return out;
}

std::vector<std::string> names_of_machine() {
  const char* const* names;
  const int count = of_machine(&names);
  return {names, names + count};
}

void use(const std::string& name) {
  if (!force(name.c_str())) {
    throw std::invalid_argument("this machine has no kernels named " + name);
  }
}

}  // namespace
}  // namespace griffin

NB_MODULE(_native, m) {
  using namespace griffin;
  m.doc() = "CPU kernels of griffin; called through griffin.ops.";
  m.def("instruction_sets", [] { return names(available); },
        "Return the compiled instruction sets this machine can run, the fastest first.");
  m.def("compiled", [] { return names(compiled); }, "Return the instruction sets in this build.");
  m.def("of_machine", &names_of_machine,
        "Return the instruction sets of this machine that there are kernels for, compiled or not.");
  m.def("instruction_set", [] { return std::string(active().name); },
        "Return the instruction set in use.");
  m.def("use_instruction_set", &use, nb::arg("name"),
        "Run the kernels of another instruction set.");
  m.attr("interface") = kInterface;
  m.attr("largest_gate") = kLargestGate;
  m.attr("most_taps") = kMostTaps;
  m.attr("kept_steps") = kKept;
  m.attr("most_queries") = kMostQueries;
  m.attr("largest_head") = kLargestHead;
  nb::class_<Matrix>(m, "Matrix",
                     "A packed matrix and its bias; whoever makes one keeps their memory.")
      .def(nb::init<Format, Address, Address, Address, int64_t, int64_t, int64_t, Address, Type>(),
           nb::arg("format"), nb::arg("data"), nb::arg("scale"), nb::arg("low"), nb::arg("out"),
           nb::arg("inputs"), nb::arg("panel_bytes"), nb::arg("bias"), nb::arg("bias_type"));
  add_products(m);
  add_rows(m);
  add_recurrence(m);
  add_attention(m);
  add_trunk(m);
  m.def("read_seconds", &read_seconds, nb::arg("address"), nb::arg("bytes"), nb::arg("threads"));
}

// What is done to one vector after another: norms, gates, softmax, rotation, the soft cap.
#include "face.h"
#include "run.h"
#include "sequence.h"
#include "trunk.h"

namespace griffin {
namespace {

void norm(Type type, int64_t rows, int64_t width, Address x, Address weight, Address y, double eps,
          int threads) {
  nb::gil_scoped_release release;
  run(Norm{type, rows, width, x, nullptr, weight, eps, nullptr, y, false, false}, threads);
}

void add_norm(Type type, int64_t rows, int64_t width, Address x, Address add, Address half_add,
              Address weight, Address sum, Address y, Address half_y, double eps, int threads) {
  need((!half_add.value && !half_y.value) || type == Type::f32, "bfloat16 stands beside float32");
  need((y.value || half_y.value) && (!(add.value || half_add.value) == !sum.value),
       "a norm has a result, and a sum where something is added");
  nb::gil_scoped_release release;
  const Norm n{type,         rows, width, x, half_add.value ? half_add : add, weight, eps, sum,
               half_y.value ? half_y : y, half_add.value != 0, half_y.value != 0};
  run(n, threads);
}

void norm_gradient(Type type, int64_t rows, int64_t width, Address x, Address weight, Address dy,
                   Address half_dy, Address dsum, Address dx, Address half_dx, Address blocks,
                   Address dweight, double eps, int threads) {
  need((!half_dy.value && !half_dx.value) || type == Type::f32, "bfloat16 stands beside float32");
  need(dy.value || half_dy.value, "a gradient comes back through the norm");
  nb::gil_scoped_release release;
  const NormGradient n{type, rows, width, x, weight, half_dy.value ? half_dy : dy, dsum, eps, dx,
                       half_dx, blocks, dweight, half_dy.value != 0};
  run(n, threads);
}

void gated(Type type, int64_t count, Address gate, Address x, Address y, int threads) {
  nb::gil_scoped_release release;
  run(Gated{type, count, gate, x, y}, threads);
}

void gated_gradient(Type type, int64_t count, Address gate, Address x, Address dy, Address dgate,
                    Address dx, Address y, int threads) {
  nb::gil_scoped_release release;
  run(GatedGradient{type, count, gate, x, dy, dgate, dx, y}, threads);
}

void softmax(Type type, int64_t rows, int64_t columns, Address logits, Address target,
             Address total, Address right, bool sums, float cap, float factor, int threads) {
  need(type == Type::f32, "logits are float32");
  nb::gil_scoped_release release;
  run(Softmax{rows, columns, sums, logits, target, total, right, cap, factor}, threads);
}

void rope(Type type, int64_t tokens, int64_t heads, int64_t width, int64_t half, Address x,
          Address cos, Address sin, int threads) {
  need(half >= 0 && 2 * half <= width, "a head is narrower than what is to be rotated");
  nb::gil_scoped_release release;
  run(Rope{type, tokens, heads, width, half, x, cos, sin}, threads);
}

void cosines(Type type, int64_t tokens, int64_t half, Address position, Address frequency,
             Address cos, Address sin, int) {
  need(type != Type::bf16, "cosines are float32 or wider");
  nb::gil_scoped_release release;
  rope_table(type, position, tokens, frequency, half, cos, sin);
}

void soft_cap(Type type, int64_t count, Address x, float cap, int threads) {
  need(type == Type::f32, "logits are float32");
  nb::gil_scoped_release release;
  run(SoftCap{count, cap, x}, threads);
}

}  // namespace

void add_rows(nb::module_& m) {
  m.def("norm", &norm);
  m.def("add_norm", &add_norm);
  m.def("norm_gradient", &norm_gradient);
  m.def("gated", &gated);
  m.def("gated_gradient", &gated_gradient);
  m.def("softmax", &softmax);
  m.def("rope", &rope);
  m.def("rope_table", &cosines);
  m.def("soft_cap", &soft_cap);
}

}  // namespace griffin

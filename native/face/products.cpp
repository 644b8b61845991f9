// Products with packed weights, and with plain ones of few rows.
#include <algorithm>
#include <cstdlib>
#include <new>

#include "face.h"
#include "product.h"
#include "run.h"

namespace griffin {
namespace {

#include "scratch.h"

void packed_linear(Type type, int64_t rows, int64_t inputs, int64_t outputs, Address x, Address y,
                   const Matrix& m, Type y_type, int threads) {
  need(type != Type::f64 && y_type != Type::f64, "packed weights have no product in float64");
  need(m.in == inputs && m.out == outputs, "the packed matrix is of another size");
  nb::gil_scoped_release release;
  const Results results{y, y_type};
  uint8_t* memory = scratch().get(product_bytes(m, rows));
  multiply(&m, &results, 1, x, type, rows, memory, threads);
}

void screened_linear(Type type, int64_t rows, int64_t inputs, int64_t outputs, Address x,
                     Address y, const Matrix& preview, const Matrix& exact, int64_t most,
                     int threads) {
  need(type != Type::f64, "packed weights have no product in float64");
  for (const Matrix* m : {&preview, &exact}) {
    need(m->in == inputs && m->out == outputs, "the packed matrix is of another size");
  }
  need(most >= 1, "at least one panel is read whole");
  nb::gil_scoped_release release;
  uint8_t* memory =
      scratch().get(std::max(product_bytes(preview, rows), product_bytes(exact, rows)));
  multiply_screened(preview, exact, most, x, type, rows, y, memory, threads);
}

void look_up_rows(Type type, int64_t count, int64_t inputs, Address ids, Address y,
                  const Matrix& m, float scale, int) {
  need(type != Type::f64, "packed weights are not looked up in float64");
  need(m.in == inputs, "the packed matrix is of another size");
  nb::gil_scoped_release release;
  check_ids(m, ids, count);
  look_up(m, ids, count, scale, type, y);
}

void pack(Type type, int64_t rows, int64_t inputs, Address from, Address to, int threads) {
  need(type == Type::bf16, "pairs are of bfloat16");
  nb::gil_scoped_release release;
  pack_pairs(from, rows, inputs, to, threads);
}

void linear_rows(Type type, int64_t rows, int64_t in, int64_t outputs, Address x, Address w,
                 Address bias, Address y, int threads) {
  need(type != Type::f64 && in >= 1, "a product has at least one input, and none is in float64");
  nb::gil_scoped_release release;
  run(Linear{type, rows, in, outputs, x, w, bias, y, nullptr}, threads);
}

}  // namespace

void add_products(nb::module_& m) {
  m.def("packed_linear", &packed_linear);
  m.def("screened_linear", &screened_linear);
  m.def("look_up", &look_up_rows);
  m.def("pack_pairs", &pack);
  m.def("linear", &linear_rows);
}

}  // namespace griffin

// Products of rows with packed matrices, shared out among threads.
#pragma once

#include <cstdint>

#include "kernels.h"

namespace griffin {

// A packed (out, in) matrix and its bias, as a layer holds them.
struct Matrix {
  Format format;
  const uint8_t* data;
  const float* scale;
  const uint8_t* low;
  int64_t out, in, panel_bytes;
  const void* bias;
  Type bias_type;
};

// Where the results of a product go.
struct Results {
  void* y;
  Type type;
};

// Bytes of memory that a product of so many rows works in.
int64_t product_bytes(const Matrix& matrix, int64_t rows);

// y[n] = x W[n]^T + b[n] for `count` matrices of one format and one number of inputs: x is prepared
// once. memory: product_bytes of them. A row has the same bits whatever the number of rows,
// matrices and threads.
void multiply(const Matrix* matrices, const Results* results, int count, const void* x, Type x_type,
              int64_t rows, uint8_t* memory, int threads);

// y (rows, out) = x W^T for a matrix and a smaller copy of it, its preview: exact in the `most`
// panels of each row that hold the largest previews (of equals the first), and previews elsewhere.
// Which panels these are depends on the row alone. memory: product_bytes of the larger.
void multiply_screened(const Matrix& preview, const Matrix& exact, int64_t most, const void* x,
                   Type x_type, int64_t rows, float* y, uint8_t* memory, int threads);

// Throw std::invalid_argument for an id that is no row of the matrix.
void check_ids(const Matrix& matrix, const int64_t* ids, int64_t count);

// Rows `ids` of the matrix in `type`, each value rounded to it, times `scale`, and rounded again.
void look_up(const Matrix& matrix, const int64_t* ids, int64_t count, float scale, Type type,
             void* out);

// Lay a bfloat16 (rows, inputs) matrix into panels: pairs of inputs of 16 rows side by side, zeros
// for the padding.
void pack_pairs(const uint16_t* from, int64_t rows, int64_t inputs, uint32_t* to, int threads);

}  // namespace griffin

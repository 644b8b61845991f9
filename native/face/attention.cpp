// Window attention, forward and back.
#include "attention.h"
#include "face.h"
#include "sequence.h"

namespace griffin {
namespace {

// What both kernels of attention begin with.
template <class Job>
Job attention_of(Type type, int64_t rows, int64_t steps, int64_t heads, int64_t kv_heads,
                 int64_t width, int64_t slots, Address q, Address k, Address v, Address ring_k,
                 Address ring_v) {
  need_sequence(steps);
  need(kv_heads >= 1 && heads >= 1 && heads % kv_heads == 0 && heads / kv_heads <= kMostQueries &&
           width >= 1 && width <= kLargestHead && slots >= 1,
       "attention has at most 64 queries a key head, heads of at most 1,024, and a window");
  Job n{};
  n.type = type;
  n.rows = rows;
  n.steps = steps;
  n.heads = heads;
  n.kv_heads = kv_heads;
  n.width = width;
  n.slots = slots;
  n.q = q;
  n.k = k;
  n.v = v;
  n.ring_k = ring_k;
  n.ring_v = ring_v;
  return n;
}

void attention_for_gradient(Type type, int64_t rows, int64_t steps, int64_t heads,
                            int64_t kv_heads, int64_t width, int64_t slots, Address q, Address k,
                            Address v, Address ring_k, Address ring_v, Address position, Address y,
                            Address lse, int threads) {
  auto n = attention_of<Attention>(type, rows, steps, heads, kv_heads, width, slots, q, k, v,
                                   ring_k, ring_v);
  n.y = y;
  n.lse = lse;
  nb::gil_scoped_release release;
  attend(n, position, threads);
}

void attention(Type type, int64_t rows, int64_t steps, int64_t heads, int64_t kv_heads,
               int64_t width, int64_t slots, Address q, Address k, Address v, Address ring_k,
               Address ring_v, Address position, Address y, int threads) {
  attention_for_gradient(type, rows, steps, heads, kv_heads, width, slots, q, k, v, ring_k, ring_v,
                         position, y, Address{0}, threads);
}

void attention_gradient(Type type, int64_t rows, int64_t steps, int64_t heads, int64_t kv_heads,
                        int64_t width, int64_t slots, Address q, Address k, Address v,
                        Address ring_k, Address ring_v, Address position, Address y, Address lse,
                        Address dy, Address dq, Address dk, Address dv, Address dring_k,
                        Address dring_v, int threads) {
  auto n = attention_of<AttentionGradient>(type, rows, steps, heads, kv_heads, width, slots, q, k,
                                           v, ring_k, ring_v);
  n.y = y;
  n.lse = lse;
  n.dy = dy;
  n.dq = dq;
  n.dk = dk;
  n.dv = dv;
  n.dring_k = dring_k;
  n.dring_v = dring_v;
  nb::gil_scoped_release release;
  attend_back(n, position, threads);
}

}  // namespace

void add_attention(nb::module_& m) {
  m.def("attention", &attention);
  m.def("attention_for_gradient", &attention_for_gradient);
  m.def("attention_gradient", &attention_gradient);
}

}  // namespace griffin

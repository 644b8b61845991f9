// What the files of the module share: how addresses and types come from Python, what is refused,
// and what each file adds. Addresses and sizes in, nothing out: griffin/ops/kernels.py looks at the
// tensors before it passes their addresses; sizes that a kernel has no room for, ids and positions
// are looked at here.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <stdexcept>

#include "kernels.h"

namespace nb = nanobind;

namespace griffin {

// What Python holds as a number, as a pointer to whatever a kernel takes.
struct Address {
  uint64_t value;

  template <class T>
  operator T*() const {
    return reinterpret_cast<T*>(static_cast<uintptr_t>(value));
  }
};

}  // namespace griffin

namespace nanobind::detail {

// Reads a T from a Python number.
template <class T, class Number>
struct from_number {
  NB_TYPE_CASTER(T, const_name("int"))

  bool from_python(handle from, uint8_t flags, cleanup_list* list) noexcept {
    make_caster<Number> number;
    if (!number.from_python(from, flags, list)) return false;
    value = T{number.value};
    return true;
  }
};

template <>
struct type_caster<griffin::Address> : from_number<griffin::Address, uint64_t> {};
template <>
struct type_caster<griffin::Type> : from_number<griffin::Type, int> {};
template <>
struct type_caster<griffin::Format> : from_number<griffin::Format, int> {};

}  // namespace nanobind::detail

namespace griffin {

// A ValueError in Python.
inline void need(bool holds, const char* what) {
  if (!holds) throw std::invalid_argument(what);
}

inline void need_sequence(int64_t steps) { need(steps >= 1, "a sequence has at least one step"); }

// The functions of each file, which their comments tell of.
void add_products(nb::module_& m);
void add_rows(nb::module_& m);
void add_recurrence(nb::module_& m);
void add_attention(nb::module_& m);
void add_trunk(nb::module_& m);

}  // namespace griffin

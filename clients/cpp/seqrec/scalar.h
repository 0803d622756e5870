// A single number of a row.
#pragma once

#include <cmath>
#include <limits>
#include <optional>
#include <sstream>
#include <type_traits>

#include "seqrec/error.h"

namespace seqrec {

/// A number, or none. It takes one of any type, and throws Error if T cannot hold it: C++ itself
/// would make infinity of 1e39, and another month of 4294967297, without a word.
template <typename T>
class Scalar : public std::optional<T> {
 public:
  Scalar() = default;
  Scalar(std::nullopt_t) {}
  Scalar(std::optional<T> value) : std::optional<T>(value) {}
  template <typename Number, typename = std::enable_if_t<std::is_arithmetic_v<Number>>>
  Scalar(Number number) : std::optional<T>(held(number)) {}

 private:
  static T held(long double number) {
    using Limits = std::numeric_limits<T>;
    bool fits = number >= Limits::lowest() && number <= Limits::max();
    if constexpr (std::is_floating_point_v<T>) {
      // What is a little larger than the largest is rounded to it.
      const long double most = Limits::max() * (1 + static_cast<long double>(Limits::epsilon()) / 4);
      fits = !std::isfinite(number) || std::abs(number) < most;
    } else {
      fits = fits && number == std::trunc(number);
    }
    if (fits) return static_cast<T>(number);
    std::ostringstream said;
    said << "takes " << (std::is_floating_point_v<T> ? "FP32" : "INT32") << ", found " << number;
    throw Error(grpc::StatusCode::INVALID_ARGUMENT, "", "a row", said.str());
  }
};

}  // namespace seqrec

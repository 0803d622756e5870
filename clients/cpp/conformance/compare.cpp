#include <algorithm>
#include <cmath>
#include <cstddef>

#include "conformance/golden.h"

namespace conformance {
namespace {

using seqrec::Floats;
using seqrec::Ints;
using seqrec::Strings;

struct Compare {
  const Golden& golden;
  const seqrec::Row& want;
  const std::string& name;

  bool near(float got, float wanted, double times) const {
    const double tolerance = times * (golden.atol + golden.rtol * std::fabs(wanted));
    return std::fabs(static_cast<double>(got) - wanted) <= tolerance;
  }

  std::string operator()(const Ints& got) const {
    return got == std::get<Ints>(want.at(name)) ? "" : "another number";
  }

  std::string operator()(const Floats& got) const {
    const Floats& wanted = std::get<Floats>(want.at(name));
    if (got.size() != wanted.size()) return sizes(got.size(), wanted.size());
    for (std::size_t i = 0; i < got.size(); ++i) {
      if (!near(got[i], wanted[i], 1)) {
        return "number " + std::to_string(i) + " is " + std::to_string(got[i]) + ", not " +
               std::to_string(wanted[i]);
      }
    }
    return "";
  }

  // An id may stand elsewhere than in the file if the scores of both places are a tie: either
  // may be off by the tolerance. An id that the file has not has to tie with its last.
  std::string operator()(const Strings& got) const {
    const Strings& wanted = std::get<Strings>(want.at(name));
    const Floats& scores = std::get<Floats>(want.at("scores"));
    if (got.size() != wanted.size()) return sizes(got.size(), wanted.size());
    for (std::size_t i = 0; i < got.size(); ++i) {
      if (got[i] == wanted[i]) continue;
      const auto found = std::find(wanted.begin(), wanted.end(), got[i]);
      const float score =
          found == wanted.end() ? scores.back()
                                : scores[static_cast<std::size_t>(found - wanted.begin())];
      if (got[i].empty() || !near(score, scores[i], 2)) {
        return "id " + std::to_string(i) + " is '" + got[i] + "', not '" + wanted[i] + "'";
      }
    }
    return "";
  }

  static std::string sizes(std::size_t got, std::size_t wanted) {
    return std::to_string(got) + " values, not " + std::to_string(wanted);
  }
};

}  // namespace

std::string Golden::differs(std::size_t row, const seqrec::Row& got) const {
  for (const auto& [output, values] : got) {
    const std::string difference = std::visit(Compare{*this, want.at(row), output}, values);
    if (!difference.empty()) {
      return name + ": row " + std::to_string(row) + ", " + output + ": " + difference;
    }
  }
  return "";
}

}  // namespace conformance
